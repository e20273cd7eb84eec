"""Hostile inputs through the jobs: one sentence each, nothing made, nothing written elsewhere, memory bounded.

Each row of the tables is one input of one job, called in this process as from Python. An input that a job can use is
no row here: the tests of its part have what it gives. Workers of `make_records` are played by this process, so that
TensorFlow is loaded once.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hostile import (
    BAD_IMAGES,
    BAD_MANIFESTS,
    BAD_SHARDS,
    BAD_VIDEOS,
    GREY,
    NAMES,
    SOUND_PNG,
    encode,
    one_sentence_and_nothing_else,
    spoil_file,
    spoil_manifest,
    spoil_shard,
)  # fmt: skip
from made_videos import pictures, write_video

from msst_keras import locks
from msst_keras.conversion import workers
from msst_keras.conversion.options import FlowOptions, MakeRecordsOptions
from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.inference.options import RefineOptions
from msst_keras.jobs.evaluate import evaluate
from msst_keras.jobs.inspect_records import inspect_records
from msst_keras.jobs.make_records import make_records
from msst_keras.jobs.refine import refine
from msst_keras.records.options import InspectRecordsOptions

CASES = []


# --- the table -------------------------------------------------------------------------------------------------------


def case(name, job):
    """Registers a row: a function that gets the folder of a sound tree, spoils it, and returns the job's options."""
    return lambda spoil: CASES.append(pytest.param(job, spoil, id=name))


def run_make_records(folder, dataset, root, **options):
    motion = FlowOptions(prior="none")
    return MakeRecordsOptions(
        dataset=dataset, root=str(root), output_dir=str(folder / "out/records"), num_shards=1, num_workers=1,
        motion=motion, **options,
    )  # fmt: skip


def run_evaluate(folder, **options):
    options = {"baselines": False, "report": False, "num_workers": 1, "protocol": ("all",)} | options
    return EvaluateOptions(
        predictions=str(folder / "maps"), ground_truth=str(folder / "davis"), output_dir=str(folder / "out/scores"),
        **options,
    )  # fmt: skip


def run_refine(folder):
    return RefineOptions(
        maps=str(folder / "maps"), frames=str(folder / "davis/JPEGImages/480p"), output_dir=str(folder / "out/refined"),
        num_workers=1,
    )  # fmt: skip


PLACES = {  # where a bad image may lie -> the job that reads it there, and its options
    "davis/JPEGImages/480p/ball/00001.png": (make_records, lambda f: run_make_records(f, "davis", f / "davis")),
    "davis/Annotations/480p/ball/00001.png": (make_records, lambda f: run_make_records(f, "davis", f / "davis")),
    "stills/image/1.png": (make_records, lambda f: run_make_records(f, "stills", f / "stills")),
    "stills/mask/1.png": (make_records, lambda f: run_make_records(f, "stills", f / "stills")),
    "maps/ball/00001.png": (evaluate, run_evaluate),
    " davis/Annotations/480p/ball/00001.png": (evaluate, run_evaluate),
    " maps/ball/00001.png": (refine, run_refine),
    " davis/JPEGImages/480p/ball/00001.png": (refine, run_refine),
}
for _place, (_job, _options) in PLACES.items():
    for _name, _content in BAD_IMAGES.items():

        @case(f"{_job.__name__}, {_place.strip()}: {_name}", _job)
        def _(folder, place=_place, content=_content, options=_options):
            (folder / place.strip()).write_bytes(content)
            return options(folder)


for _name, _content in BAD_VIDEOS.items():

    @case(f"make_records, video: {_name}", make_records)
    def _(folder, content=_content):
        spoil_file(folder / "video/clip.mp4", content)
        return run_make_records(folder, "video", folder / "video/clip.mp4")


def inspect(spoil):
    def spoil_and_inspect(folder):
        spoil(folder)
        return InspectRecordsOptions(records=(str(folder / "records"),), verify=True)

    return spoil_and_inspect


for _name, _change in BAD_MANIFESTS.items():
    case(f"inspect_records, manifest: {_name}", inspect_records)(inspect(spoil_manifest(_change)))


for _name, _change in BAD_SHARDS.items():
    case(f"inspect_records, a shard: {_name}", inspect_records)(inspect(spoil_shard(_change)))


for _name in NAMES:

    @case(f"make_records, a frame called {_name!a}", make_records)
    def _(folder, name=_name):
        place = folder / "davis/JPEGImages/480p/ball"
        shutil.copy(place / "00001.png", bytes(place) + b"/" + name)
        return run_make_records(folder, "folder", place)


@case("make_records, a link to itself", make_records)
def _(folder):
    path = folder / "davis/JPEGImages/480p/ball/00002.png"
    path.unlink()
    path.symlink_to("00002.png")
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a folder called as a frame", make_records)
def _(folder):
    (folder / "davis/JPEGImages/480p/ball/00003.png").mkdir()
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a list that leads elsewhere", make_records)
def _(folder):
    (folder / "davis/ImageSets/480p").mkdir(parents=True)
    (folder / "davis/ImageSets/480p/train.txt").write_text("../../..\n..\n")
    return run_make_records(folder, "davis", folder / "davis", split="train")


@case("make_records, an output that is a file", make_records)
def _(folder):
    (folder / "out").mkdir()
    (folder / "out/records").touch()
    return run_make_records(folder, "davis", folder / "davis")


@case("make_records, a folder of nothing", make_records)
def _(folder):
    (folder / "nothing").mkdir()
    return run_make_records(folder, "folder", folder / "nothing")


@case("evaluate, maps of 0 and 1", evaluate)
def _(folder):
    for path in (folder / "maps/ball").iterdir():
        path.write_bytes(encode(GREY // 255))
    return run_evaluate(folder)


@case("evaluate, maps of another shape", evaluate)
def _(folder):
    (folder / "maps/ball/00001.png").write_bytes(encode(np.zeros((50, 7), np.uint8)))
    return run_evaluate(folder)


@case("evaluate, a map too many", evaluate)
def _(folder):
    shutil.copy(folder / "maps/ball/00001.png", folder / "maps/ball/00009.png")
    return run_evaluate(folder)


@case("evaluate, the masks themselves", evaluate)
def _(folder):
    shutil.rmtree(folder / "maps")
    (folder / "maps").symlink_to(folder / "davis/Annotations/480p")
    return run_evaluate(folder)


@case("refine, maps as frames", refine)
def _(folder):
    shutil.rmtree(folder / "davis/JPEGImages/480p/ball")
    return run_refine(folder)


# --- running ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A sound tree of everything, and records of it."""
    folder = tmp_path_factory.mktemp("sound")
    for place in (*PLACES, "davis/JPEGImages/480p/ball/00000.png", "davis/Annotations/480p/ball/00000.png",
                  "davis/JPEGImages/480p/ball/00002.png", "davis/Annotations/480p/ball/00002.png",
                  "maps/ball/00000.png", "maps/ball/00002.png"):  # fmt: skip
        path = folder / place.strip()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SOUND_PNG)
    (folder / "video").mkdir()
    write_video(folder / "video/clip.mp4", pictures(6), muxer={"movflags": "+faststart"})
    with pytest.MonkeyPatch.context() as patch:
        play_workers(patch)
        make_records(run_make_records(folder, "davis", folder / "davis"))
    (folder / "out/records").rename(folder / "records")
    (folder / "out").rmdir()
    return folder


def play_workers(patch):
    from msst_keras.conversion.shard_maker import ShardMaker

    def make_shards(shards, motion, num_workers, *rest):
        maker = ShardMaker(motion)
        return [maker.make(shard)[0] for shard in shards]

    patch.setattr(workers, "make_shards", make_shards)


def test_there_are_enough():
    assert len(CASES) >= 150


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("job, spoil", CASES)
def test_one_sentence_and_nothing_else(job, spoil, sound, tmp_path, monkeypatch, capfd):
    play_workers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "tree"
    shutil.copytree(sound, folder)
    options = spoil(folder)
    with one_sentence_and_nothing_else(tmp_path, capfd):
        job(options)
    made = [path.name for path in (folder / "out").rglob("*") if path.is_file()] if (folder / "out").is_dir() else []
    assert not {"manifest.json", "metrics.json", "report.html"}.intersection(made)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "job, make_options, place",
    [
        (make_records, lambda folder: run_make_records(folder, "davis", folder / "davis"), "records"),
        (evaluate, run_evaluate, "scores"),
        (refine, run_refine, "refined"),
    ],
)
def test_the_second_of_two_says_so(job, make_options, place, sound, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(locks, "_ORPHANS_SECONDS", 0.1)
    shutil.copytree(sound, tmp_path / "tree")
    with locks.hold_folder(tmp_path / "tree/out" / place):
        with one_sentence_and_nothing_else(tmp_path, capfd) as caught:
            job(make_options(tmp_path / "tree"))
    assert f"{tmp_path}/tree/out/{place}: another process is writing here" in str(caught.value)
