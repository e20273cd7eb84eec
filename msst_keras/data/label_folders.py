"""Labels of a dataset's frames that lie elsewhere: LABELS/SEQUENCE/FRAME.png, named after the frames."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from msst_keras.data import file_names
from msst_keras.data.sequences import FileSequence


def pair_labels(sequence: FileSequence, folder: Path) -> dict[int, tuple[Path, ...]]:
    """Frame index -> the label in `folder` that has the frame's name.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a label without its frame.
    """
    indices = {unicodedata.normalize("NFC", name): index for index, name in enumerate(sequence.frame_names)}
    paths = file_names.list_images(folder)
    for path in paths:
        if file_names.plain_name(path) not in indices:
            raise ValueError(f"{path}: a label without its frame; sequence '{sequence.name}' has no '{path.stem}'")
    return {indices[file_names.plain_name(path)]: (path,) for path in paths}


def find_folders(sequences: Iterable[FileSequence], labels_dir: str | Path) -> dict[str, Path]:
    """FileSequence -> the folder of its labels, of the sequences that have one.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: there are labels for none of the sequences.
    """
    names = {sequence.name for sequence in sequences}
    folders = {path.name: path for path in file_names.subfolders(Path(labels_dir)) if path.name in names}
    if not folders:
        raise ValueError(f"{labels_dir}: no labels of any of the sequences; expected SEQUENCE/FRAME.png")
    return folders


def add_masks(sequences: Iterable[FileSequence], masks_dir: str | Path) -> list[FileSequence]:
    """Gives sequences without masks those of MASKS_DIR/SEQUENCE/FRAME.png, where what is not black is the object.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a sequence with masks of its own, a mask without its frame, or masks of none of the sequences.
    """
    sequences = list(sequences)
    folders = find_folders(sequences, masks_dir)
    added = []
    for sequence in sequences:
        if sequence.name in folders:
            if sequence.mask_paths:
                raise ValueError(
                    f"{folders[sequence.name]}: the dataset has masks of this sequence itself; leave one of them away"
                )
            paths = pair_labels(sequence, folders[sequence.name])
            sequence = dataclasses.replace(sequence, mask_paths=paths, mask_rule="nonzero")
        added.append(sequence)
    return added


def add_coarse_labels(sequences: Iterable[FileSequence], labels_dir: str | Path) -> list[FileSequence]:
    """Gives the frames that have no mask the coarse labels (section 3.3) of LABELS_DIR/SEQUENCE/FRAME.png.

    A frame that has a mask keeps it alone.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a video file, a label without its frame, or labels of none of the sequences.
    """
    sequences = list(sequences)
    folders = find_folders(sequences, labels_dir)
    added = []
    for sequence in sequences:
        if sequence.name in folders:
            if sequence.video_path is not None:
                raise ValueError(
                    f"{sequence.video_path}: coarse labels are for folders of frames; `msst fuse_labels` has written "
                    "those of this video to OUTPUT_DIR/frames, convert them"
                )
            paths = pair_labels(sequence, folders[sequence.name])
            coarse = {index: paths[index] for index in sorted(paths.keys() - sequence.mask_paths.keys())}
            sequence = dataclasses.replace(sequence, coarse_paths=coarse)
        added.append(sequence)
    return added
