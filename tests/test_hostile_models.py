"""Hostile inputs through the jobs that hold a network: one sentence each, nothing made, nothing written elsewhere.

As `test_hostile`, with predict, train, train_prior, export, ablate and fuse_labels. Jobs that `ablate` would start are
none here: what it refuses it refuses before the first.
"""

from __future__ import annotations

import functools
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from hostile import (
    BAD_FLOW,
    BAD_IMAGES,
    BAD_JSON,
    BAD_MANIFESTS,
    BAD_SHARDS,
    BAD_VIDEOS,
    GREY,
    NAMES,
    SIZE,
    SOUND_PNG,
    changed,
    encode,
    one_sentence_and_nothing_else,
    png,
    spoil_file,
    spoil_manifest,
    spoil_shard,
)  # fmt: skip
from made_videos import pictures, write_video
from tensorflow.core.protobuf import saved_model_pb2

from msst_keras import locks
from msst_keras.data import flow_files
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.stream import SaliencyModel
from msst_keras.jobs import ablate as ablate_job
from msst_keras.jobs import predict as predict_job
from msst_keras.jobs.ablate import ablate
from msst_keras.jobs.export import export
from msst_keras.jobs.fuse_labels import fuse_labels
from msst_keras.jobs.options import AblateOptions
from msst_keras.jobs.predict import predict
from msst_keras.jobs.train import train
from msst_keras.jobs.train_prior import train_prior
from msst_keras.labels.options import FuseLabelsOptions
from msst_keras.model.msst import build_msst
from msst_keras.model.options import ModelOptions
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.options import PriorOptions, TrainPriorOptions
from msst_keras.motion.settings import MotionSettings
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard
from msst_keras.serving import export as serving_export
from msst_keras.serving.options import ExportOptions
from msst_keras.training import run_dir
from msst_keras.training.options import ClipOptions, DeviceOptions, TrainingOptions, TrainOptions

CASES = []
MOTION_SIZE = (32, 48)
PRIOR_PNG = encode(np.eye(*MOTION_SIZE, dtype=np.uint8) * 200)
SOUND = {}  # the model that no row has spoiled, loaded once
MOTION = {
    "flow": FlowSettings(motion_size=MOTION_SIZE).to_dict(), "superpixels": None, "prior": {"kind": "magnitude"},
    "flow_stored": True,
}  # fmt: skip
MODEL = {"variant": "st", "num_frames": 2, "width": 0.0625, "weights": "none"}


def edit(changes):
    """A function that changes some keys of a JSON file's object; other content stays as it is."""
    if not isinstance(changes, dict):
        return changes
    return lambda found: json.dumps(json.loads(found) | changes).encode()


def case(name, job, *marks):
    """Registers a row: a function that gets the folder of a sound tree, spoils it, and returns the job's options."""
    return lambda spoil: CASES.append(pytest.param(job, spoil, id=f"{job.__name__}, {name}", marks=marks))


def at(place, content, run):
    """A row that gives a file other content, or makes it."""

    def spoil(folder):
        spoil_file(folder / place, content)
        return run(folder)

    return spoil


def out_is_a_file(run, below=""):
    """A row whose output is a file, or lies below one."""

    def spoil(folder):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out/file").touch()
        return run(folder, f"{folder}/out/file{below}")

    return spoil


# --- predict ----------------------------------------------------------------------------------------------------------


def run_predict(folder, output_dir=None, **options):
    """Of the sound model, unless a row has one of its own."""
    given = {"model": str(SOUND["folder"] / "model"), "input": (f"{folder}/frames/ball",), "overlay": "none"}
    return PredictOptions(**given | {"output_dir": output_dir or f"{folder}/out/maps"} | options)


for _name, _content in BAD_IMAGES.items():
    case(f"a frame: {_name}", predict)(at("frames/ball/00001.png", _content, run_predict))
for _name, _content in BAD_VIDEOS.items():
    case(f"a video: {_name}", predict)(
        at("clip.mp4", _content, lambda folder: run_predict(folder, input=(f"{folder}/clip.mp4",)))
    )
for _name, _content in BAD_FLOW.items():
    case(f"flow: {_name}", predict)(
        at("flow/ball/00001.flo", _content, lambda folder: run_predict(folder, flow_dir=f"{folder}/flow"))
    )
for _name in NAMES:

    @case(f"a frame called {_name!a}", predict)
    def _(folder, name=_name):
        place = folder / "frames/ball"
        shutil.copy(place / "00001.png", bytes(place) + b"/" + name)
        return run_predict(folder)


@case("a link to itself", predict)
def _(folder):
    (folder / "frames/ball/00002.png").unlink()
    (folder / "frames/ball/00002.png").symlink_to("00002.png")
    return run_predict(folder)


@case("a folder called as a frame", predict)
def _(folder):
    (folder / "frames/ball/00003.png").mkdir()
    return run_predict(folder)


@case("flow of a frame is missing", predict)
def _(folder):
    (folder / "flow/ball/00001.flo").unlink()
    return run_predict(folder, flow_dir=f"{folder}/flow")


case("an input that is not there", predict)(lambda folder: run_predict(folder, input=(f"{folder}/gone",)))
case("an output in its input", predict)(lambda folder: run_predict(folder, f"{folder}/frames"))
case("an output that is a file", predict)(out_is_a_file(run_predict))
case("an output below a file", predict)(out_is_a_file(run_predict, "/maps"))
case("an overlay among the frames", predict)(lambda folder: run_predict(folder, overlay=f"{folder}/frames/ball/o.mp4"))
case("an overlay below a file", predict)(lambda folder: run_predict(folder, overlay=f"{folder}/clip.mp4/o.mp4"))
case("an overlay of no video's name", predict)(lambda folder: run_predict(folder, overlay=f"{folder}/out/o.txt"))


def run_with_own_model(folder):
    return run_predict(folder, model=f"{folder}/model")


def add_operation(operation):
    def change(content):
        model = saved_model_pb2.SavedModel()
        model.ParseFromString(content)
        model.meta_graphs[0].graph_def.node.add(name="evil", op=operation)
        return model.SerializeToString()

    return change


MODEL_FILE = "model/1/saved_model.pb"
VARIABLES = "model/1/variables/variables.data-00000-of-00001"
for _name, _content in {
    "empty": b"", "text": b"no model", "cut": lambda sound: sound[: len(sound) // 2], "zeros": bytes(500),
    **{operation: add_operation(operation) for operation in ("WriteFile", "ReadFile", "EagerPyFunc", "PyFunc")},
}.items():  # fmt: skip
    case(f"saved_model.pb: {_name}", predict)(at(MODEL_FILE, _content, run_with_own_model))
for _name, _content in {
    "empty": b"", "cut": lambda sound: sound[:-50], "zeros": lambda sound: bytes(len(sound)),
    "another byte": BAD_SHARDS["another byte"],
}.items():  # fmt: skip
    case(f"variables: {_name}", predict)(at(VARIABLES, _content, run_with_own_model))
case("variables: no index", predict)(at("model/1/variables/variables.index", b"", run_with_own_model))
for _name, _content in {
    **BAD_JSON, "no frames": {"num_frames": 0}, "endless": {"num_frames": 10**9}, "text": {"num_frames": "4"},
    "another length": {"num_frames": 3}, "no size": {"image_size": None}, "a large size": {"image_size": [10**6] * 2},
    "no motion": {"motion": None}, "a list": {"motion": [1]}, "another size of motion": {"motion": MOTION | {
        "flow": {**MOTION["flow"], "motion_size": [50000, 50000]}}},
    "a method": {"motion": MOTION | {"flow": {**MOTION["flow"], "method": "rm -rf"}}},
    "a prior": {"motion": MOTION | {"prior": {"kind": "../../evil"}}},
}.items():  # fmt: skip
    case(f"msst.json: {_name}", predict)(at("model/1/assets/msst.json", edit(_content), run_with_own_model))
case("a folder that is no model", predict)(lambda folder: run_predict(folder, model=f"{folder}/frames"))
case("a model that is not there", predict)(lambda folder: run_predict(folder, model=f"{folder}/gone"))
case("saved_model.pbtxt beside the model", predict)(at("model/1/saved_model.pbtxt", b"", run_with_own_model))


# --- train and train_prior --------------------------------------------------------------------------------------------


def run_train(folder, output=None, **options):
    return TrainOptions(**{
        "records": (f"{folder}/records",), "run_dir": output or f"{folder}/out/run",
        "model": ModelOptions(**MODEL), "clips": ClipOptions(image_sizes=((33, 33),)),
        "training": TrainingOptions(steps=2), "devices": DeviceOptions(precision="float32", strategy="one"),
    } | options)  # fmt: skip


def run_train_prior(folder, output=None, **options):
    return TrainPriorOptions(**{
        "records": (f"{folder}/records",), "output": output or f"{folder}/out/prior.keras", "steps": 2, "batch_size": 1,
        "prior": PriorOptions(num_levels=1, max_regions=16, width=0.0625, weights="none"),
    } | options)  # fmt: skip


for _job, _run in ((train, run_train), (train_prior, run_train_prior)):
    for _name, _change in BAD_MANIFESTS.items():

        @case(f"a manifest: {_name}", _job)
        def _(folder, change=_change, run=_run):
            spoil_manifest(change)(folder)
            return run(folder)

    for _name, _change in BAD_SHARDS.items():

        @case(f"a shard: {_name}", _job)
        def _(folder, change=_change, run=_run):
            spoil_shard(change)(folder)
            return run(folder)

    for _name, _change in {
        "a prior": changed("motion", "prior", value={"kind": "../../evil"}),
        "a size of motion": changed("motion", "flow", "motion_size", value=[10**9, 10**9]),
        "no flow": changed("motion", "flow", value=None), "flow of text": changed("motion", "flow", value="dis"),
    }.items():  # fmt: skip

        @case(f"motion: {_name}", _job)
        def _(folder, change=_change, run=_run):
            spoil_manifest(change)(folder)
            return run(folder)

    case("records that are not there", _job)(lambda folder, run=_run: run(folder, records=(f"{folder}/gone",)))
    case("no records", _job)(lambda folder, run=_run: run(folder, records=(f"{folder}/frames",)))
    case("an output below a file", _job)(out_is_a_file(_run, "/prior.keras"))
    case("validation on what is trained on", _job)(
        lambda folder, run=_run: run(folder, val_records=(f"{folder}/records",))
    )
case("an output that is a file", train)(out_is_a_file(run_train))
case("an output that is a folder", train_prior)(lambda folder: run_train_prior(folder, f"{folder}/frames"))
case("an output of another name", train_prior)(lambda folder: run_train_prior(folder, f"{folder}/out/prior.h5"))


def write_records(folder, frame=SOUND_PNG, mask=SOUND_PNG, prior=PRIOR_PNG, flow=None):
    """Records of two frames; what they hold is right but for what is given."""
    flow = flow_files.encode_flow_png(np.zeros((*MOTION_SIZE, 2), np.float32)) if flow is None else flow
    frames = [FrameRecord("ball", str(index), index, *SIZE, frame, mask, "fine", prior, flow) for index in range(2)]
    write_shard(shard_path(folder / "records", 0, 1), frames)
    write_manifest(folder / "records", build_manifest(folder / "records", 1, {"dataset": "davis", "motion": MOTION}))


for _name, _content in {
    "a frame of 60000 pixels": {"frame": png(60000, 60000)}, "a frame of another size": {"frame": encode(GREY[:20])},
    "a mask of another size": {"mask": encode(np.zeros((500, 10), np.uint8))},
    "a mask cut off": {"mask": SOUND_PNG[:90]},
    "a mask of 60000 pixels": {"mask": png(60000, 60000)}, "a frame that is none": {"frame": b"no image"},
    "a prior of another size": {"prior": SOUND_PNG}, "a prior of 60000 pixels": {"prior": png(60000, 60000)},
}.items():  # fmt: skip

    @case(f"a record: {_name}", train, pytest.mark.slow)
    def _(folder, content=_content):
        write_records(folder, **content)
        return run_train(folder)


for _name, _content in {
    "flow that is none": {"flow": b"no flow"},
    "flow of another size": {"flow": flow_files.encode_flow_png(np.zeros((5, 5, 2)))},
    "flow of 60000 pixels": {"flow": png(60000, 60000, 16, 2)}, "flow of 8 bits": {"flow": SOUND_PNG},
    "a mask of another size": {"mask": encode(np.zeros((500, 10), np.uint8))}, "a mask of nothing": {"mask": b""},
}.items():  # fmt: skip

    @case(f"a record: {_name}", train_prior, pytest.mark.slow)
    def _(folder, content=_content):
        write_records(folder, **content)
        return run_train_prior(folder)


def begin_run(folder, name="run"):
    (folder / "out").mkdir(exist_ok=True)
    shutil.copytree(folder / "run", folder / "out" / name)
    return folder / "out" / name


for _name, _content in BAD_JSON.items():

    @case(f"run.json: {_name}", train)
    def _(folder, content=_content):
        (begin_run(folder) / "run.json").write_bytes(content)
        return run_train(folder)


@case("a run of other records", train)
def _(folder):
    begin_run(folder)
    write_records(folder, frame=encode(255 - GREY))
    return run_train(folder)


case("a run of another model", train)(
    lambda folder: begin_run(folder) and run_train(folder, model=ModelOptions(**MODEL | {"num_frames": 1}))
)
case("a run to start from that is none", train)(lambda folder: run_train(folder, init_from=f"{folder}/frames"))
case("a prior where none is", train)(lambda folder: run_train(folder, prior=f"{folder}/clip.mp4"))


def spoil_checkpoint(folder, change):
    for path in folder.glob("checkpoints/ckpt-1.*"):
        path.write_bytes(change(path.read_bytes()))


BAD_CHECKPOINTS = {
    "empty": lambda sound: b"", "cut": lambda sound: sound[: len(sound) // 2], "zeros": lambda sound: bytes(len(sound))
}  # fmt: skip
for _name, _change in BAD_CHECKPOINTS.items():

    @case(f"its only checkpoint: {_name}", train)
    def _(folder, change=_change):
        spoil_checkpoint(begin_run(folder), change)
        return run_train(folder)

    @case(f"the checkpoint to start from: {_name}", train)
    def _(folder, change=_change):
        spoil_checkpoint(folder / "run", change)
        return run_train(folder, init_from=f"{folder}/run")


@case("a training that was begun with other flags", train_prior)
def _(folder):
    (folder / "out/.training-prior.keras").mkdir(parents=True)
    (folder / "out/.training-prior.keras/.msst.json").write_text('{"job": "train_prior", "steps": 9, "progress": {}}')
    return run_train_prior(folder)


for _name, _content in BAD_JSON.items():

    @case(f"what it was begun with: {_name}", train_prior)
    def _(folder, content=_content):
        (folder / "out/.training-prior.keras").mkdir(parents=True)
        (folder / "out/.training-prior.keras/.msst.json").write_bytes(content)
        return run_train_prior(folder)


# --- export -----------------------------------------------------------------------------------------------------------


def run_export(folder, output_dir=None, **options):
    return ExportOptions(**{"run_dir": f"{folder}/run", "output_dir": output_dir or f"{folder}/out/model"} | options)


for _name, _content in {
    **BAD_JSON, "no model": {"model": None}, "another model": {"model": MODEL | {"width": 0.125}},
    "no variant": {"model": MODEL | {"variant": "gan"}}, "a strange argument": {"model": MODEL | {"evil": 1}},
    "a huge model": {"model": MODEL | {"width": 1e9}}, "motion of text": {"motion": "dis"}, "a list": {"motion": [1]},
    "a prior that is a path": {"motion": MOTION | {"prior": {"kind": "../../evil"}}},
    "a network without its file": {"motion": MOTION | {"prior": {"kind": "network", "sha256": "0" * 64}}},
    "a prior of files": {"motion": MOTION | {"prior": {"kind": "files"}}}, "a size of text": {"image_size": "33x33"},
}.items():  # fmt: skip
    case(f"run.json: {_name}", export)(at("run/run.json", edit(_content), run_export))
for _name, _change in BAD_CHECKPOINTS.items():

    @case(f"a checkpoint: {_name}", export)
    def _(folder, change=_change):
        spoil_checkpoint(folder / "run", change)
        return run_export(folder)


@case("no checkpoint", export)
def _(folder):
    shutil.rmtree(folder / "run/checkpoints")
    return run_export(folder)


case("no best checkpoint", export)(lambda folder: run_export(folder, checkpoint="best"))
case("no run", export)(lambda folder: run_export(folder, run_dir=f"{folder}/frames"))
case("a version that is there", export)(lambda folder: run_export(folder, f"{folder}/model", version=1))
case("an output that is a file", export)(out_is_a_file(run_export))
case("an output below a file", export)(out_is_a_file(run_export, "/model"))


# --- ablate -----------------------------------------------------------------------------------------------------------


def run_ablate(folder, output_dir=None, **options):
    return AblateOptions(**{
        "configs": ("st.cfg",), "ground_truth": f"{folder}/davis", "output_dir": output_dir or f"{folder}/out/ablation",
    } | options)  # fmt: skip


for _name, _content in {
    **BAD_JSON,
    "lists": b'{"test": [], "runs": []}',
    "a text": b'{"test": {}, "runs": "st"}',
}.items():

    @case(f"plan.json: {_name}", ablate)
    def _(folder, content=_content):
        (folder / "out/ablation").mkdir(parents=True)
        (folder / "out/ablation/plan.json").write_bytes(content)
        return run_ablate(folder)


for _name in ("a/b", "..", "a:b", "\x1b[2J", "a" * 300, "all black", "=cmd"):
    case(f"a config called {_name!a:.20}", ablate)(
        lambda folder, name=_name: run_ablate(folder, configs=(f"{name}.cfg",))
    )
for _name, _options in {
    "no ground truth": {"ground_truth": "gone"}, "a file as ground truth": {"ground_truth": "clip.mp4"},
    "another layout": {"layout": "fbms"}, "no protocol": {"protocol": "mine"},
    "no such sequence": {"sequences": ("x",)}, "arguments with an open quote": {"train_args": "--records='a"},
}.items():  # fmt: skip
    case(_name, ablate)(lambda folder, options=_options: run_ablate(folder, **options))
case("an output that is a file", ablate)(out_is_a_file(run_ablate))
case("an output below a file", ablate)(out_is_a_file(run_ablate, "/ablation"))
case("an output among the frames", ablate)(
    lambda folder: run_ablate(folder, f"{folder}/davis/JPEGImages/480p/ball/ablation")
)


# --- fuse_labels ------------------------------------------------------------------------------------------------------


def run_fuse_labels(folder, output_dir=None, **options):
    return FuseLabelsOptions(**{
        "root": f"{folder}/frames/ball", "maps": (f"mine:{folder}/maps",), "output_dir": output_dir or f"{folder}/out",
    } | options)  # fmt: skip


for _name, _content in BAD_IMAGES.items():
    case(f"a map: {_name}", fuse_labels)(at("maps/ball/00001.png", _content, run_fuse_labels))
    case(f"a frame: {_name}", fuse_labels)(
        at("frames/ball/00001.png", _content, lambda f: run_fuse_labels(f, sources=("spectral_residual",)))
    )
for _name, _content in BAD_VIDEOS.items():
    case(f"a video: {_name}", fuse_labels)(
        at("clip.mp4", _content, lambda f: run_fuse_labels(f, dataset="video", root=f"{f}/clip.mp4"))
    )
for _name in NAMES[:-2]:

    @case(f"a map called {_name!a}", fuse_labels)
    def _(folder, name=_name):
        place = folder / "maps/ball"
        shutil.copy(place / "00001.png", bytes(place) + b"/" + name)
        (place / "00001.png").unlink()
        return run_fuse_labels(folder)


@case("maps of 0 and 1", fuse_labels)
def _(folder):
    for path in (folder / "maps/ball").iterdir():
        path.write_bytes(encode(GREY // 255))
    return run_fuse_labels(folder)


for _name, _options in {
    "maps that are not there": {"maps": ("mine:gone",)}, "maps without a name": {"maps": ("maps",)},
    "masks that are not there": {"ground_truth": "gone"}, "no such source": {"sources": ("magic",)},
    "a model that is none": {"model": "frames"}, "no such sequence": {"sequences": ("x",)},
    "no frames": {"root": "gone"},
}.items():  # fmt: skip
    case(_name, fuse_labels)(lambda folder, options=_options: run_fuse_labels(folder, **options))
case("an output that is a file", fuse_labels)(out_is_a_file(run_fuse_labels))
case("an output below a file", fuse_labels)(out_is_a_file(run_fuse_labels, "/labels"))
case("an output among the frames", fuse_labels)(lambda f: run_fuse_labels(f, f"{f}/frames/ball/labels"))
case("an output among the maps", fuse_labels)(lambda f: run_fuse_labels(f, f"{f}/maps/labels"))


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound tree of everything: frames, maps, flow, a video, records, a run and its model."""
    folder = tmp_path_factory.mktemp("sound")
    for index in range(3):
        for place in ("frames/ball", "maps/ball", "davis/JPEGImages/480p/ball", "davis/Annotations/480p/ball"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            (folder / place / f"{index:05d}.png").write_bytes(SOUND_PNG)
        flow_files.write_flow(folder / f"flow/ball/{index:05d}.flo", np.ones((*MOTION_SIZE, 2), np.float32))
    write_video(folder / "clip.mp4", pictures(6), muxer={"movflags": "+faststart"})
    write_records(folder)
    keras.utils.set_random_seed(0)
    settings = {"model": MODEL, "motion": MotionSettings.from_dict(MOTION), "image_size": [33, 33]}
    run_dir.write_run(folder / "run", settings)
    (folder / "run/checkpoints").mkdir()
    tf.train.Checkpoint(model=build_msst(**MODEL)).write(f"{folder}/run/checkpoints/ckpt-1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving_export.warm_up, "write", lambda *_: None)  # seconds for what no row reads
        export(run_export(folder, f"{folder}/model"))
    SOUND["folder"] = folder
    return folder


@functools.cache
def load_sound(path):
    return SaliencyModel(path)


def test_there_are_enough_of_every_job():
    jobs = [case.values[0] for case in CASES]
    assert all(jobs.count(job) >= 20 for job in (predict, train, train_prior, export, ablate, fuse_labels))
    assert len(CASES) >= 150


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("job, spoil", CASES)
def test_one_sentence_and_nothing_else(job, spoil, sound, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(ablate_job, "run_job", lambda *command: pytest.fail(f"{command} was started"))
    monkeypatch.setattr(
        predict_job, "SaliencyModel", lambda path: (load_sound if str(sound) in str(path) else SaliencyModel)(path)
    )
    folder = tmp_path / "tree"
    shutil.copytree(sound, folder)
    monkeypatch.chdir(folder)
    options = spoil(folder)
    with one_sentence_and_nothing_else(tmp_path, capfd):
        run(job, options)
    made = {path.name for path in (folder / "out").rglob("*") if os.path.isfile(path)}
    assert not made & {"result.json", "saved_model.pb", "ablation.csv", "weights.csv", "prior.keras", "clip.mp4"}
    assert not (folder / "out/maps/ball").exists()


def run(job, options):
    if job is not ablate:
        return job(options)
    return job(options, {path.removesuffix(".cfg"): [] for path in options.configs})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "job, make_options, place",
    [
        (predict, run_predict, "out/maps/.partial-ball"),
        (train, run_train, "out/run"),
        (train_prior, run_train_prior, "out/.training-prior.keras"),
        (ablate, run_ablate, "out/ablation"),
        (fuse_labels, run_fuse_labels, "out"),
    ],
)
def test_the_second_of_two_says_so(job, make_options, place, sound, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(locks, "_ORPHANS_SECONDS", 0.1)
    shutil.copytree(sound, tmp_path / "tree")
    options = make_options(tmp_path / "tree")
    with locks.hold_folder(tmp_path / "tree" / place):
        with one_sentence_and_nothing_else(tmp_path, capfd) as caught:
            run(job, options)
    assert f"{tmp_path}/tree/{place}: another process is writing here" in str(caught.value)
