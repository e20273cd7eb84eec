"""The review of a folder of labels: what a person decides and erases is kept on the disk at each step.

A label is replaced by renaming a complete file over it, so no program ever sees half a label, even if this one is
killed. `review_files` says which files there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from msst_keras.data.sequences import FileSequence
from msst_keras.labels.journal import Journal
from msst_keras.labels.label_files import read_label, write_label
from msst_keras.labels.review_files import ReviewFiles, compose_key, read_for_browser, read_frame_size

DECISIONS = ("accept", "reject", "reopen")


class LabelChanged(ValueError):
    """Raised for a change that was made to another version of a label than the one on the disk."""


@dataclasses.dataclass
class Item:
    """A frame with a label.

    Attributes:
      sequence: name of its sequence, spelled as the folder of the label is.
      frame: name of the frame, spelled as the label's file is.
      frame_path: its image file.
      decision: "accept", "reject", or "reopen" if there is none.
    """

    sequence: str
    frame: str
    frame_path: Path
    decision: str = "reopen"

    @property
    def key(self) -> tuple[str, str]:
        """Sequence and frame."""
        return self.sequence, self.frame


class Review:
    """A review, which only one process at a time has open.

    Attributes:
      items: the frames, in the order of review.
    """

    def __init__(self, labels_dir: str | Path, sequences: Iterable[FileSequence], order: str = "doubt"):
        """Opens the folder and goes on where an earlier review stopped.

        Args:
          labels_dir: the labels.
          sequences: the frames, as image files; each label's frame must be among them.
          order: "doubt", the order of the folder's table (of `msst fuse_labels`, the most doubtful first), or
            "sequence", that of the frames.

        Raises:
          BlockingIOError: another process reviews this folder.
          FileNotFoundError: the folder is missing.
          ValueError: there are no labels, a frame has two, or a label has no frame or lies outside the folder.
        """
        self._files = ReviewFiles(labels_dir)
        with contextlib.ExitStack() as resources:
            resources.enter_context(self._files.hold())
            frames = _find_frames(sequences)
            self.items = [Item(*names, frames[compose_key(*names)]) for names in self._files.find(frames, order)]
            self._journal = resources.enter_context(contextlib.closing(Journal(self._files.journal_path)))
            self._replay()
            self._resources = resources.pop_all()

    def _replay(self) -> None:
        """Takes the decisions from the journal and moves the files to where they belong."""
        self._indices = {compose_key(*item.key): index for index, item in enumerate(self.items)}
        for entry in self._journal.entries:
            index = self._indices.get(compose_key(entry["sequence"], entry["frame"]))
            if index is not None and entry["action"] in DECISIONS:
                self.items[index].decision = entry["action"]
        for item in self.items:
            self._place(item)  # a kill may have come between the journal's line and the file

    def _place(self, item: Item) -> Path:
        return self._files.place(*item.key, is_rejected=item.decision == "reject")

    def find_position(self) -> int:
        """Where the review stopped: the frame that was touched last or, if that is decided, the next open one."""
        touched = (compose_key(entry["sequence"], entry["frame"]) for entry in reversed(self._journal.entries))
        last = next((self._indices[key] for key in touched if key in self._indices), 0)
        order = (*range(last, len(self.items)), *range(last))
        return next((index for index in order if self.items[index].decision == "reopen"), last)

    def read_frame(self, index: int) -> tuple[bytes, str]:
        """The frame as a browser shows it: see `review_files.read_for_browser`."""
        return read_for_browser(self.items[index].frame_path)

    def read_labels(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """A frame's label and its original, bool (H, W).

        Raises:
          ValueError: the label cannot be read, or its size is not its frame's.
        """
        item = self.items[index]
        size, path, original = read_frame_size(item.frame_path), self._place(item), self._files.original(*item.key)
        label = read_label(path)
        before = read_label(original) if original.exists() else label
        for name, found in ((path, label.shape), (original, before.shape)):
            if found != size:
                raise ValueError(f"{name}: this label is {found[0]}x{found[1]}, its frame {size[0]}x{size[1]}")
        return label, before

    def save(self, index: int, label: np.ndarray, base: str | None = None) -> str:
        """Replaces a frame's label; its original is kept. Returns the version of the new label.

        Args:
          index: the frame's place in `items`.
          label: bool (H, W).
          base: the version that the change was made on, or None for whatever there is.

        Raises:
          LabelChanged: the label on the disk is another version.
          ValueError: the label has another size than its frame.
        """
        current, _ = self.read_labels(index)
        if label.shape != current.shape:
            raise ValueError(f"expected a label {current.shape}, not {label.shape}")
        if np.array_equal(current, label):  # sent again because the answer was lost
            return version_of(label)
        if base is not None and base != version_of(current):
            raise LabelChanged("this label has changed on the disk since it was shown; it is shown again as it is now")
        item = self.items[index]
        original = self._files.original(*item.key)
        if not original.exists():
            write_label(original, current)
        write_label(self._place(item), label)
        self._journal.add("edit", *item.key)
        return version_of(label)

    def decide(self, index: int, decision: str) -> None:
        """Accepts or rejects a frame's label, or takes the decision back ("reopen").

        Raises:
          ValueError: the decision is unknown.
        """
        if decision not in DECISIONS:
            raise ValueError(f"a decision is one of {', '.join(DECISIONS)}, not '{decision}'")
        item = self.items[index]
        if item.decision != decision:
            self._journal.add(decision, *item.key)
            item.decision = decision
            self._place(item)

    def close(self) -> None:
        """Lets other processes review the folder."""
        self._resources.close()


def _find_frames(sequences: Iterable[FileSequence]) -> dict[tuple[str, str], Path]:
    """(sequence, frame), as `compose_key` gives it -> the frame's file, in order; ValueError for two of one name."""
    frames: dict[tuple[str, str], Path] = {}
    for sequence in sequences:
        for path in sequence.frame_paths:
            other = frames.setdefault(compose_key(sequence.name, path.stem), path)
            if other != path:
                raise ValueError(f"{path}: called as {other} is, accents spelled otherwise; rename one of them")
    return frames


def version_of(label: np.ndarray) -> str:
    """A short hash of a label's pixels, by which two versions of a label are told apart."""
    return hashlib.sha256(np.packbits(label).tobytes()).hexdigest()[:16]
