"""Flagfiles: files whose lines stand for flags, in the encodings that editors of every system write.

A file begins with a byte order mark or is UTF-8. Lines that are empty, or begin with # or //, are remarks.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable
from pathlib import Path

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def expand_flagfiles(arguments: Iterable[str], within: tuple[Path, ...] = ()) -> list[str]:
    """Puts the lines of flagfiles in place of their names, those of the flagfiles that these name too.

    Args:
      arguments: flags, of which --flagfile=FILE or --flagfile FILE names one. Behind "--" there are no flags.
      within: the flagfiles that these arguments come from.

    Raises:
      ValueError: a file is no text, or names itself, or the name is missing.
      OSError: a file cannot be read.
    """
    expanded, rest = [], iter(arguments)
    for argument in rest:
        match = re.fullmatch("--?flagfile(?:=(.*))?", argument, re.DOTALL)
        if not match:
            expanded.append(argument)
            if argument == "--":
                return [*expanded, *rest]
            continue
        name = match[1] if match[1] is not None else next(rest, "")
        if not name.strip():
            raise ValueError("--flagfile wants the name of a file")
        expanded += read_flagfile(name, within)
    return expanded


def read_flagfile(name: str | Path, within: tuple[Path, ...] = ()) -> list[str]:
    """The flags of a file and of those that it names.

    Raises:
      ValueError, OSError: see `expand_flagfiles`.
    """
    path = Path(os.path.expanduser(name))
    if path.resolve() in within:
        raise ValueError(f"{path}: this flagfile names itself, by itself or by way of another; take that line out")
    content = path.read_bytes()
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected a text in UTF-8, or one with a byte order mark, found {error.reason} at byte "
            f"{error.start}; save it as UTF-8"
        ) from error
    lines = [line.strip(" \t") for line in re.split("\r\n|\r|\n", text)]
    flags = [line for line in lines if line and not line.startswith(("#", "//"))]
    return expand_flagfiles(flags, (*within, path.resolve()))
