"""Folders of maps to a folder of labels: what is written, what is kept, and what is refused."""

from __future__ import annotations

import csv
import unicodedata

import cv2
import numpy as np
import pytest

from msst_keras.data import datasets, images, label_folders
from msst_keras.data.sequences import FileSequence
from msst_keras.labels import fuse, fusion, label_files, sources
from msst_keras.labels.fuse import FUSED, PLAIN_MEAN

SIZE = (36, 48)


def square(x, size=SIZE):
    mask = np.zeros(size, bool)
    mask[10:22, x : x + 12] = True
    return mask


def write_frames(folder, count=4):
    """A textured square that moves 3 pixels a frame over texture."""
    random = np.random.default_rng(0)
    texture = cv2.GaussianBlur(random.integers(0, 256, (*SIZE, 3)).astype(np.uint8), (0, 0), 1)
    for index in range(count):
        frame = texture.copy()
        frame[square(4 + 3 * index)] = texture[:12, :12].reshape(-1, 3)[::-1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:05d}.png").write_bytes(images.encode_png(frame))


@pytest.fixture
def tree(tmp_path):
    """Sequence `boat` with masks of frames 0 and 2, and two methods: the truth at half size and dimmed, and noise."""
    write_frames(tmp_path / "root" / "JPEGImages" / "boat")
    random = np.random.default_rng(1)
    for index in range(4):
        mask = square(4 + 3 * index)
        good = cv2.resize(0.2 + 0.5 * mask.astype(np.float32), (24, 18), interpolation=cv2.INTER_AREA)
        images.write_map(tmp_path / "good" / "boat" / f"{index:05d}.png", good)
        images.write_map(tmp_path / "bad" / "boat" / f"{index:05d}.png", random.random(SIZE).astype(np.float32))
        if index % 2 == 0:
            label_files.write_label(tmp_path / "root" / "Annotations" / "boat" / f"{index:05d}.png", mask)
    return tmp_path


def fuse_tree(tree, names=("good", "bad"), output="out"):
    sequences = datasets.find_sequences("davis", tree / "root")
    return fuse.fuse_labels(sequences, {name: tree / name for name in names}, tree / output)


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_labels_of_frames_without_masks_and_tables_of_all(tree):
    result = fuse_tree(tree)
    assert (result.num_labels, result.num_masks) == (2, 2)
    assert sorted(path.name for path in (tree / "out" / "boat").iterdir()) == ["00001.png", "00003.png"]
    for index in (1, 3):
        label = label_files.read_label(tree / "out" / "boat" / f"{index:05d}.png")
        assert fusion.intersection_over_union(label, square(4 + 3 * index)) > 0.85
    assert result.weights["good"] > 0.95 and sum(result.weights.values()) == pytest.approx(1)
    assert list(result.quality) == ["good", "bad", PLAIN_MEAN, FUSED]
    assert result.quality["good"] > 0.85 > 0.3 > result.quality["bad"]
    rows = read_rows(tree / "out" / "frames.csv")
    assert [row["kind"] for row in rows] == ["coarse", "coarse", "fine", "fine"]
    assert float(rows[0]["confidence"]) <= float(rows[1]["confidence"])
    for row in rows:
        product = float(row["agreement"]) * float(row["separability"])
        assert float(row["confidence"]) == pytest.approx(product, rel=1e-4)
    assert all(float(row["weight_good"]) == pytest.approx(result.weights["good"], rel=1e-5) for row in rows)
    assert [row["iou_with_mask"] != "" for row in rows] == [False, False, True, True]
    assert float(rows[2]["iou_with_mask"]) > 0.85 and 0 < float(rows[0]["area"]) < 0.2
    weights = {row["method"]: row for row in read_rows(tree / "out" / "weights.csv")}
    assert float(weights["good"]["weight"]) == result.weights["good"] and weights[FUSED]["weight"] == ""
    assert label_files.read_order(tree / "out")[:2] == [(row["sequence"], row["frame"]) for row in rows[:2]]


def test_without_masks_the_mean_is_taken(tree):
    sequences = datasets.find_sequences("folder", tree / "root" / "JPEGImages")
    result = fuse.fuse_labels(sequences, {name: tree / name for name in ("good", "bad")}, tree / "out")
    assert result.weights == {"good": 0.5, "bad": 0.5} and result.quality == {} and result.num_labels == 4
    levels = fusion.fuse(
        np.stack([
            cv2.resize(images.read_map(tree / "good/boat/00001.png"), SIZE[::-1]),
            images.read_map(tree / "bad/boat/00001.png"),
        ]),
        np.array([0.5, 0.5]),
    )  # fmt: skip
    assert np.array_equal(label_files.read_label(tree / "out/boat/00001.png"), fusion.label_of(levels))


def test_masks_from_elsewhere_join_sequences_without(tree):
    sequences = datasets.find_sequences("folder", tree / "root" / "JPEGImages")
    joined = label_folders.add_masks(sequences, tree / "root" / "Annotations")
    assert sorted(joined[0].mask_paths) == [0, 2] and np.array_equal(joined[0].read_mask(2), square(10))
    with pytest.raises(ValueError, match="the dataset has masks of this sequence itself"):
        label_folders.add_masks(joined, tree / "root" / "Annotations")
    with pytest.raises(ValueError, match="no labels of any of the sequences"):
        label_folders.add_masks(sequences, tree)
    label_files.write_label(tree / "root" / "Annotations" / "boat" / "9.png", square(0))
    with pytest.raises(ValueError, match="9.png: a label without its frame; sequence 'boat' has no '9'"):
        label_folders.add_masks(sequences, tree / "root" / "Annotations")


def test_what_is_missing_is_named_before_anything_is_made(tree):
    (tree / "bad" / "boat" / "00003.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"bad/boat: 1 of 4 frames have no map \(the first is 00003\)"):
        fuse_tree(tree)
    with pytest.raises(FileNotFoundError, match="no folder 'boat' of maps here"):
        fuse_tree(tree, ("good", "root"))
    assert not (tree / "out").exists()


def test_maps_whose_accents_are_spelled_otherwise_are_found(tree):
    """A Mac takes the accents of names apart, and the frames may have them composed."""
    for folder in ("root/JPEGImages", "root/Annotations", "good", "bad"):
        form = "NFC" if folder.startswith("root") else "NFD"
        for path in (tree / folder / "boat").iterdir():
            path.rename(path.with_name(unicodedata.normalize(form, f"\u00e9_{path.name}")))
        (tree / folder / "boat").rename(tree / folder / unicodedata.normalize(form, "caf\u00e9"))
    assert (fuse_tree(tree).num_labels, len(list((tree / "out/caf\u00e9").glob("\u00e9_*.png")))) == (2, 2)


def test_two_maps_of_one_frame_are_refused(tree):
    folder = tree / "good" / "boat"
    (folder / "00001.jpg").write_bytes((folder / "00001.png").read_bytes())
    with pytest.raises(ValueError, match="good/boat/00001.png: 00001.jpg has this name too, .* no more than their suf"):
        fuse_tree(tree)


def test_labels_that_are_there_are_not_touched(tree):
    fuse_tree(tree)
    with pytest.raises(FileExistsError, match="labels are here already, reviewed perhaps"):
        fuse_tree(tree)


def test_a_failure_leaves_no_labels(tree):
    (tree / "bad" / "boat" / "00003.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="00003.png: not a readable image"):
        fuse_tree(tree)
    assert not list(tree.glob("*out*"))


def test_label_files(tmp_path):
    label_files.write_label(tmp_path / "a.png", square(5))
    assert np.array_equal(label_files.read_label(tmp_path / "a.png"), square(5))
    assert set(np.unique(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED))) == {0, 255}
    cv2.imwrite(str(tmp_path / "ones.png"), square(5).astype(np.uint8))
    assert np.array_equal(label_files.read_label(tmp_path / "ones.png"), square(5))
    for name, value in (("soft", np.arange(256, dtype=np.uint8)[None]), ("grey", np.full((4, 4), 128, np.uint8))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), value)
        with pytest.raises(ValueError, match=f"{name}.png: a label holds 0 and 255 alone, found"):
            label_files.read_label(tmp_path / f"{name}.png")
    with pytest.raises(ValueError, match=r"a label must be bool \(H, W\), not uint8"):
        label_files.write_label(tmp_path / "b.png", square(5).astype(np.uint8))
    (tmp_path / "frames.csv").write_text("name\n")
    with pytest.raises(ValueError, match="expected columns sequence and frame"):
        label_files.read_order(tmp_path)
    assert label_files.read_order(tmp_path / "nowhere") == []


def test_a_table_of_frames_that_a_spreadsheet_saved(tmp_path):
    table = tmp_path / "frames.csv"
    table.write_bytes("sequence,frame,kind\r\ncaf\u00e9,1,coarse\r\nboat,2\r\n,,\r\n".encode("utf-8-sig"))
    assert label_files.read_order(tmp_path) == [("caf\u00e9", "1"), ("boat", "2")]
    for rows in ("boat", "boat,", ",1,coarse"):
        table.write_text(f"sequence,frame,kind\nboat,2\n{rows}\n")
        with pytest.raises(ValueError, match="frames.csv: line 3 lacks its sequence or its frame; fill the cell or"):
            label_files.read_order(tmp_path)
    for content in ("sequence,frame\ncaf\u00e9,1".encode("latin-1"), b"sequence,frame\n" + b"a" * 200_000 + b",1\n"):
        table.write_bytes(content)
        with pytest.raises(ValueError, match="frames.csv: expected CSV in UTF-8 .*; save it as such or make it again"):
            label_files.read_order(tmp_path)


@pytest.mark.parametrize("name", ["flow_magnitude", "spectral_residual", "fine_grained"])
def test_built_in_sources_give_a_map_per_frame(tree, name):
    sequence = datasets.find_sequences("folder", tree / "root" / "JPEGImages")[0]
    frames = [frame for _, _, frame in sequence.read_frames()]
    maps = list(sources.make_source(name)(iter(frames)))
    assert len(maps) == 4
    for saliency in maps:
        assert saliency.shape == SIZE and saliency.dtype == np.float32
        assert 0 <= saliency.min() < 0.01 and 0.99 < saliency.max() <= 1
    if name == "flow_magnitude":  # the square is what moves
        assert all(saliency[square(4 + 3 * i)].mean() > 3 * saliency.mean() for i, saliency in enumerate(maps))
    fuse.make_maps(sequence, sources.make_source(name), tree / name)
    fuse.make_maps(sequence, lambda frames: pytest.fail("made twice"), tree / name)
    written = images.read_map(tree / name / "boat" / "00002.png")
    assert np.abs(written - maps[2]).max() <= 0.5 / 255 + 1e-6


def test_sources_that_cannot_be(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="a source must be one of flow_magnitude, spectral_residual"):
        sources.make_source("magic")
    monkeypatch.setattr(sources, "SHIPPED_MODEL", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="needs a SavedModel, and none is installed here: .* with --model"):
        sources.make_source("model")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none"):
        sources.make_source("model", tmp_path / "none")


def test_videos_become_folders_of_frames(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, SIZE[::-1])
    for index in range(5):
        writer.write(np.full((*SIZE, 3), 40 * index, np.uint8))
    writer.release()
    video = datasets.find_sequences("video", tmp_path / "clip.avi")[0]
    folder = fuse.extract_frames(video, tmp_path / "frames")
    assert folder.name == "clip" and folder.frame_rate == 10
    expected = [encoded for _, encoded, _ in video.read_frames()]
    assert [path.read_bytes() for path in folder.frame_paths] == expected
    (tmp_path / "frames" / "clip" / "00000.jpg").write_bytes(expected[1])
    again = fuse.extract_frames(video, tmp_path / "frames")  # not done twice
    assert again.frame_paths[0].read_bytes() == expected[1] and fuse.extract_frames(again, tmp_path) is again


def test_frames_of_a_long_video_stay_in_order(tmp_path):
    names = ["00009", "99999", "100000", "100001"]
    (tmp_path / "clip").mkdir()
    for name in reversed(names):
        (tmp_path / "clip" / f"{name}.jpg").touch()
    video = FileSequence("clip", video_path=tmp_path / "clip.mp4", video_length=4)
    assert list(fuse.extract_frames(video, tmp_path).frame_names) == names


def test_what_an_interrupted_run_left_is_removed(tmp_path):
    for name in (
        ".partial-h-1-labels/boat/1.png",
        "sources/flow/.partial-h-1-boat/1.png",
        "frames/.partial-h-1-x/1.jpg",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    fuse.clear_partial(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "frames",
        "sources",
        "sources/flow",
    ]
