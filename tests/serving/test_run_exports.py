"""`msst export` of runs: the mean of several, and maps that are made darker."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_model import export_once

from msst_keras.jobs.export import export
from msst_keras.jobs.trained import load_trained, read_settings
from msst_keras.model.msst import build_msst, get_serving_parts
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.prior_files import make_prior
from msst_keras.motion.settings import MotionSettings, PriorSettings
from msst_keras.motion.superpixels import SuperpixelSettings
from msst_keras.serving.options import ExportOptions
from msst_keras.serving.servable import Servable

NETWORK = {"variant": "os", "width": 0.0625, "num_frames": 1}
SIZE = (49, 64)
SHIFT = -0.75


def make_run(folder, seed, motion=None, **changes):
    """A run directory with one checkpoint, and the model in it; its maps are no constants."""
    keras.utils.set_random_seed(seed)
    model = build_msst(**NETWORK | changes)
    generator = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if weight.path.endswith("_map/kernel"):
            weight.assign(generator.normal(size=weight.shape))
    (folder / "checkpoints").mkdir(parents=True)
    run = {"model": NETWORK | changes | {"weights": "imagenet"}, "motion": motion, "image_size": SIZE}
    (folder / "run.json").write_text(json.dumps(run))
    tf.train.Checkpoint(model=model).write(str(folder / "checkpoints" / "ckpt-1"))
    return model


def test_the_mean_of_two_runs_is_exported_and_its_logits_are_shifted(tmp_path):
    first, second = (make_run(tmp_path / str(seed), seed) for seed in (1, 2))
    path = export(
        ExportOptions(
            run_dir=str(tmp_path / "1"),
            average_with=(str(tmp_path / "2"),),
            logit_shift=SHIFT,
            output_dir=str(tmp_path / "model"),
        )
    )
    asset = json.loads((path / "assets" / "msst.json").read_text())
    assert asset["run"] == "1 and 2" and asset["logit_shift"] == SHIFT
    frames = np.random.default_rng(0).integers(0, 256, (1, 1, *SIZE, 3), np.uint8)
    loaded = tf.saved_model.load(str(path))
    found = loaded.signatures["serving_default"](frames=tf.constant(frames))["saliency"].numpy()
    for weight, other in zip(first.weights, second.weights, strict=True):
        weight.assign((np.asarray(weight) + np.asarray(other)) / 2)
    logits = first({"frames": frames.astype(np.float32)})["fused"]
    np.testing.assert_allclose(found, tf.sigmoid(logits + SHIFT), atol=1e-5)
    assert np.abs(found - tf.sigmoid(logits)).max() > 0.1


def test_a_size_whose_levels_would_not_lie_on_each_other_is_refused(tmp_path):
    make_run(tmp_path / "run", 1, backbone="efficientnet_lite0", decoder="topdown")
    options = ExportOptions(run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "model"), image_size=(64, 88))
    with pytest.raises(ValueError, match="^--decoder=topdown needs --image_size of multiples of 32, such as 288x512$"):
        export(options)
    assert not (tmp_path / "model").exists()


def test_an_exported_model_asks_for_flow_of_another_size(tmp_path):
    motion = MotionSettings(FlowSettings(motion_size=SIZE).to_dict(), None, PriorSettings("flow")).to_dict()
    model = make_run(tmp_path / "run", 1, motion, variant="st", motion_input="flow")
    size = (36, 56)
    path = export(ExportOptions(run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "model"), motion_size=size))
    found = json.loads((path / "assets" / "msst.json").read_text())["motion"]
    assert found == motion | {"flow": motion["flow"] | {"motion_size": list(size)}}
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (1, *SIZE, 3), np.uint8)
    flow = generator.normal(size=(1, *size, 2)).astype(np.float32)
    prior = make_prior("flow", FlowSettings(motion_size=size))({"flow": flow})
    image = tf.image.resize(prior, SIZE).numpy()
    logits = model({"frames": frames[None].astype(np.float32), "prior": image[None]})["fused"]
    saliency = tf.saved_model.load(str(path)).signatures["serving_default"](
        frames=tf.constant(frames[None]), flow=tf.constant(flow[None])
    )["saliency"]
    np.testing.assert_allclose(saliency, tf.sigmoid(logits), atol=1e-5)


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        (None, "run: its network sees no motion, so there is no --motion_size to change"),
        (
            PriorSettings("network", "abc"),
            "run: its motion prior is a network, which was fitted to flow of 49x64; make records and a prior with "
            "another --motion_size",
        ),
    ],
)
def test_flow_of_another_size_is_refused(tmp_path, prior, reason):
    motion = MotionSettings(FlowSettings(motion_size=SIZE).to_dict(), SuperpixelSettings().to_dict(), prior)
    make_run(tmp_path / "run", 1, motion.to_dict() if prior else None)
    options = ExportOptions(run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "model"), motion_size=(36, 56))
    with pytest.raises(ValueError, match=f"{reason}$"):
        export(options)


@pytest.mark.parametrize("variant", ["os", "msst"])
def test_only_the_logits_of_the_map_are_shifted(variant):
    model = build_msst(variant, num_frames=2, width=0.0625)
    encoder, fuser = get_serving_parts(model)
    _, darker = get_serving_parts(model, SHIFT)
    maps = {
        name: np.random.default_rng(0).normal(size=(1, *(4 if side is None else side for side in value.shape[1:])))
        for name, value in fuser.input.items()
    }
    np.testing.assert_allclose(darker(maps)["fused"], fuser(maps)["fused"] + SHIFT, atol=1e-6)
    assert {id(weight) for weight in darker.weights} == {id(weight) for weight in fuser.weights} and encoder.weights


def test_an_exported_model_is_loaded_as_its_run_is(tmp_path):
    model = make_run(tmp_path / "1", 1)
    export(ExportOptions(run_dir=str(tmp_path / "1"), output_dir=str(tmp_path / "model"), logit_shift=SHIFT))
    frames = {"frames": np.random.default_rng(0).integers(0, 256, (1, 1, *SIZE, 3)).astype(np.float32)}
    loaded = load_trained(str(tmp_path / "model"))
    np.testing.assert_array_equal(loaded(frames)["fused"], model(frames)["fused"])  # the shift is none of its weights
    second = make_run(tmp_path / "2", 2)
    export(
        ExportOptions(
            run_dir=str(tmp_path / "2"), average_with=(str(tmp_path / "model"),), output_dir=str(tmp_path / "mean")
        )
    )
    for weight, other in zip(second.weights, model.weights, strict=True):
        weight.assign((np.asarray(weight) + np.asarray(other)) / 2)
    mean = load_trained(str(tmp_path / "mean" / "1"))
    np.testing.assert_allclose(mean(frames)["fused"], second(frames)["fused"], atol=1e-5)


def test_an_exported_model_is_exported_again(tmp_path):
    make_run(tmp_path / "run", 1)
    first = export(
        ExportOptions(
            run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "model"), logit_shift=SHIFT, temporal_filter=0.5
        )
    )
    second = export(ExportOptions(run_dir=str(tmp_path / "model"), output_dir=str(tmp_path / "again")))
    assets = [json.loads((path / "assets" / "msst.json").read_text()) for path in (first, second)]
    assert assets[0] == assets[1] and assets[1]["run"] == "run"
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (1, 1, *SIZE, 3), np.uint8))
    maps = [tf.saved_model.load(str(path)).signatures["serving_default"](frames=frames) for path in (first, second)]
    np.testing.assert_array_equal(*(each["saliency"] for each in maps))
    larger = ExportOptions(
        run_dir=str(second),
        output_dir=str(tmp_path / "again"),
        image_size=(65, 97),
        logit_shift=0.0,
        temporal_filter=0.0,
    )
    changed = json.loads((export(larger) / "assets" / "msst.json").read_text())
    assert (changed["image_size"], changed["logit_shift"], changed["temporal_filter"]) == ([65, 97], 0.0, 0.0)


def test_a_model_whose_prior_is_a_network_is_exported_from_its_run_alone(tmp_path):
    make_run(tmp_path / "run", 1)
    path = export(ExportOptions(run_dir=str(tmp_path / "run"), output_dir=str(tmp_path / "model")))
    motion = MotionSettings(
        FlowSettings(motion_size=SIZE).to_dict(), SuperpixelSettings().to_dict(), PriorSettings("network", "abc")
    )
    asset = path / "assets" / "msst.json"
    asset.write_text(json.dumps(json.loads(asset.read_text()) | {"motion": motion.to_dict()}))
    with pytest.raises(ValueError, match="model: its motion prior is a network, which is not read from exported"):
        export(ExportOptions(run_dir=str(tmp_path / "model"), output_dir=str(tmp_path / "again")))


def test_a_checkpoint_of_an_exported_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--checkpoint=best is for training runs, and installed has one model alone"):
        export(ExportOptions(run_dir="installed", output_dir=str(tmp_path), checkpoint="best"))


def test_the_installed_model_is_loaded_to_the_bit():
    settings = read_settings("installed")
    asset = {name: value for name, value in settings.items() if name not in ("fingerprint", "step")}
    asset["motion"] = settings["motion"].to_dict()
    prior = make_prior("flow", settings["motion"].flow_settings)
    found = Servable(load_trained("installed"), prior, asset).asset["fingerprint"]
    assert found == settings["fingerprint"]  # it is made of the settings and of all weights


def test_what_is_no_network_of_ours_cannot_be_trained_on(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: not a run directory"):
        load_trained(str(tmp_path / "nowhere"))
    path = export_once(tmp_path)  # its asset does not name the network
    with pytest.raises(ValueError, match="model/1: cannot be trained on .it does not say which network it is."):
        load_trained(str(path))
    make_run(tmp_path / "1", 1)
    export(ExportOptions(run_dir=str(tmp_path / "1"), output_dir=str(tmp_path / "other")))
    asset = tmp_path / "other" / "1" / "assets" / "msst.json"
    settings = json.loads(asset.read_text())
    for changes, message in (
        ({"width": 0.125}, "weight 0 is not one of the network that it names"),
        ({"variant": "msst", "num_frames": 2}, "is not one of the network that it names"),
        ({"width": 1e9}, "width"),
        ({"surprise": 1}, "surprise"),
    ):
        asset.write_text(json.dumps(settings | {"model": settings["model"] | changes}))
        with pytest.raises(ValueError, match=f"other/1: cannot be trained on .*{message}"):
            load_trained(str(tmp_path / "other"))


def test_runs_of_other_networks_have_no_mean(tmp_path):
    make_run(tmp_path / "1", 1)
    make_run(tmp_path / "2", 2, width=0.125)
    options = ExportOptions(
        run_dir=str(tmp_path / "1"), average_with=(str(tmp_path / "2"),), output_dir=str(tmp_path / "model")
    )
    with pytest.raises(ValueError, match="2: its network is not that of .*1: another width; weights of different"):
        export(options)
    assert not (tmp_path / "model").exists()
