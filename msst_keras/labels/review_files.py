"""The files of a review: which labels there are, where each belongs, and the frames as a browser shows them.

LABELS/SEQUENCE/FRAME.png                       the labels as they are now, for every program that reads them
LABELS/.review/original/SEQUENCE/FRAME.png      a label as it was before its first change
LABELS/.review/rejected/SEQUENCE/FRAME.png      the labels that were rejected
LABELS/.review/journal.jsonl                    what was done, in order; decisions are read from it
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from PIL import Image

from msst_keras.data import file_names, images
from msst_keras.labels.label_files import read_order

# About 8K, 7680x4320. A browser holds a dozen bytes a pixel, for several frames at once.
MAX_PIXELS = 2**25
_ORIENTATION = 0x0112  # the EXIF tag; browsers obey it and this program does not (see `data.images`)


class ReviewFiles:
    """The files in the folder of labels.

    Attributes:
      journal_path: the file of the journal.
    """

    def __init__(self, labels_dir: str | Path):
        """Makes the review's own folder in the folder of labels.

        Raises:
          FileNotFoundError: the folder of labels is missing.
        """
        self._root = Path(labels_dir)
        if not self._root.is_dir():
            raise FileNotFoundError(f"{self._root}: no such folder of labels")
        self._own = self._root / ".review"
        self._own.mkdir(exist_ok=True)
        self.journal_path = self._own / "journal.jsonl"

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keeps other processes out, and removes the files that a killed process was writing.

        Raises:
          BlockingIOError: another process reviews this folder.
        """
        descriptor = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"{self._root}: another process is reviewing these labels; use its page or end it first"
                ) from None
            for path in (*self._root.glob("*/.partial-*"), *self._own.glob("*/*/.partial-*")):
                path.unlink()
            yield
        finally:
            os.close(descriptor)

    def find(self, frames: Collection[tuple[str, str]], order: str) -> list[tuple[str, str]]:
        """The (sequence, frame) of each label, rejected ones too, in the order of review, spelled as its file is.

        Args:
          frames: the (sequence, frame) of every frame, as `compose_key` gives it, in order.
          order: see `review.Review`.

        Raises:
          ValueError: there are no labels, a frame has two, or a label has no frame or lies outside the folder.
        """
        rejected = self._own / "rejected"
        folders = [*file_names.subfolders(self._root), *(file_names.subfolders(rejected) if rejected.is_dir() else ())]
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for path in (path for folder in folders for path in file_names.list_images(folder)):
            spelled = (path.parent.name, self._check(path))
            key = compose_key(*spelled)
            if key not in frames:
                raise ValueError(f"{path}: a label without its frame; the frames have no '{key[0]}' with a '{key[1]}'")
            if found.setdefault(key, spelled) != spelled:
                raise ValueError(f"{path}: this frame has another label, whose name is spelled otherwise; remove one")
        if not found:
            raise ValueError(f"{self._root}: no labels here; expected SEQUENCE/FRAME.png")
        doubtful = read_order(self._root) if order == "doubt" else []
        ranks = {compose_key(*names): rank for rank, names in enumerate(doubtful)}
        places = {key: place for place, key in enumerate(frames)}
        return [found[key] for key in sorted(found, key=lambda key: (ranks.get(key, len(ranks)), places[key]))]

    def _check(self, path: Path) -> str:
        """The frame's name, once it is sure that the file is a PNG file and lies in the folder."""
        if path.suffix != ".png":
            raise ValueError(f"{path}: labels are PNG files; convert or remove this one")
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise ValueError(
                f"{path}: this label leads out of the folder, to {path.resolve()}; copy it into the folder"
            )
        return path.stem

    def original(self, sequence: str, frame: str) -> Path:
        """Where a label is kept as it was before its first change."""
        return self._own / "original" / sequence / f"{frame}.png"

    def place(self, sequence: str, frame: str, is_rejected: bool) -> Path:
        """The path where a label belongs; moves it there if it is at the other place.

        Raises:
          ValueError: it is at both places.
        """
        kept, rejected = (folder / sequence / f"{frame}.png" for folder in (self._root, self._own / "rejected"))
        source, target = (kept, rejected) if is_rejected else (rejected, kept)
        if source.exists():
            if target.exists():
                raise ValueError(f"{target}: this label is also at {source}; remove the one that does not count")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        return target


def compose_key(sequence: str, frame: str) -> tuple[str, str]:
    """Sequence and frame as they are compared: accents may be spelled otherwise (see `file_names.plain_name`)."""
    return file_names.compose(sequence), file_names.compose(frame)


def read_frame_size(path: Path) -> tuple[int, int]:
    """(height, width) of a frame.

    Raises:
      ValueError: the frame cannot be read, or is too large to be shown.
    """
    height, width = images.read_image_size(path)
    if height * width > MAX_PIXELS:
        raise ValueError(f"{path}: {height}x{width} pixels, more than the limit of {MAX_PIXELS}; reduce the frame")
    return height, width


def read_for_browser(path: Path) -> tuple[bytes, str]:
    """A frame in a form that a browser shows with the same pixels as were labelled: an encoded image, its media type.

    Raises:
      ValueError: see `read_frame_size`.
    """
    read_frame_size(path)
    encoded = path.read_bytes()
    image = Image.open(io.BytesIO(encoded))
    if images.is_plain(encoded) and image.getexif().get(_ORIENTATION, 1) == 1:
        return encoded, "image/png" if image.format == "PNG" else "image/jpeg"
    return images.encode_jpeg(images.decode_frame(encoded, str(path))), "image/jpeg"
