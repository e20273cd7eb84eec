"""Publishing files whole: nothing appears under its final name before it is complete."""

from __future__ import annotations

import contextlib
import hashlib
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
