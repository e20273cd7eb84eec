"""What a run tells of itself is read back: lines, TensorBoard's scalars, pictures and curves, and the profile."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from msst_keras.training.log import Log, Profile
from msst_keras.training.options import TrainingOptions


def read(run_dir):
    events = EventAccumulator(str(run_dir), size_guidance={"tensors": 0})
    events.Reload()
    return events


def tensors(events, tag):
    return [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]


def test_lines_behind_the_checkpoint_are_cut_and_scalars_drawn(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0, "loss": 4.0}\n{"step": 1, "loss": 3.0}\n{"step": 2, "lo')
    with Log(tmp_path, 1, every=2) as log:
        for step in (1, 2, 3):
            log.step(step, {"loss": 3.0 - step})
        assert log.recent_loss(2) == 0.5
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": step, "loss": loss} for step, loss in ((0, 4.0), (1, 2.0), (2, 1.0), (3, 0.0))]
    events = read(tmp_path)
    assert tensors(events, "loss") == [(2, 1.0)]
    assert tensors(events, "memory/peak_mib")[0][1] > 10


def test_a_process_that_does_not_write_leaves_nothing(tmp_path):
    with Log(tmp_path, 0, every=1, writes=False) as log:
        log.step(0, {"loss": 1.0})
        log.validation(1, {"mae": 0, "max_f": 0, "s_measure": 0})
        log.pictures(1, [])
        log.hparams({"steps": 1})
    assert not list(tmp_path.iterdir())


def test_pictures_stand_side_by_side(tmp_path):
    frame = np.full((4, 6, 3), 100.0)
    clip = {
        "mask": np.eye(4, 6), "saliency": np.full((4, 6), 0.5), "recurrent": np.zeros((4, 6)), "frame": frame,
        "flow": np.full((2, 3, 3), 50, np.uint8), "prior": np.ones((4, 6)),
    }  # fmt: skip
    with Log(tmp_path, 0, every=1) as log:
        log.pictures(5, [clip, clip])
    title = "frame, flow, prior, O^T, saliency, mask"
    ((step, (_, _, png)),) = tensors(read(tmp_path), title)
    picture = tf.io.decode_png(png).numpy()
    assert step == 5 and picture.shape == (8, 36, 3)
    columns = [100, 50, 255, 0, 128]
    for number, value in enumerate(columns):
        np.testing.assert_array_equal(picture[:, 6 * number : 6 * number + 6], value)
    np.testing.assert_array_equal(picture[4:, 30:, 1], 255 * np.eye(4, 6))


def test_validation_draws_scores_and_the_curve_and_hparams_the_flags(tmp_path):
    result = {"mae": 0.1, "max_f": 0.8, "s_measure": 0.7, "precision": [0.5, 0.75, 1.0], "recall": [1.0, 0.5, 0.25]}
    with Log(tmp_path, 0, every=1) as log:
        log.validation(7, result)
        log.hparams({"steps": 3, "variant": "os", "flip": True, "beta": 0.1})
    events = read(tmp_path)
    for name in ("mae", "max_f", "s_measure"):
        ((step, value),) = tensors(events, f"validation/{name}")
        assert (step, round(float(value), 6)) == (7, result[name])
    tag = next(iter(events.PluginTagToContent("pr_curves")))
    ((step, curve),) = tensors(events, tag)
    assert step == 7
    hits, false_alarms, _, misses, precision, recall = curve
    np.testing.assert_allclose([precision, recall], [result["precision"], result["recall"]])
    # The dashboard draws no point that has no counts.
    np.testing.assert_allclose(hits / (hits + misses), result["recall"])
    np.testing.assert_allclose(hits / (hits + false_alarms), result["precision"])
    assert events.PluginTagToContent("hparams")


def test_the_profiler_sees_its_window_alone(tmp_path):
    for window, first in ((None, 0), ((2, 3), 5)):
        profile = Profile(tmp_path, window)
        for step in range(first, first + 3):
            profile.before(step)
            profile.after(step)
    assert not list(tmp_path.iterdir())
    profile = Profile(tmp_path, (1, 1))
    for step in range(3):
        profile.before(step)
        tf.add(1, step)
        profile.after(step)
    assert list(tmp_path.rglob("*.xplane.pb"))


@pytest.mark.parametrize("window", [(30, 20), (-1, 3)])
def test_a_window_that_is_none_is_refused(window):
    first, last = window
    with pytest.raises(ValueError, match=f"profile_steps must be FIRST,LAST, .* not {first},{last}"):
        TrainingOptions(profile_steps=window)
