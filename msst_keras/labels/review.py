"""The review of a folder of labels: what a person decides and erases, kept on the disk at each step.

  LABELS/SEQUENCE/FRAME.png                       the labels as they are now: all in here count, whoever reads them
  LABELS/.review/original/SEQUENCE/FRAME.png      a label as it was before its first change
  LABELS/.review/rejected/SEQUENCE/FRAME.png      the labels that were rejected
  LABELS/.review/journal.jsonl                    what was done, in order; decisions are read from it

A label is replaced by renaming a whole file over it, so no program ever sees a half of one, whenever this one dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from msst_keras.data import images, layouts
from msst_keras.data.datasets import Sequence
from msst_keras.labels.journal import Journal
from msst_keras.labels.label_files import read_label, read_order, write_label


class LabelChanged(ValueError):
    """A change that was made on another version of a label than the one on the disk."""


DECISIONS = ("accept", "reject", "reopen")
# 8K, 7680x4320. A browser holds a dozen bytes a pixel, and several frames.
MAX_PIXELS = 2**25
_ORIENTATION = 0x0112  # the EXIF tag that browsers obey and this program does not (see `data.images`)


@dataclasses.dataclass
class Item:
    """A frame with a label.

    Attributes:
      sequence: its sequence.
      frame: its name.
      frame_path: its image file.
      decision: "accept", "reject" or "reopen", which is none.
    """

    sequence: str
    frame: str
    frame_path: Path
    decision: str = "reopen"


class Review:
    """A review, which only one process at a time has open.

    Attributes:
      items: the frames, in the order of review.
    """

    def __init__(self, labels_dir: str | Path, sequences: Iterable[Sequence], order: str = "doubt"):
        """Opens the folder and goes on where an earlier review stopped.

        Args:
          labels_dir: the labels.
          sequences: the frames: those that a label is of must be among them, as image files.
          order: "doubt", the order of the folder's table (`msst fuse_labels`: most doubtful first), or "sequence".

        Raises:
          BlockingIOError: another process reviews this folder.
          FileNotFoundError: no such folder.
          ValueError: no labels, a label without its frame, or one that lies outside the folder.
        """
        self._root = Path(labels_dir)
        if not self._root.is_dir():
            raise FileNotFoundError(f"{self._root}: no such folder of labels")
        self._own = self._root / ".review"
        self._own.mkdir(exist_ok=True)
        with contextlib.ExitStack() as resources:
            resources.callback(os.close, _lock(self._own / "lock"))
            for path in (*self._root.glob("*/.partial-*"), *self._own.glob("*/*/.partial-*")):
                path.unlink()  # what a killed review was writing
            frames = {(s.name, path.stem): path for s in sequences for path in s.frame_paths}
            self.items = [Item(*key, frames[key]) for key in self._find_labels(frames, order)]
            self._journal = resources.enter_context(contextlib.closing(Journal(self._own / "journal.jsonl")))
            self._replay()
            self._resources = resources.pop_all()

    def _find_labels(self, frames: dict, order: str) -> list[tuple[str, str]]:
        found = []
        for folder in layouts.subfolders(self._root):
            found += [(folder.name, self._check(path)) for path in layouts.list_images(folder)]
        rejected = self._own / "rejected"
        for folder in layouts.subfolders(rejected) if rejected.is_dir() else ():
            found += [(folder.name, self._check(path)) for path in layouts.list_images(folder)]
        if not found:
            raise ValueError(f"{self._root}: no labels here; expected SEQUENCE/FRAME.png")
        for sequence, frame in found:
            if (sequence, frame) not in frames:
                raise ValueError(
                    f"{self._root / sequence / frame}.png: a label without its frame; the frames have no '{sequence}' "
                    f"with a '{frame}'"
                )
        ranks = {key: rank for rank, key in enumerate(read_order(self._root))} if order == "doubt" else {}
        return sorted(dict.fromkeys(found), key=lambda key: (ranks.get(key, len(ranks)), key))

    def _check(self, path: Path) -> str:
        """The frame's name, of a label file that is one and lies in the folder."""
        if path.suffix != ".png":
            raise ValueError(f"{path}: labels are PNG files; convert or remove this one")
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise ValueError(
                f"{path}: this label leads out of the folder, to {path.resolve()}; copy it into the folder"
            )
        return path.stem

    def _replay(self) -> None:
        """Takes the decisions from the journal and brings the files to where they belong."""
        self._indices = {(item.sequence, item.frame): index for index, item in enumerate(self.items)}
        for entry in self._journal.entries:
            index = self._indices.get((entry["sequence"], entry["frame"]))
            if index is not None and entry["action"] in DECISIONS:
                self.items[index].decision = entry["action"]
        for index in range(len(self.items)):
            self._move(index)  # a kill may have come between the journal's line and the file

    def find_position(self) -> int:
        """Where the review stopped: the frame that was touched last or, if that is decided, the next open one."""
        touched = ((entry["sequence"], entry["frame"]) for entry in reversed(self._journal.entries))
        last = next((self._indices[key] for key in touched if key in self._indices), 0)
        order = (*range(last, len(self.items)), *range(last))
        return next((index for index in order if self.items[index].decision == "reopen"), last)

    def _paths(self, index: int) -> tuple[Path, Path, Path]:
        """The label in the folder, the same when rejected, and its original."""
        name = Path(self.items[index].sequence) / f"{self.items[index].frame}.png"
        return self._root / name, self._own / "rejected" / name, self._own / "original" / name

    def _move(self, index: int) -> Path:
        """Brings a label's file to where its decision wants it, and returns its path."""
        kept, rejected, _ = self._paths(index)
        source, target = (kept, rejected) if self.items[index].decision == "reject" else (rejected, kept)
        if source.exists():
            if target.exists():
                raise ValueError(f"{target}: this label is also at {source}; remove the one that does not count")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        return target

    def read_frame(self, index: int) -> tuple[bytes, str]:
        """The frame as a browser shows it pixel for pixel as it is labelled: an encoded image and its media type.

        Raises:
          ValueError: an unreadable frame, or one too large.
        """
        path = self.items[index].frame_path
        self._check_size(index)
        encoded = path.read_bytes()
        image = Image.open(io.BytesIO(encoded))
        if images.is_plain(encoded) and image.getexif().get(_ORIENTATION, 1) == 1:
            return encoded, "image/png" if image.format == "PNG" else "image/jpeg"
        return images.encode_jpeg(images.decode_frame(encoded, str(path))), "image/jpeg"

    def _check_size(self, index: int) -> tuple[int, int]:
        path = self.items[index].frame_path
        height, width = images.read_image_size(path)
        if height * width > MAX_PIXELS:
            raise ValueError(f"{path}: {height}x{width} pixels, more than the limit of {MAX_PIXELS}; reduce the frame")
        return height, width

    def read_labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A frame's label and its original, bool (H, W).

        Raises:
          ValueError: an unreadable label, or one of another size than its frame.
        """
        size = self._check_size(index)
        kept, rejected, original = self._paths(index)
        path = rejected if self.items[index].decision == "reject" else kept
        label = read_label(path)
        before = read_label(original) if original.exists() else label
        for name, found in ((path, label.shape), (original, before.shape)):
            if found != size:
                raise ValueError(f"{name}: this label is {found[0]}x{found[1]}, its frame {size[0]}x{size[1]}")
        return label, before

    def is_edited(self, index: int) -> bool:
        """Whether the label was ever changed."""
        return self._paths(index)[2].exists()

    def save(self, index: int, label: np.ndarray, base: str | None = None) -> str:
        """Replaces a frame's label; its original is kept. Returns the version of the new label.

        Args:
          index: of the frame.
          label: bool (H, W).
          base: the version that the change was made on, or None for whatever there is.

        Raises:
          LabelChanged: the label on the disk is another version.
          ValueError: another size.
        """
        current, _ = self.read_labels(index)
        if label.shape != current.shape:
            raise ValueError(f"expected a label {current.shape}, not {label.shape}")
        if np.array_equal(current, label):  # sent again because the answer was lost
            return version_of(label)
        if base is not None and base != version_of(current):
            raise LabelChanged("this label has changed on the disk since it was shown; it is shown again as it is now")
        kept, rejected, original = self._paths(index)
        if not original.exists():
            write_label(original, current)
        item = self.items[index]
        write_label(rejected if item.decision == "reject" else kept, label)
        self._journal.add("edit", item.sequence, item.frame)
        return version_of(label)

    def decide(self, index: int, decision: str) -> None:
        """Accepts or rejects a frame's label, or takes the decision back ("reopen").

        Raises:
          ValueError: another decision.
        """
        if decision not in DECISIONS:
            raise ValueError(f"a decision is one of {', '.join(DECISIONS)}, not '{decision}'")
        item = self.items[index]
        if item.decision != decision:
            self._journal.add(decision, item.sequence, item.frame)
            item.decision = decision
            self._move(index)

    def close(self) -> None:
        """Gives the folder free."""
        self._resources.close()


def version_of(label: np.ndarray) -> str:
    """A name for a label's content."""
    return hashlib.sha256(np.packbits(label).tobytes()).hexdigest()[:16]


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BlockingIOError(
            f"{path.parent.parent}: another process is reviewing these labels; use its page or end it first"
        ) from None
    return descriptor
