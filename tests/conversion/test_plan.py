"""Folders that hold something already: other, unreadable or half-removed records, and what is not of records."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from msst_keras.conversion import convert, new_prior
from msst_keras.data.datasets import find_sequences
from msst_keras.motion.flow import FlowSettings
from msst_keras.motion.settings import MotionOptions
from msst_keras.records import shard_files
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.synthetic import videos

pytestmark = pytest.mark.usefixtures("in_this_process")
MOTION = MotionOptions(FlowSettings("farneback", motion_size=(32, 48)), None, "none", store_flow=True)
TRAIN, VAL = ({"dataset": "davis", "split": split} for split in ("train", "val"))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    root = tmp_path_factory.mktemp("davis") / "davis"
    videos.write_davis(root, 2, 3, (48, 64), seed=0)
    return find_sequences("davis", root)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def half_add(folder, monkeypatch, number=1):
    """Leaves a folder as a kill of --add_prior does that has made `number` shards."""
    write_shard, written = shard_files.write_shard, []

    def write(path, frames):
        if len(written) == number:
            raise KeyboardInterrupt
        written.append(write_shard(path, frames))

    with monkeypatch.context() as patched:
        patched.setattr(shard_files, "write_shard", write)
        with pytest.raises(KeyboardInterrupt):
            new_prior.add_prior(folder, "magnitude")


def leave_finished(folder, monkeypatch):
    """Leaves the records as they are."""


def leave_unreadable(folder, monkeypatch):
    (folder / "manifest.json").write_text('{"format_version": 1, "shar')


def leave_lost_shard(folder, monkeypatch):
    (folder / "shard-00000-of-00002.tfrecord").unlink()


@pytest.mark.parametrize("leave", [leave_finished, leave_unreadable, leave_lost_shard, half_add])
def test_an_overwriting_goes_on_after_a_kill_at_any_removal(sequences, tmp_path, monkeypatch, leave):
    """The same command ends with the records of a fresh conversion, whichever files the killed one had removed."""
    motion = MotionOptions(MOTION.flow, None, "magnitude", store_flow=True)
    convert.convert(sequences, tmp_path / "fresh", motion, VAL)
    unlink = Path.unlink
    for number in itertools.count():
        folder, left = tmp_path / f"killed_{number}", [number]
        convert.convert(sequences, folder, MOTION, TRAIN)
        leave(folder, monkeypatch)

        def unlink_some(path, missing_ok=False, folder=folder, left=left):
            if path.parent != folder or not path.exists():
                return unlink(path, missing_ok=missing_ok)
            if left[0] == 0:  # before the first one
                raise KeyboardInterrupt
            unlink(path)
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Path, "unlink", unlink_some)
            try:
                convert.convert(sequences, folder, motion, VAL, overwrite=True)
                break  # there are no more removals
            except KeyboardInterrupt:
                pass
        convert.convert(sequences, folder, motion, VAL, overwrite=True)
        assert contents(folder) == contents(tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh") and number >= 4  # description and shards, then the plan


def test_what_a_killed_overwriting_has_left_are_still_the_old_records(sequences, tmp_path, monkeypatch):
    """Without --overwrite they are refused for others, and completed for what they were."""
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    whole = contents(tmp_path / "out")

    unlink = Path.unlink

    def unlink_no_second_shard(path, missing_ok=False):
        if path.name == "shard-00001-of-00002.tfrecord":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", unlink_no_second_shard)
        with pytest.raises(KeyboardInterrupt):
            convert.convert(sequences, tmp_path / "out", MOTION, VAL, overwrite=True)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(ValueError, match="holds other records: split train .now val.; .* give --overwrite"):
        convert.convert(sequences, tmp_path / "out", MOTION, VAL)
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    assert contents(tmp_path / "out") == whole


def other_version(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": FORMAT_VERSION + 1}))


def no_shards(path):
    path.write_text(json.dumps({"format_version": FORMAT_VERSION, "num_labelled": 0}))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (other_version, "record format version .*, but this program reads version .* which --overwrite does"),
        (lambda path: path.write_text("{"), "not valid JSON .*; make the records again, which --overwrite does"),
        (no_shards, "expected a list of shards, found 'None'; make the records again, which --overwrite does"),
        (lambda path: path.rename(path.with_name("plan.json")).write_text("{"), "plan.json: damaged .*; make the rec"),
    ],
)
def test_records_that_cannot_be_read_are_made_anew(sequences, tmp_path, spoil, message):
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    whole = contents(tmp_path / "out")
    spoil(tmp_path / "out" / "manifest.json")
    shard = tmp_path / "out" / "shard-00000-of-00002.tfrecord"
    shard.write_bytes(b"of nobody knows what")  # it is not taken for what it was
    spoilt = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    assert contents(tmp_path / "out") == spoilt
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN, overwrite=True)
    assert contents(tmp_path / "out") == whole


def spoil(path):
    """Changes a byte in the middle of a file, whose size stays."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("has_manifest", [True, False])
def test_damaged_shards_are_made_anew_by_overwriting(sequences, tmp_path, has_manifest):
    """The size says nothing of them, and without --overwrite nobody waits until all is read."""
    folder = tmp_path / "out"
    convert.convert(sequences, folder, MOTION, TRAIN)
    whole = contents(folder)
    damaged, kept = sorted(folder.glob("shard-*"))
    time = kept.stat().st_mtime_ns
    spoil(damaged)
    convert.convert(sequences, folder, MOTION, TRAIN)
    assert contents(folder) != whole
    if not has_manifest:  # a second shard is lost, so that the conversion begins to go on
        kept.unlink()
        with pytest.raises(ValueError, match=f"{damaged.name}: corrupt after byte"):
            convert.convert(sequences, folder, MOTION, TRAIN)
        assert not (folder / "manifest.json").exists()
    convert.convert(sequences, folder, MOTION, TRAIN, overwrite=True)
    assert contents(folder) == whole
    assert (kept.stat().st_mtime_ns == time) == has_manifest  # what is whole stays


@pytest.mark.parametrize("number, is_damaged", [(0, False), (1, False), (1, True)])
def test_records_with_a_prior_that_is_half_added_are_made_anew(sequences, tmp_path, monkeypatch, number, is_damaged):
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    whole = contents(tmp_path / "out")
    half_add(tmp_path / "out", monkeypatch, number)
    if is_damaged:
        (tmp_path / "out" / "new_prior.json").write_text("{")
        with pytest.raises(ValueError, match="new_prior.json: damaged .*; make the records again"):
            new_prior.add_prior(tmp_path / "out", "magnitude")
    with pytest.raises(ValueError, match="same --add_prior to its end, or make the records again, which --overwrite d"):
        convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN, overwrite=True)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize(
    "files, named",
    [
        ({"notes.txt": "mine"}, "is not empty and holds no records"),
        ({"shard-00000-of-00001.tfrecord": "mine"}, "is not empty and holds no records"),
        ({"manifest.json": '{"name": "an app"}'}, "manifest.json"),
        ({"manifest.json": '{"format_version": "1.2"}'}, "manifest.json"),
        ({"manifest.json": "[1]"}, "manifest.json"),
        ({"manifest.json": "{", "notes.txt": "mine"}, "notes.txt"),
        ({"manifest.json": "", "shard-00000-of-00001.tfrecord": "", "index.html": "mine"}, "index.html"),
        ({"plan.json": "{}", "shard-00000-of-00002.tfrecord": "mine"}, "plan.json"),
        ({"plan.json": '{"resources": []}', "main.tf": "mine"}, "main.tf, plan.json"),
        ({"plan.json": "{", "shard-00000-of-00001.tfrecord.bak": "mine"}, "shard-00000-of-00001.tfrecord.bak"),
        ({"new_prior.json": '{"beta": 1}'}, "new_prior.json"),
        ({"new_prior.json": "{", "paper.tex": "mine"}, "paper.tex"),
        ({"new_prior.json": '{"old": {"format_version": 1}}', "paper.tex": "mine"}, "new_prior.json, paper.tex"),
        ({"manifest.json": '{"format_version": 1, "num_labelled": 0}', "plan.json": "[]"}, "plan.json"),
        ({"manifest.json": '{"format_version": 3, "files": []}', "shard-0.tfrecord": "mine"}, "manifest.json"),
        ({"plan.json": '{"format_version": 1, "steps": []}'}, "plan.json"),
    ],
)
def test_what_is_not_of_records_is_never_overwritten(sequences, tmp_path, files, named):
    (tmp_path / "out").mkdir()
    for name, content in files.items():
        (tmp_path / "out" / name).write_text(content)
    before = contents(tmp_path / "out")
    expected = named if " " in named and "," not in named else rf"files that no conversion has written \({named}\); ch"
    with pytest.raises(ValueError, match=expected):
        convert.convert(sequences, tmp_path / "out", MOTION, TRAIN, overwrite=True)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    "content, message",
    [
        (
            '{"beta": 1}',
            "new_prior.json: expected a manifest under 'old', found NoneType; if another program .* move it",
        ),
        ('{"old": [1]}', "new_prior.json: expected a manifest under 'old', found list; .* else make the records again"),
        ('{"old": {}}', "new_prior.json: expected a list of shards, found 'None'; make the records again"),
    ],
)
def test_a_prior_is_not_added_by_what_is_no_plan_of_ours(sequences, tmp_path, content, message):
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    (tmp_path / "out" / "new_prior.json").write_text(content)
    before = contents(tmp_path / "out")
    with pytest.raises(ValueError, match=message):
        new_prior.add_prior(tmp_path / "out", "magnitude")
    assert contents(tmp_path / "out") == before


def test_a_folder_called_as_a_manifest_is_not_overwritten(sequences, tmp_path):
    (tmp_path / "out" / "manifest.json").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"files that no conversion has written \(manifest.json\)"):
        convert.convert(sequences, tmp_path / "out", MOTION, TRAIN, overwrite=True)
    assert (tmp_path / "out" / "manifest.json").is_dir()


def test_notes_beside_records_outlive_an_overwriting(sequences, tmp_path):
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    (tmp_path / "out" / "README.txt").write_text("mine")
    assert convert.convert(sequences, tmp_path / "out", MOTION, VAL, overwrite=True)["split"] == "val"
    assert (tmp_path / "out" / "README.txt").read_text() == "mine"


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_number_of_shards_is_told_from_other_inputs(sequences, tmp_path, monkeypatch, is_finished):
    folder = tmp_path / "out"
    convert.convert(sequences, folder, MOTION, TRAIN, num_shards=2)
    if not is_finished:
        convert.convert(sequences, folder, MOTION, VAL, num_shards=1, overwrite=True)

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(convert, "run_engine", interrupt)
            with pytest.raises(KeyboardInterrupt):
                convert.convert(sequences, folder, MOTION, TRAIN, num_shards=2, overwrite=True)
        assert not (folder / "manifest.json").exists()
    with pytest.raises(ValueError, match="holds other records: num_shards 2 .now 1.; choose"):
        convert.convert(sequences, folder, MOTION, TRAIN, num_shards=1)
    # A sequence less makes a shard less, too: what differs are the inputs.
    with pytest.raises(ValueError, match="holds other records: other inputs; choose"):
        convert.convert(sequences[:1], folder, MOTION, TRAIN, num_shards=2)
    with pytest.raises(ValueError, match="other records: split train .now val., num_shards 2 .now 1.; choose"):
        convert.convert(sequences, folder, MOTION, VAL, num_shards=1)
    convert.convert(sequences, folder, MOTION, TRAIN, num_shards=8)  # at most one shard per sequence: the same records


def test_a_plan_of_before_it_held_the_number_of_shards_goes_on(sequences, tmp_path):
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    whole = contents(tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (tmp_path / "out" / "manifest.json").unlink()
    computed = ("num_frames", "num_labelled", "shards", "sequences")
    plan = {key: value for key, value in manifest.items() if key not in computed}
    (tmp_path / "out" / "plan.json").write_text(json.dumps(plan))
    convert.convert(sequences, tmp_path / "out", MOTION, TRAIN)
    assert contents(tmp_path / "out") == whole
