"""--precision=auto: the faster policy by a measurement, float32 where it is close, and what a run began with."""

from __future__ import annotations

import json

import keras
import pytest

from msst_keras.jobs.train import _choose_precision
from msst_keras.model.msst import build_msst
from msst_keras.model.options import ModelOptions
from msst_keras.training import precision, run_dir
from msst_keras.training.options import ClipOptions, DeviceOptions, StepOptions, TrainOptions
from msst_keras.training.strategy import Devices


@pytest.mark.parametrize(
    ("float32", "bfloat16", "choice"),
    [(12.0, 3.6, "mixed_bfloat16"), (0.012, 0.039, "float32"), (1.0, 0.95, "float32"), (1.0, 0.9, "mixed_bfloat16")],
)
def test_bfloat16_has_to_be_faster_by_a_tenth_and_both_times_are_told(capsys, float32, bfloat16, choice):
    seconds = {"float32": float32, "mixed_bfloat16": bfloat16}
    assert precision.choose_precision(seconds.__getitem__, 50, may_gain=True) == choice
    told = capsys.readouterr().err
    assert told == (
        f"--precision=auto: {choice}, because a step of one clip takes {float32:g} s in float32 and "
        f"{bfloat16:g} s in mixed_bfloat16 here\n"
    )


def test_nothing_is_measured_without_hardware_for_bfloat16_nor_for_a_few_steps(capsys):
    def fail(policy):
        raise AssertionError("measured")

    assert precision.choose_precision(fail, 1000, may_gain=False) == "float32"
    assert "this hardware does not multiply bfloat16" in capsys.readouterr().err
    assert precision.choose_precision(fail, 49, may_gain=True) == "float32"
    assert "float32, because 49 steps are too few to measure first" in capsys.readouterr().err


def test_a_step_is_timed_in_the_policy_that_is_asked_for_and_leaves_the_process_as_it_was():
    built = []

    def build():
        built.append(build_msst("msst", num_frames=2, width=0.03125))
        return built[-1]

    assert precision.time_step("mixed_bfloat16", build, (32, 48), StepOptions(accumulation_steps=3)) > 0
    model = built[0]
    assert model.get_layer("encoder").get_layer("spatial").get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(RuntimeError, match="out of memory"):
        precision.time_step("mixed_bfloat16", failing_build, (32, 48), StepOptions())
    assert keras.config.dtype_policy().name == "float32"


def failing_build():
    raise RuntimeError("out of memory")


def make_options(folder, wanted):
    return TrainOptions(
        records=("r",), run_dir=str(folder), model=ModelOptions(variant="os", width=0.03125, weights="none"),
        clips=ClipOptions(image_sizes=((96, 96), (32, 48))), devices=DeviceOptions(wanted),
    )  # fmt: skip


def test_auto_times_the_network_of_the_options_at_the_smallest_size_without_loading_weights(tmp_path, monkeypatch):
    asked = []

    def time_step(policy, build, size, options):
        model = build()
        asked.append((policy, size, model.input["frames"].shape[1], options))
        return {"float32": 2.0, "mixed_bfloat16": 1.0}[policy]

    monkeypatch.setattr("msst_keras.jobs.train.time_step", time_step)
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
    options = make_options(tmp_path, "auto")
    assert _choose_precision(options, Devices()) == "mixed_bfloat16"
    step = options.training.step
    assert asked == [(policy, (32, 48), asked[0][2], step) for policy in ("float32", "mixed_bfloat16")]


def test_a_run_goes_on_in_the_precision_that_it_began_with(tmp_path, monkeypatch):
    def fail(*arguments):
        raise AssertionError("measured")

    settings = {"model": {"variant": "os"}, "motion": None, "image_size": (32, 48)}
    run_dir.write_run(tmp_path, settings | {"precision": "mixed_bfloat16"})
    monkeypatch.setattr("msst_keras.jobs.train.choose_precision", fail)
    assert _choose_precision(make_options(tmp_path, "auto"), Devices()) == "mixed_bfloat16"
    assert _choose_precision(make_options(tmp_path, "float32"), Devices()) == "float32"
    with pytest.raises(ValueError, match="run whose precision differ"):
        run_dir.write_run(tmp_path, settings | {"precision": "float32"})
    (tmp_path / "run.json").write_text(json.dumps(settings | {"precision": "half"}))
    with pytest.raises(ValueError, match="run.json: expected float32 or mixed_bfloat16, found 'half'"):
        _choose_precision(make_options(tmp_path, "auto"), Devices())


def test_runs_from_before_it_was_kept_get_it_noted(tmp_path):
    settings = {"model": {"variant": "os"}, "motion": None, "image_size": (32, 48)}
    run_dir.write_run(tmp_path, settings)
    assert run_dir.read_precision(tmp_path) is None and run_dir.read_precision(tmp_path / "none") is None
    run_dir.write_run(tmp_path, settings | {"precision": "float32"})
    assert run_dir.read_precision(tmp_path) == "float32"
