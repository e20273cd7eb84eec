"""The times of live frames: what flow is divided by is never far below the time that passed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from msst_keras.live.clock import Clock
from msst_keras.motion.flow import FlowEstimator, FlowSettings

RATE, FRAME = 25.0, 0.04


def tell_all(times, has_times=True):
    """What a clock of 25 frames a second tells of such times, which are the source's own or those of arrival."""
    clock = Clock(RATE, has_times)
    return [clock.tell(time if has_times else None, 100.0 if has_times else time) for time in times]


@pytest.mark.parametrize("has_times", [True, False])
@pytest.mark.parametrize("jump", [-10.0, -0.001, 10.1, 1e6])
def test_after_a_jump_one_nominal_frame_has_passed(jump, has_times):
    times = [50.0, 50.04, 50.04 + jump, 50.08 + jump, 50.2 + jump]
    assert tell_all(times, has_times) == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.24])


def test_own_times_that_differ_are_kept():
    times = [7.0, 7.02, 7.05, 7.4, 16.0]
    assert tell_all(times) == pytest.approx([time - 7.0 for time in times])


def test_equal_times_count_half_a_frame_which_is_taken_off_again():
    assert tell_all([0.0, 0.0, 0.08, 0.08, 0.0801, 0.16]) == pytest.approx([0.0, 0.02, 0.08, 0.1, 0.12, 0.16])


def test_a_burst_by_arrival_counts_whole_frames():
    times = [0.0, 0.001, 0.002, 0.12, 0.121, 0.122, 0.24, 0.5]
    assert tell_all(times, False) == pytest.approx([0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.5])


def test_a_source_faster_than_its_rate_does_not_hide_its_pauses():
    seconds = tell_all([*(0.01 * number for number in range(200)), 5.0], False)
    assert np.diff(seconds[:-1]) == pytest.approx(FRAME)
    assert seconds[-1] - seconds[-2] == pytest.approx(5.0 - 1.99 - 10 * FRAME)


def test_a_source_whose_times_cease_is_timed_by_arrival():
    clock = Clock(RATE, True)
    given = [(3.0, 70.0), (3.04, 70.01), (None, 70.02), (None, 70.1), (3.5, 70.2)]
    assert [clock.tell(*each) for each in given] == pytest.approx([0.0, 0.04, 0.08, 0.16, 0.26])


def test_flow_behind_a_jump_is_as_large_as_before():
    noise = np.random.default_rng(0).integers(0, 256, (96, 240, 3), dtype=np.uint8)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    flow = FlowEstimator(FlowSettings("dis_fast", (96, 160), direction="forward"))
    for number, seconds in enumerate(tell_all([10.0, 10.04, 0.0, 0.04, 20.0, 20.04])):
        frame = np.ascontiguousarray(wide[:, 4 * number : 4 * number + 160])
        for found in flow.push(frame, seconds * RATE):
            assert np.median(found[..., 0]) == pytest.approx(-4.0, abs=0.25)
