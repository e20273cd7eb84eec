"""One process at a time writes to a folder.

The lock lies on the folder itself (flock): nothing is left in it, and the lock is gone when the last process that has
it is, however it ended. Processes that a holder starts inherit it (see `processes.start_python`), so that a job that is
started again waits for the orphans of the killed one to be gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_ORPHANS_SECONDS = 15  # a child that is importing TensorFlow notices its parent's end a little later
_held: list[int] = []


@contextlib.contextmanager
def hold_folder(folder: str | Path) -> Iterator[int]:
    """Makes the folder and keeps other processes from holding it; yields the lock, a file descriptor.

    On a file system without locks nothing is kept from anything.

    Raises:
      BlockingIOError: another process has held it for some time now.
    """
    folder = Path(folder)
    deadline = time.monotonic() + _ORPHANS_SECONDS
    descriptor = _try(folder)
    while descriptor is None:
        if time.monotonic() > deadline:
            raise BlockingIOError(
                f"{folder}: another process is writing here; let it end first, or choose another folder"
            )
        time.sleep(0.05)
        descriptor = _try(folder)
    _held.append(descriptor)
    try:
        yield descriptor
    finally:
        _held.remove(descriptor)
        os.close(descriptor)


def held_locks() -> tuple[int, ...]:
    """The locks that this process holds, for its children."""
    return tuple(_held)


def _try(folder: Path) -> int | None:
    """The folder's lock, or None when another process has it, or has moved the folder away meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if lock(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            descriptor, mine = -1, descriptor
            return mine
    except FileNotFoundError:
        pass
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return None


def lock(descriptor: int) -> bool:
    """Whether no other process has the lock; this one then has it, if the file system knows locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
