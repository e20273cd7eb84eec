"""The files and folders in a folder of data: which of them count, and which names they may have."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts", ".mts", ".m2ts", ".vob", ".dv",
    ".flv", ".3gp", ".ogv", ".mxf", ".gif", ".h264", ".hevc",
)  # fmt: skip


# Texts and tables that lie beside frames.
_TEXTS = (
    ".txt", ".md", ".csv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".log", ".db", ".ini", ".mat", ".dat",
)  # fmt: skip


# What a NAS, a Mac or Windows puts into every folder, with copies of what lies beside it.
_SYSTEM_FOLDERS = ("@eadir", "#recycle", "__macosx", "$recycle.bin", "system volume information", "lost+found")


# Control characters, line and paragraph separators, what overrides the direction of text, and the halves of characters
# that stand for bytes which are no UTF-8.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def list_videos(root: Path) -> list[Path]:
    """The video files in a folder, or the file itself."""
    if root.is_file():
        check_name(root)
        return [root]
    return [path for path in _visible(root) if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]


def describe_left_out(folder: Path, suffixes: tuple[str, ...]) -> str:
    """A sentence about the files in a folder that are not of these kinds; empty where there is none.

    Texts and tables that lie beside data (notes.txt, README.md) are nobody's frames.
    """
    left = [path for path in _visible(folder) if path.is_file() and path.suffix.lower() not in (*suffixes, *_TEXTS)]
    if not left:
        return ""
    kinds = ", ".join(sorted({path.suffix.lower() or "without suffix" for path in left}))
    return f"{printable(folder)}: {len(left)} files of other kinds are left out ({kinds}), such as {left[0].name}"


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder, sorted by name; files of other kinds and hidden ones (._1.jpg) do not count.

    Raises:
      FileNotFoundError: no such folder, or a link in it that leads nowhere.
      ValueError: something of an image file's name that is no file, or a name that cannot be printed.
    """
    paths = [path for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    for path in paths:
        if not path.is_file():  # left out, it would be a frame that nobody misses
            raise ValueError(f"{path}: expected an image file by its name, found none behind it; rename or remove it")
    return paths


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, hidden ones left out."""
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    paths = sorted(path for path in folder.iterdir() if not _is_system(path))
    for path in paths:
        check_name(path)
        if path.is_symlink() and not os.path.exists(path):  # a loop too
            raise FileNotFoundError(f"{printable(path)}: a link that leads nowhere; mend or remove it")
    return paths


def _is_system(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FOLDERS


def check_name(path: Path) -> None:
    """Raises ValueError if a name has a character that would steer a terminal or break a line, or bytes of no text."""
    if printable(path.name) != path.name:
        raise ValueError(
            f"{printable(path)}: this name holds control characters, or bytes that are no UTF-8; rename it"
        )


def plain_name(path: Path) -> str:
    """The stem of a file, its letters composed: a Mac's file systems take accents apart, others do not."""
    return compose(path.stem)


def compose(name: str) -> str:
    """A name with its letters composed, to compare it with others (see `plain_name`)."""
    return unicodedata.normalize("NFC", name)


def by_plain_name(paths: Iterable[Path]) -> dict[str, Path]:
    """The `plain_name` of each file -> the file.

    Raises:
      ValueError: two files of one name, of which one would have been chosen by chance.
    """
    found: dict[str, Path] = {}
    for path in paths:
        other = found.setdefault(plain_name(path), path)
        if other != path:
            differs = "how their accents are spelled" if other.suffix == path.suffix else "their suffix"
            raise ValueError(
                f"{path}: {other.name} has this name too, and they differ in no more than {differs}; remove one of them"
            )
    return found


def find_named(folder: Path, name: str) -> Path:
    """The entry of a folder that has this name, or else one that has it in other code points (see `plain_name`)."""
    path = folder / name
    if name.isascii() or path.exists() or not folder.is_dir():
        return path
    return next((each for each in folder.iterdir() if compose(each.name) == compose(name)), path)


def printable(text: str | Path) -> str:
    """A name as it is, but for control characters and bytes that are no text, which are escaped.

    Spaces of every kind, joiners and letters of every script stay: systems put them into names by themselves. What
    turns the direction of the text that follows is escaped too.
    """
    return "".join(_escaped(character) if _CONTROL.match(character) else character for character in str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
