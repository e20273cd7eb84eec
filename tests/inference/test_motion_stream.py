"""The queue of frames whose motion is not known yet: each map is to belong to its own frame."""

from __future__ import annotations

import numpy as np
import pytest

from msst_keras.inference.motion_stream import MotionStream
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionSettings, PriorSettings

SIZE = (32, 48)


def grey(value, size=SIZE):
    """A frame of one grey level, by which it is known again."""
    return np.full((*size, 3), value, np.uint8)


def levels(moving_frames):
    return [int(moving.frame[0, 0, 0]) for moving in moving_frames]


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_frame_that_is_refused_leaves_no_trace(direction):
    flow = FlowSettings("dis_fast", SIZE, direction).to_dict()
    stream = MotionStream(MotionSettings(flow, None, PriorSettings("flow")))
    found = levels(stream.push(grey(1), time=1))
    for frame, time, sentence in ((grey(99, (16, 16)), 2, "one size"), (grey(98), 1, "Times of frames must rise")):
        with pytest.raises(ValueError, match=sentence):
            stream.push(frame, time=time)
    for value in (2, 3, 4):
        moving = stream.push(grey(value), time=value)
        assert all((each.time, each.flow.shape) == (each.frame[0, 0, 0], (*SIZE, 2)) for each in moving)
        found += levels(moving)
    assert found + levels(stream.close()) == [1, 2, 3, 4]
    # As the first frame of the next video, one of another size is none that is refused.
    assert levels(stream.push(grey(5, (40, 60))) + stream.close()) == [5]
