"""Labels of a dataset's frames that lie elsewhere: LABELS/SEQUENCE/FRAME.png, named after the frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from msst_keras.data import file_names
from msst_keras.data.sequences import FileSequence
from msst_keras.progress import say

_MAX_NAMES = 5  # in a note


def pair_labels(sequence: FileSequence, folder: Path) -> dict[int, tuple[Path, ...]]:
    """Frame index -> the label in `folder` that has the frame's name.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a label without its frame, or two labels of one.
    """
    indices = {file_names.compose(name): index for index, name in enumerate(sequence.frame_names)}
    labels = file_names.by_plain_name(file_names.list_images(folder))
    for name, path in labels.items():
        if name not in indices:
            raise ValueError(f"{path}: a label without its frame; sequence '{sequence.name}' has no '{path.stem}'")
    return {indices[name]: (path,) for name, path in labels.items()}


def find_folders(sequences: Iterable[FileSequence], labels_dir: str | Path) -> dict[str, Path]:
    """The name of a sequence -> the folder of its labels, of the sequences that have one.

    Accents may be spelled otherwise (see `file_names.plain_name`). A note says which folders are of none of the
    sequences, because those may be a part of a dataset.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: there are labels for none of the sequences, or two folders for one.
    """
    names = {file_names.compose(sequence.name): sequence.name for sequence in sequences}
    folders: dict[str, Path] = {}
    strangers = []
    for path in file_names.subfolders(Path(labels_dir)):
        name = names.get(file_names.compose(path.name))
        if name is None:
            strangers.append(path.name)
        elif name in folders:
            raise ValueError(f"{labels_dir}: two folders hold labels of sequence '{name}'; make one of them")
        else:
            folders[name] = path
    if not folders:
        raise ValueError(f"{labels_dir}: no labels of any of the sequences; expected SEQUENCE/FRAME.png")
    if strangers:
        shown = ", ".join(strangers[:_MAX_NAMES]) + ", ..." * (len(strangers) > _MAX_NAMES)
        say(f"{labels_dir}: {len(strangers)} folders are left out that are named after none of the sequences ({shown})")
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
                    f"{folders[sequence.name]}: the dataset has masks of this sequence itself; leave out one of them"
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
