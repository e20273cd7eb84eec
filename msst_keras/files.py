"""Publishing files whole, and folders that remember what they are made with.

Nothing appears under its final name before it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def publish(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary sibling of `path` to write a file or a folder to, and renames it to `path` on success.

    The temporary name starts with a dot and ends with the same suffixes (so that writers that look at the suffix work).
    On failure it is removed and `path` is as it was. An existing file is replaced; an existing folder is an error.

    Raises:
      FileExistsError: when a folder was written and `path` is a folder that is not empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{path.name}")
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir() and any(path.iterdir()):
            raise FileExistsError(f"{path} exists already and is not empty; choose another folder or remove it")
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DifferentSettingsError(ValueError):
    """A folder remembers other settings than those it is to be continued with.

    Attributes:
      keys: the names of the settings that differ, in the order of the new ones.
      found: the settings that the folder remembers.
    """

    def __init__(self, path: Path, keys: list[str], found: dict):
        super().__init__(f"{path} says {', '.join(f'{key} {found.get(key)}' for key in keys)}; choose another folder")
        self.keys, self.found = keys, found


def remember(path: str | Path, settings: dict, indent: int | None = None) -> None:
    """Makes a folder remember what it is made with: writes `settings` as JSON, or compares them with what is there.

    Args:
      path: the JSON file inside the folder.
      settings: what the folder is made with, as JSON values or tuples of them.
      indent: of the JSON file; None for one line.

    Raises:
      DifferentSettingsError: the file is there and holds other settings.
      ValueError: the file is damaged.
    """
    path, settings = Path(path), json.loads(json.dumps(settings))
    if not path.exists():
        with publish(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=indent) + ("\n" if indent else ""))
        return
    try:
        found = dict(json.loads(path.read_text()))
        names = [*settings, *(key for key in found if key not in settings)]
        differing = [key for key in names if key not in found or key not in settings or found[key] != settings[key]]
    except (ValueError, RecursionError, TypeError) as error:  # TypeError: a number
        raise ValueError(f"{path}: damaged ({error}); remove the folder or choose another") from error
    if differing:
        raise DifferentSettingsError(path, differing, found)
