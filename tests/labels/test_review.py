"""A review on the disk: what it keeps, where it goes on, and what it refuses."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from PIL import Image

from msst_keras.data import datasets, images
from msst_keras.data.sequences import FileSequence
from msst_keras.labels.label_files import read_label, write_label
from msst_keras.labels.review import LabelChanged, Review, version_of

SIZE = (20, 30)


def label_with(*columns):
    """Stripes of three columns each."""
    label = np.zeros(SIZE, bool)
    for column in columns:
        label[5:15, column : column + 3] = True
    return label


@pytest.fixture
def tree(tmp_path):
    for sequence, count in (("boat", 3), ("camel", 1)):
        for index in range(count):
            path = tmp_path / "frames" / sequence / f"{index:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.encode_jpeg(np.full((*SIZE, 3), 60 * index, np.uint8)))
            write_label(tmp_path / "labels" / sequence / f"{index:05d}.png", label_with(3, 12, 21))
    return tmp_path


def open_review(tree, **options):
    return Review(tree / "labels", datasets.find_sequences("folder", tree / "frames"), **options)


@pytest.fixture
def review(tree):
    review = open_review(tree)
    yield review
    review.close()


def label_path(tree, name):
    return tree / "labels" / f"{name}.png"


def test_a_change_is_saved_and_the_original_kept(tree, review):
    before = label_path(tree, "boat/00001").read_bytes()
    first = review.save(1, label_with(3, 12))
    second = review.save(1, label_with(3), base=first)
    assert np.array_equal(read_label(label_path(tree, "boat/00001")), label_with(3))
    assert (tree / "labels/.review/original/boat/00001.png").read_bytes() == before
    label, original = review.read_labels(1)
    assert np.array_equal(label, label_with(3)) and np.array_equal(original, label_with(3, 12, 21))
    assert second == version_of(label_with(3))
    assert len(list((tree / "labels/.review/original").rglob("*.png"))) == 1
    with pytest.raises(ValueError, match=r"expected a label \(20, 30\), not \(30, 20\)"):
        review.save(1, label_with(3).T)


def test_a_change_of_another_version_is_refused_and_one_that_is_there_already_is_not(review):
    version = review.save(1, label_with(3))
    assert review.save(1, label_with(3), base="old") == version  # the same again, its answer lost
    with pytest.raises(LabelChanged, match="this label has changed on the disk"):
        review.save(1, label_with(12), base="old")
    assert np.array_equal(review.read_labels(1)[0], label_with(3))


def test_it_goes_on_where_it_stopped(tree):
    review = open_review(tree)
    assert review.find_position() == 0
    review.save(0, label_with(3))
    assert review.find_position() == 0  # changed, but still open
    review.decide(0, "accept")
    review.decide(1, "reject")
    assert review.find_position() == 2
    review.close()
    review = open_review(tree)
    assert [item.decision for item in review.items] == ["accept", "reject", "reopen", "reopen"]
    assert review.find_position() == 2
    for index in (3, 2):
        review.decide(index, "accept")
    assert review.find_position() == 2  # all are decided: the last
    review.decide(1, "reopen")
    assert review.find_position() == 1
    review.close()


def test_rejected_labels_leave_the_folder_and_come_back(tree, review):
    review.decide(2, "reject")
    rejected = tree / "labels/.review/rejected/boat/00002.png"
    assert rejected.exists() and not label_path(tree, "boat/00002").exists()
    review.save(2, label_with(12))  # is changed where it is
    assert np.array_equal(read_label(rejected), label_with(12))
    review.decide(2, "accept")
    assert not rejected.exists() and np.array_equal(read_label(label_path(tree, "boat/00002")), label_with(12))
    with pytest.raises(ValueError, match="a decision is one of accept, reject, reopen, not 'maybe'"):
        review.decide(2, "maybe")


def test_files_follow_the_journal_after_a_kill_between_them(tree):
    review = open_review(tree)
    review.decide(0, "reject")
    review.close()
    os.replace(tree / "labels/.review/rejected/boat/00000.png", label_path(tree, "boat/00000"))  # as if not yet moved
    open_review(tree).close()
    assert not label_path(tree, "boat/00000").exists()
    label_path(tree, "boat/00000").write_bytes(label_path(tree, "boat/00001").read_bytes())
    with pytest.raises(ValueError, match="00000.png: this label is also at .*boat/00000.png; remove the one"):
        open_review(tree)


def test_what_a_killed_program_left_does_no_harm(tree):
    review = open_review(tree)
    review.decide(0, "accept")
    review.close()
    journal = tree / "labels/.review/journal.jsonl"
    journal.write_text(journal.read_text() + '{"action": "reject", "sequ')
    (tree / "labels/boat/.partial-host-1-00001.png").write_bytes(b"half")
    review = open_review(tree)
    assert [item.decision for item in review.items] == ["accept", "reopen", "reopen", "reopen"]
    assert not list((tree / "labels").rglob(".partial*"))
    review.decide(1, "accept")
    review.close()
    actions = [json.loads(line)["action"] for line in journal.read_text().splitlines()]
    assert actions == ["accept", "accept"]
    journal.write_text("{}\n")
    with pytest.raises(ValueError, match="journal.jsonl: line 1 is no entry of a review"):
        open_review(tree)


@contextlib.contextmanager
def file_size_limit(size):
    """Lets files of this process grow to so many bytes; a write beyond that is cut off, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_full_disk_leaves_no_half_line_in_the_journal(tree):
    review = open_review(tree)
    review.decide(0, "accept")
    journal = tree / "labels/.review/journal.jsonl"
    before = journal.read_bytes()
    for room in (0, 10):
        with file_size_limit(len(before) + room), pytest.raises(OSError, match="No space left|File too large"):
            review.decide(1, "reject")
        assert journal.read_bytes() == before and label_path(tree, "boat/00001").exists()
    review.decide(1, "accept")
    review.close()
    review = open_review(tree)
    assert [item.decision for item in review.items] == ["accept", "accept", "reopen", "reopen"]
    review.close()


def test_one_process_at_a_time(tree, review):
    with pytest.raises(BlockingIOError, match="labels: another process is reviewing these labels"):
        open_review(tree)


def test_the_doubtful_come_first(tree):
    (tree / "labels/frames.csv").write_text("sequence,frame\ncamel,00000\nboat,00002\nboat,00009\n")
    for order, expected in (("doubt", [("camel", "00000"), ("boat", "00002")]), ("sequence", [("boat", "00000")])):
        review = open_review(tree, order=order)
        review.close()
        assert [(item.sequence, item.frame) for item in review.items][: len(expected)] == expected
        assert len(review.items) == 4


def test_labels_of_a_long_video_are_shown_in_its_order(tree):
    for folder, suffix in (("frames", "jpg"), ("labels", "png")):
        for index, name in enumerate(("99998", "99999", "100000")):
            path = tree / folder / "boat" / f"{index:05d}.{suffix}"
            path.rename(path.with_stem(name))
    for order in ("doubt", "sequence"):
        with contextlib.closing(open_review(tree, order=order)) as review:
            assert [item.frame for item in review.items] == ["99998", "99999", "100000", "00000"]


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(tree, ours, theirs):
    """A folder of labels that comes from a Mac has other bytes in its names; its files keep them."""
    for folder, form in (("frames", ours), ("labels", theirs)):
        place = tree / folder / unicodedata.normalize(form, "caf\u00e9")
        (tree / folder / "boat").rename(place)
        for path in place.iterdir():
            path.rename(path.with_stem(unicodedata.normalize(form, f"\u00e9_{path.stem}")))
    cafe, name = place.name, unicodedata.normalize(theirs, "\u00e9_00001")
    (tree / "labels/frames.csv").write_text(unicodedata.normalize(ours, "sequence,frame\ncaf\u00e9,\u00e9_00001\n"))
    with contextlib.closing(open_review(tree)) as review:
        assert (review.items[0].sequence, review.items[0].frame) == (cafe, name)
        assert images.decode_frame(review.read_frame(0)[0], "").mean() == 60
        review.save(0, label_with(3))
        review.decide(0, "reject")
    rejected = tree / "labels/.review/rejected" / cafe / f"{name}.png"
    assert np.array_equal(read_label(rejected), label_with(3))
    journal = tree / "labels/.review/journal.jsonl"
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    others = [
        entry | {key: unicodedata.normalize(ours, entry[key]) for key in ("sequence", "frame")} for entry in entries
    ]
    journal.write_text("".join(f"{json.dumps(entry)}\n" for entry in others))  # as if begun before the labels moved
    with contextlib.closing(open_review(tree)) as review:
        assert review.items[0].decision == "reject" and review.find_position() == 1
    write_label(tree / "labels" / unicodedata.normalize(ours, cafe) / f"{name}.png", label_with(3))
    with pytest.raises(ValueError, match="png: this frame has another label, whose name is spelled otherwise; remove"):
        open_review(tree)


def test_two_frames_that_differ_in_how_an_accent_is_spelled_are_refused(tree):
    for form in ("NFC", "NFD"):
        (tree / "frames" / unicodedata.normalize(form, "caf\u00e9")).mkdir()
        (tree / "frames" / unicodedata.normalize(form, "caf\u00e9") / "1.jpg").touch()
    with pytest.raises(ValueError, match="two sequences are called caf\u00e9, with accents that are spelled otherwise"):
        open_review(tree)
    found = [FileSequence(path.name, (path / "1.jpg",)) for path in (tree / "frames").glob("caf*")]
    with pytest.raises(ValueError, match="1.jpg: called as .*1.jpg is, accents spelled otherwise; rename one"):
        Review(tree / "labels", found)


def test_frames_are_sent_as_they_are_labelled(tree):
    rows, columns = np.indices(SIZE)
    pixels = np.stack([8 * columns, 12 * rows, 4 * (rows + columns)], axis=2).astype(np.uint8)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif, quality=95)
    (tree / "frames/boat/00000.jpg").write_bytes(turned.getvalue())
    Image.fromarray(pixels).save(tree / "frames/boat/00001.bmp")
    (tree / "frames/boat/00001.jpg").unlink()
    review = open_review(tree)
    plain = (tree / "frames/boat/00002.jpg").read_bytes()
    assert review.read_frame(2) == (plain, "image/jpeg")
    for index in (0, 1):
        encoded, media_type = review.read_frame(index)
        assert media_type == "image/jpeg" and 0x0112 not in Image.open(io.BytesIO(encoded)).getexif()
        upright = pixels[::-1, ::-1] if index == 0 else pixels
        assert np.abs(images.decode_frame(encoded, "").astype(int) - upright).mean() < 4
    review.close()


def png_of_size(width, height):
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_frames_and_labels_that_cannot_be_shown_are_one_sentence(tree, review):
    frames = tree / "frames/boat"
    frames.joinpath("00000.jpg").write_bytes(png_of_size(12500, 8000))  # 100 megapixels
    with pytest.raises(ValueError, match="00000.jpg: .*100000000 pixels.* limit of 89478485"):
        review.read_frame(0)
    frames.joinpath("00000.jpg").write_bytes(png_of_size(8000, 5000))
    with pytest.raises(ValueError, match="00000.jpg: 5000x8000 pixels, more than the limit of 33554432"):
        review.read_labels(0)
    frames.joinpath("00000.jpg").write_text("text")
    with pytest.raises(ValueError, match="00000.jpg: not a readable image"):
        review.read_frame(0)
    frames.joinpath("00001.jpg").write_bytes(images.encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    with pytest.raises(ValueError, match="00001.png: this label is 20x30, its frame 8x8"):
        review.save(1, label_with(3))
    label_path(tree, "boat/00002").write_bytes(images.encode_png(np.full(SIZE, 90, np.uint8)))
    with pytest.raises(ValueError, match="00002.png: a label holds 0 and 255 alone"):
        review.read_labels(2)


def test_folders_that_are_no_review_are_one_sentence(tree, tmp_path):
    with pytest.raises(FileNotFoundError, match="none: no such folder of labels"):
        Review(tmp_path / "none", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no labels here; expected SEQUENCE/FRAME.png"):
        Review(tmp_path / "empty", [])
    write_label(label_path(tree, "boat/00007"), label_with(3))
    with pytest.raises(ValueError, match="boat/00007.png: a label without its frame; the frames have no 'boat'"):
        open_review(tree)
    label_path(tree, "boat/00007").unlink()
    (tree / "labels/boat/00001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="00001.jpg: labels are PNG files"):
        open_review(tree)
    (tree / "labels/boat/00001.jpg").unlink()
    write_label(tmp_path / "outside.png", label_with(3))
    label_path(tree, "boat/00001").unlink()
    label_path(tree, "boat/00001").symlink_to(tmp_path / "outside.png")
    with pytest.raises(ValueError, match="boat/00001.png: this label leads out of the folder, to .*outside.png"):
        open_review(tree)
    label_path(tree, "boat/00001").unlink()
    (tree / "labels/bo\nat").mkdir()
    with pytest.raises(ValueError, match="this name holds control characters"):
        open_review(tree)
    os.rmdir(tree / "labels/bo\nat")
    open_review(tree).close()  # none of these attempts holds the lock


SAVER = """
import sys
import numpy as np
from msst_keras.data import datasets
from msst_keras.labels.review import Review
review = Review(sys.argv[1] + "/labels", datasets.find_sequences("folder", sys.argv[1] + "/frames"))
print("ready", flush=True)
number = 0
while True:
    index = number % len(review.items)
    label = np.zeros((20, 30), bool)
    label[:, number % 30] = True
    review.save(index, label)
    review.decide(index, ("accept", "reject", "reopen")[number % 3])
    number += 1
    print(number, flush=True)
"""


def kill_while_saving(tree, kills, seed=0):
    """Kills a program that saves and decides as fast as it can, and looks at the labels each time."""
    allowed = {label_with(3, 12, 21).tobytes()} | {
        (np.arange(30) == c)[None].repeat(20, 0).tobytes() for c in range(30)
    }
    chance, num_saves = random.Random(seed), 0
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(tree)], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        wanted = chance.randint(1, 5)
        for _ in range(wanted):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.004))  # somewhere in the next
        process.kill()
        num_saves += wanted + len(process.communicate()[0].splitlines())
        paths = [path for path in (tree / "labels").rglob("*.png") if not path.name.startswith(".partial")]
        kept = [path for path in paths if "original" not in path.parts]
        assert len(kept) == 4  # none lost, none twice
        assert all(read_label(path).tobytes() in allowed for path in paths)
        for path in paths:
            if "original" in path.parts:
                assert np.array_equal(read_label(path), label_with(3, 12, 21))
    review = open_review(tree)
    for index, item in enumerate(review.items):
        rejected = (tree / "labels/.review/rejected" / item.sequence / f"{item.frame}.png").exists()
        assert rejected == (item.decision == "reject")
        review.read_labels(index)
    review.close()
    return num_saves


def test_no_label_is_half_written_when_the_program_is_killed(tree):
    assert kill_while_saving(tree, kills=8) >= 8


@pytest.mark.slow
def test_no_label_is_half_written_in_200_kills(tree):
    assert kill_while_saving(tree, kills=200, seed=1) >= 200
