"""Labels that lie elsewhere: paired to frames by name, and nothing of the dataset's own is replaced."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from msst_keras.data import images, label_folders
from msst_keras.data.sequences import FileSequence

SIZE = (6, 8)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_png(np.asarray(value, np.uint8)))
    return path


@pytest.fixture
def sequences(tmp_path):
    """Sequence `boat` of three frames, the second with a mask, and `camel` of one."""
    boat = tuple(write(tmp_path / f"frames/boat/{i:05d}.png", np.zeros((*SIZE, 3))) for i in range(3))
    camel = (write(tmp_path / "frames/camel/00000.png", np.zeros((*SIZE, 3))),)
    mask = write(tmp_path / "masks/boat/00001.png", np.eye(*SIZE) * 255)
    return [FileSequence("boat", boat, {1: (mask,)}), FileSequence("camel", camel)]


def test_coarse_labels_go_to_frames_without_a_mask(tmp_path, sequences):
    for index in (0, 1):
        write(tmp_path / f"coarse/boat/{index:05d}.png", np.tri(*SIZE) * 255)
    boat, camel = label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    assert list(boat.coarse_paths) == [0] and camel is sequences[1]
    np.testing.assert_array_equal(boat.read_coarse_label(0), np.tri(*SIZE).astype(bool))
    assert boat.read_mask(0) is None and boat.read_coarse_label(1) is None and boat.read_coarse_label(2) is None
    np.testing.assert_array_equal(boat.read_mask(1), np.eye(*SIZE).astype(bool))


def test_labels_that_do_not_fit_are_refused(tmp_path, sequences):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        label_folders.add_coarse_labels(sequences, tmp_path / "none")
    write(tmp_path / "coarse/dog/00000.png", np.zeros(SIZE))
    with pytest.raises(ValueError, match="coarse: no labels of any of the sequences; expected SEQUENCE/FRAME.png"):
        label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    strange = write(tmp_path / "coarse/boat/00009.png", np.zeros(SIZE))
    with pytest.raises(ValueError, match="00009.png: a label without its frame; sequence 'boat' has no '00009'"):
        label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    strange.unlink()
    write(tmp_path / "coarse/boat/00000.png", np.zeros((8, 8)))
    boat, _ = label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    with pytest.raises(ValueError, match="00000.png: this mask is 8x8, but .*00000.png is 6x8"):
        boat.read_coarse_label(0)
    video = FileSequence("boat", video_path=tmp_path / "boat.mp4", video_length=3)
    with pytest.raises(ValueError, match="boat.mp4: coarse labels are for folders of frames"):
        label_folders.add_coarse_labels([video], tmp_path / "coarse")


def test_masks_are_added_where_there_are_none(tmp_path, sequences):
    write(tmp_path / "more/camel/00000.png", np.tri(*SIZE))
    boat, camel = label_folders.add_masks(sequences, tmp_path / "more")
    assert boat is sequences[0]
    np.testing.assert_array_equal(camel.read_mask(0), np.tri(*SIZE).astype(bool))
    with pytest.raises(ValueError, match="masks/boat: the dataset has masks of this sequence itself"):
        label_folders.add_masks(sequences, tmp_path / "masks")


@pytest.mark.parametrize("ours, theirs", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_spelled_otherwise(tmp_path, ours, theirs):
    """A Mac takes an accent apart: the folder of labels that comes from there has other bytes in its name."""
    names = [unicodedata.normalize(ours, name) for name in ("café", "été")]
    frame = write(tmp_path / "frames/00000.png", np.zeros((*SIZE, 3)))
    sequences = [FileSequence(name, (frame,)) for name in names]
    label = write(tmp_path / "labels" / unicodedata.normalize(theirs, "café") / "00000.png", np.tri(*SIZE) * 255)
    assert label_folders.find_folders(sequences, tmp_path / "labels") == {names[0]: label.parent}
    for add, attribute in (("add_masks", "mask_paths"), ("add_coarse_labels", "coarse_paths")):
        cafe, other = getattr(label_folders, add)(sequences, tmp_path / "labels")
        assert getattr(cafe, attribute) == {0: (label,)} and other is sequences[1]
    both = write(tmp_path / "labels" / names[0] / "00000.png", np.zeros(SIZE))
    with pytest.raises(ValueError, match="labels: two folders hold labels of sequence 'caf.*'; make one of them"):
        label_folders.find_folders(sequences, tmp_path / "labels")
    both.unlink()


@pytest.mark.parametrize("names", [("e\u0301.png", "\u00e9.png"), ("\u00e9.jpg", "\u00e9.png")])
def test_two_labels_of_one_frame_are_refused(tmp_path, names):
    frame = write(tmp_path / "frames/\u00e9.png", np.zeros((*SIZE, 3)))
    for name in names:
        write(tmp_path / "labels/boat" / name, np.zeros(SIZE))
    for add in (label_folders.add_masks, label_folders.add_coarse_labels):
        with pytest.raises(ValueError, match="labels/boat/\u00e9.png: .* has this name too, .* remove one of them"):
            add([FileSequence("boat", (frame,))], tmp_path / "labels")


def test_folders_of_no_sequence_are_named(tmp_path, sequences, capsys):
    write(tmp_path / "coarse/boat/00000.png", np.zeros(SIZE))
    label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    assert capsys.readouterr().err == ""
    for name in ("dog", "Camel"):
        write(tmp_path / f"coarse/{name}/00000.png", np.zeros(SIZE))
    label_folders.add_coarse_labels(sequences, tmp_path / "coarse")
    assert capsys.readouterr().err == (
        f"note: {tmp_path}/coarse: 2 folders are left out that are named after none of the sequences (Camel, dog)\n"
    )
