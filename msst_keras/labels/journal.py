"""The journal of a review: a line of JSON for each change, on the disk before the change is acknowledged."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any


class Journal:
    """A file of lines that only grows. Opening it removes a last line that a killed program has not finished."""

    def __init__(self, path: Path):
        """Opens the journal, or makes it.

        Raises:
          ValueError: a line is not an entry of a review.
        """
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        self.entries: list[dict[str, Any]] = [
            _read(line, number, path) for number, line in enumerate(whole.splitlines(), 1)
        ]
        self._file = open(path, "ab", buffering=0)
        self._file.truncate(len(whole))

    def add(self, action: str, sequence: str, frame: str) -> None:
        """Adds a line, with the time in seconds since 1970.

        Raises:
          OSError: the line cannot be written, for example because the disk is full; nothing of it is left then.
        """
        entry = {"time": round(time.time(), 3), "action": action, "sequence": sequence, "frame": frame}
        line, end = json.dumps(entry).encode() + b"\n", self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) < len(line):  # a disk that becomes full takes a part, and only then fails
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)
            raise
        self.entries.append(entry)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _read(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        if {"action", "sequence", "frame"} <= entry.keys():
            return entry
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"{path}: line {number} is no entry of a review; mend or remove that line")
