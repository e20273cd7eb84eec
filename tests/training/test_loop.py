"""The loop learns, logs, goes on where it was to the bit, and stops when it must."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from msst_keras.model.msst import build_msst, get_parts
from msst_keras.motion.settings import PriorSettings
from msst_keras.training import checkpoints, loop
from msst_keras.training import run_dir as run
from msst_keras.training.checkpoints import newest_checkpoint
from msst_keras.training.options import (
    ClipOptions,
    DeviceOptions,
    OptimizerOptions,
    StepOptions,
    TrainingOptions,
    TrainOptions,
)

SETTINGS = {"variant": "msst", "backbone": "vgg16", "num_frames": 2, "width": 0.0625, "output_stride": 16}


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    return build_msst(**SETTINGS)


def batch_of(step, poison=None):
    generator = np.random.default_rng(step)
    mask = np.zeros((1, 64, 64, 1), "float32")
    left = 16 * (step % 3)
    mask[:, 16:48, left : left + 32] = 1
    frames = generator.uniform(0, 50, (1, 2, 64, 64, 3)).astype("float32") + 200 * mask[:, None]
    prior = np.repeat(mask[:, None], 2, axis=1)
    if step == poison:
        mask[:] = np.nan
    return {"frames": frames, "prior": prior, "mask": mask, "clip": np.array([step % 4])}


def make_batches(num_steps, poison=None):
    def batches(first):
        return (
            {name: tf.constant(value) for name, value in batch_of(step, poison).items()}
            for step in range(first, num_steps)
        )

    return batches


def read_log(run_dir):
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def test_training_learns_and_leaves_its_files(tmp_path):
    run.write_run(tmp_path, {"model": SETTINGS, "motion": None, "image_size": [32, 32]})
    model = make_model()
    calls = []

    def validate():
        calls.append(1)
        return {"mae": 0.5, "max_f": 0.4, "s_measure": 0.3}

    options = TrainingOptions(steps=40, optimizer=OptimizerOptions(5e-3), checkpoint_every=10, validate_every=20)
    result = loop.train(model, make_batches(40), ("a", "b", "c", "d"), tmp_path, options, validate=validate)
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == list(range(40))
    keys = {"loss", "loss_fused", "loss_recurrent", "learning_rate", "clips_per_second", "input_wait", "gradient_norm"}
    assert keys <= lines[0].keys()
    first, last = (np.mean([line["loss"] for line in part]) for part in (lines[:3], lines[-3:]))
    assert last < 0.3 * first
    assert result["mae"] == 0.5 and len(calls) == 2
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert list(tmp_path.glob("events.out.tfevents*"))
    again = loop.train(make_model(), make_batches(40), ("a",), tmp_path, options, validate=validate)
    assert again == result  # is done already
    assert len(calls) == 2
    (tmp_path / "result.json").unlink()  # killed after the last step
    again = loop.train(make_model(), make_batches(40), ("a",), tmp_path, options, validate=validate)
    assert again["mae"] == 0.5
    restored = checkpoints.load_model(tmp_path)
    for expected, found in zip(model.weights, restored.weights, strict=True):
        np.testing.assert_array_equal(expected, found)


def test_a_run_stopped_by_a_signal_goes_on_to_the_bit(tmp_path):
    options = TrainingOptions(steps=8, checkpoint_every=100)
    whole = make_model()
    loop.train(whole, make_batches(8), ("a",) * 4, tmp_path / "whole", options)

    def interrupted_batches(first):
        for step, batch in enumerate(make_batches(8)(first), first):
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(loop.Interrupted, match="SIGTERM after step 4"):
        loop.train(make_model(), interrupted_batches, ("a",) * 4, tmp_path / "parts", options)
    with (tmp_path / "parts" / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # as a kill may leave it
    resumed = make_model(seed=1)
    loop.train(resumed, make_batches(8), ("a",) * 4, tmp_path / "parts", options)
    assert [line["loss"] for line in read_log(tmp_path / "parts")] == [
        line["loss"] for line in read_log(tmp_path / "whole")
    ]
    for expected, found in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(expected, found)


def train_small(run_dir, steps, validate=None, batches=None):
    """Trains a small network, of one frame and without motion, to so many steps."""
    keras.utils.set_random_seed(0)
    model = build_msst("os", num_frames=1, width=0.03)
    options = TrainingOptions(steps=steps, checkpoint_every=100, profile_steps=(1, 30))
    return loop.train(model, batches or make_batches(steps), ("a",) * 4, run_dir, options, validate=validate)


def test_a_lengthened_run_that_is_killed_in_its_last_validation_validates_again(tmp_path):
    validated = []

    def validate():
        """Gives better scores each time, and is killed the second time."""
        validated.append(1)
        if len(validated) == 2:
            raise KeyboardInterrupt
        return {"mae": 0.5, "max_f": 0.4, "s_measure": len(validated) / 10}

    assert train_small(tmp_path, 2, validate)["steps"] == 2
    with pytest.raises(KeyboardInterrupt):
        train_small(tmp_path, 4, validate)
    # Asked for as many steps as the old result has, it answers for the model that is there as well.
    for steps in (2, 4, 3):
        result = train_small(tmp_path, steps, validate)
        assert (result["steps"], result["s_measure"], len(validated)) == (4, 0.3, 3)
        assert json.loads((tmp_path / "result.json").read_text()) == result
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 4
    (tmp_path / "result.json").write_text('{"steps": "4"}')
    with pytest.raises(ValueError, match=r"result.json: damaged \(expected a number of steps, found '4'\); remove it"):
        train_small(tmp_path, 4, validate)


@pytest.mark.parametrize("ending", ["signal", "error", "last step"])
def test_a_profile_whose_last_step_does_not_come_is_written(tmp_path, ending):
    def batches(first):
        """Ends the training in step 3, in this way."""
        yield from itertools.islice(make_batches(5)(first), 3)
        if ending == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        yield from itertools.islice(make_batches(5, poison=3 if ending == "error" else None)(3), 2)

    errors = {"signal": loop.Interrupted, "error": ValueError}
    with pytest.raises(errors[ending]) if ending in errors else contextlib.nullcontext():
        train_small(tmp_path, 5, batches=batches)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1


def test_a_loss_that_is_not_finite_names_step_and_clips_and_keeps_the_checkpoint(tmp_path):
    options = TrainingOptions(steps=6, checkpoint_every=2)
    with pytest.raises(ValueError, match="the loss of step 3 is nan; its clips are d"):
        loop.train(make_model(), make_batches(6, poison=3), ("a", "b", "c", "d"), tmp_path, options)
    assert newest_checkpoint(tmp_path / "checkpoints").endswith("ckpt-2")
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged"), ("[" * 10**5, "damaged"), ("[]", "damaged"), ("{}", "expected model, motion and image_size"),
     ('{"model": 1, "motion": null, "image_size": [3, 3]}', "expected model, motion and image_size")],
)  # fmt: skip
def test_a_damaged_run_is_refused(tmp_path, content, message):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=f"{tmp_path}/run.json: {message}"):
        run.read_run(tmp_path)


def test_another_model_in_the_run_directory_is_refused(tmp_path):
    settings = {"model": SETTINGS, "motion": None, "image_size": (32, 32)}
    run.write_run(tmp_path, settings)
    run.write_run(tmp_path, settings)
    with pytest.raises(ValueError, match="holds a run whose model differ"):
        run.write_run(tmp_path, {**settings, "model": {**SETTINGS, "width": 1.0}})
    with pytest.raises(FileNotFoundError, match="no checkpoint yet"):
        checkpoints.load_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="not a run directory"):
        run.read_run(tmp_path / "other")


def test_a_run_goes_on_only_as_itself(tmp_path):
    def describe(**changes):
        given = {"records": ("r",), "run_dir": "x", **changes}
        options = TrainOptions(**given)
        training = run.describe_training(options)
        return {"model": SETTINGS, "motion": None, "image_size": (32, 32), "training": training, "records": "a" * 64}

    def write(settings):
        run.write_run(tmp_path, settings)

    schedule = OptimizerOptions(schedule="cosine")
    write(describe())
    for same in (
        {"records": ("elsewhere",), "run_dir": "y", "val_records": ("v",)},  # their content is what counts
        {"training": TrainingOptions(steps=5, checkpoint_every=7, step=StepOptions(accumulation_steps=2))},
        {"devices": DeviceOptions(strategy="one")},
    ):
        write(describe(**same))
    for other, difference in (
        ({"seed": 9}, "seed 0 .now 9."),
        ({"clips": ClipOptions(batch_size=2)}, "batch_size 1 .now 2."),
        ({"training": TrainingOptions(optimizer=OptimizerOptions(learning_rate=0.1))}, "learning_rate 0.001 .now 0.1"),
        ({"training": TrainingOptions(steps=5, optimizer=schedule)}, "training steps none .now 5"),
    ):
        with pytest.raises(ValueError, match=f"run whose training differ.*{difference}.*these alone may change"):
            write(describe(**other))
    with pytest.raises(ValueError, match="holds a run whose records differ from the flags given: other records;"):
        write({**describe(), "records": "b" * 64})
    # A run from before these were kept goes on as what it is given first.
    path = tmp_path / "run.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({key: kept[key] for key in ("model", "motion", "image_size")}))
    write(describe(seed=9))
    with pytest.raises(ValueError, match="seed 9 .now 0."):
        write(describe())


def test_a_prior_that_the_records_do_not_have_is_not_passed_over(tmp_path):
    with pytest.raises(ValueError, match="--prior=p.keras is not the prior of the records, which is magnitude"):
        run.keep_prior(tmp_path, PriorSettings("magnitude"), "p.keras")
    run.keep_prior(tmp_path, None, "p.keras")  # `os` sees no motion


def test_weights_pass_from_one_variant_to_the_next():
    keras.utils.set_random_seed(3)
    spatial, both = build_msst("os", width=0.0625), build_msst("st", width=0.0625)
    copied = run.transfer_weights(spatial, both)
    assert copied == len(spatial.weights)
    streams = [get_parts(model)[0].get_layer("spatial").weights for model in (spatial, both)]
    for expected, found in zip(*streams, strict=True):
        np.testing.assert_array_equal(expected, found)
    with pytest.raises(ValueError, match="no weight of the run"):
        run.transfer_weights(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]), both)


def test_the_prior_of_the_records_is_kept(tmp_path):
    import hashlib

    prior = tmp_path / "prior.keras"
    prior.write_bytes(b"weights")
    kept = PriorSettings("network", hashlib.sha256(b"weights").hexdigest())
    run_dir = tmp_path / "run"
    with pytest.raises(ValueError, match="give the file they were made with as --prior"):
        run.keep_prior(run_dir, kept, None)
    run.keep_prior(run_dir, kept, prior)
    assert (run_dir / "prior.keras").read_bytes() == b"weights"
    run.keep_prior(run_dir, kept, None)  # a resumed run has it already
    prior.write_bytes(b"others")
    with pytest.raises(ValueError, match="the prior of another file"):
        run.keep_prior(run_dir, kept, prior)
    with pytest.raises(FileNotFoundError, match="no such file"):
        run.keep_prior(run_dir, kept, tmp_path / "nothing.keras")
    run.keep_prior(tmp_path / "other", PriorSettings("magnitude"), None)
    assert not (tmp_path / "other").exists()


def test_averaged_weights_are_what_is_validated_kept_loaded_and_gone_on_with(tmp_path):
    """The run stops halfway and goes on; the averages are computed by hand from the weights before each step."""
    settings = {"variant": "os", "backbone": "vgg16", "num_frames": 1, "width": 0.03, "output_stride": 16}
    run.write_run(tmp_path, {"model": settings, "motion": None, "image_size": [64, 64]})
    weights, validated = {}, []

    def train(steps):
        keras.utils.set_random_seed(0)
        model = build_msst(**settings)

        def read():
            return [weight.numpy() for weight in model.trainable_variables]

        def batches(first):
            for step in range(first, 4):
                weights[step] = read()
                yield {name: tf.constant(value) for name, value in batch_of(step).items()}

        def validate():
            validated.append(read())
            return {"mae": 0.5, "max_f": 0.4, "s_measure": len(validated) / 10}

        optimizer = OptimizerOptions(1e-2, average_decay=0.75)
        options = TrainingOptions(steps=steps, optimizer=optimizer, checkpoint_every=100, validate_every=2)
        loop.train(model, batches, ("a",) * 4, tmp_path, options, validate=validate)
        weights[steps] = read()

    train(3)
    train(4)
    means = [weights[0]]
    for step in range(1, 5):
        means.append([0.75 * mean + 0.25 * weight for mean, weight in zip(means[-1], weights[step], strict=True)])

    def check(found, mean, other):
        for one, expected in zip(found, mean, strict=True):
            np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
        assert max(np.abs(expected - raw).max() for expected, raw in zip(mean, other, strict=True)) > 1e-3

    for found, step in zip(validated, (2, 3, 4), strict=True):  # in the middle, and at the end of either part
        check(found, means[step], weights[step])
    for checkpoint in ("last", "best"):
        model = checkpoints.load_model(tmp_path, checkpoint)
        check([weight.numpy() for weight in model.trainable_variables], means[4], weights[4])
    with pytest.raises(ValueError, match="ckpt-4 was trained with averaged weights and is to go on without them"):
        loop.train(build_msst(**settings), lambda first: (), ("a",), tmp_path, TrainingOptions(steps=5))
