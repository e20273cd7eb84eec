"""Publishing files whole, reading what they say, and folders that remember what they are made from.

Nothing appears under its final name before it is complete and on the disk. Every error of a file names the file.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

# What a spreadsheet would compute, with the apostrophes that a text itself may have before it.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


@contextlib.contextmanager
def publish(path: str | os.PathLike, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary sibling of `path` to write a file or a folder to, and renames it to `path` on success.

    The temporary name starts with a dot and ends with the same suffixes (so that writers that look at the suffix work).
    What was written is on the disk before it has its name: after a power cut there is the old file or the new one. On
    failure the temporary is removed and `path` is as it was; one that a killed process of this machine has left in the
    same folder is removed, too. An existing file is replaced; an existing folder is an error.

    Args:
      path: the final name.
      durable: False for one of many files of a folder that is brought to the disk as a whole (`sync`), which takes as
        long as one file: a disk may need 50 ms for each.

    Raises:
      FileExistsError: when a folder was written and `path` is a folder that is not empty.
      OSError: it cannot be written, as on a full disk; `filename` is `path`.
    """
    path = Path(path)
    temporary = path.with_name(f"{_partial_prefix()}{os.getpid()}-{path.name}")
    with name_errors(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    try:
        with name_errors(path, temporary):
            yield temporary
            if temporary.is_dir() and path.is_dir() and any(path.iterdir()):
                raise FileExistsError(f"{path} exists already and is not empty; choose another folder or remove it")
            if durable:
                sync(temporary)
            os.replace(temporary, path)
            if durable:
                _sync_one(path.parent)
    finally:
        remove(temporary)


@contextlib.contextmanager
def name_errors(path: Path, temporary: Path) -> Iterator[None]:
    """Makes errors of writing in this block name `path`, which the user knows, be they Python's or TensorFlow's.

    Raises:
      OSError: with `path` as its file.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename is not None and str(temporary) not in str(error.filename)):
            raise
        name = str(path) if error.filename is None else str(error.filename).replace(str(temporary), str(path))
        raise OSError(error.errno, error.strerror, name) from error
    except Exception as error:
        # TensorFlow's errors are no OSErrors, and one about this file has its temporary name in the message.
        message = getattr(error, "message", None)
        if not isinstance(message, str) or str(temporary) not in message:
            raise
        if tells_of_full_disk(message):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise OSError(f"{path}: {message.splitlines()[0].replace(str(temporary), str(path))}") from error


def tells_of_full_disk(message: str) -> bool:
    """Whether an error of TensorFlow, which has no number for that, is one of a full disk."""
    return os.strerror(errno.ENOSPC) in message


def check_writable(path: str | os.PathLike) -> None:
    """Proves, before hours of work, that a file can be published under this name.

    Raises:
      OSError: it cannot; names `path`. IsADirectoryError: it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; a file is to be written here, name one")
    probe = path.with_name(f"{_partial_prefix()}{os.getpid()}-{path.name}")
    with name_errors(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with name_errors(path, probe):
            probe.write_bytes(b"0")
    finally:
        with contextlib.suppress(OSError):
            remove(probe)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(NotADirectoryError):
            path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Brings a file, or a folder with all that is in it, to the disk."""
    if not path.is_dir():
        _sync_one(path)
    elif sum(len(names) + 1 for _, _, names in os.walk(path)) > 20:
        os.sync()  # all at once
    else:
        for folder, _, names in os.walk(path):
            for name in (*names, "."):
                _sync_one(Path(folder) / name)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


_NO_SYNC = (22, 95)  # EINVAL and EOPNOTSUPP: file systems that do not know it, or not of folders


def _partial_prefix() -> str:
    return f".partial-{socket.gethostname()}-"


@functools.cache  # once a folder and process: a folder of maps is published to a thousand times
def _sweep(folder: Path) -> None:
    """Removes from a folder the temporary files of processes of this machine that are gone."""
    pattern = re.compile(re.escape(_partial_prefix()) + r"(\d+)-.")
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = pattern.match(path.name)
            if match and int(match[1]) != os.getpid() and not _is_alive(int(match[1])):
                remove(path)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def hash_file(path: str | Path) -> str:
    """The SHA-256 of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Mapping[str, str | Path] | Iterable[str | Path]) -> str:
    """One SHA-256 of several files' names and contents; of other places the same files give the same.

    Args:
      paths: the files by the names that count, or files whose own names count.
    """
    named = paths.items() if isinstance(paths, Mapping) else ((Path(path).name, path) for path in paths)
    digest = hashlib.sha256()
    for name, path in named:
        digest.update(json.dumps([name, hash_file(path)]).encode())
    return digest.hexdigest()


def hash_folder(folder: str | Path) -> str:
    """One SHA-256 of all files below a folder and of their names, wherever the folder lies; links are followed."""
    return hash_files({path.relative_to(folder).as_posix(): path for path in sorted(_walk(Path(folder)))})


def _walk(folder: Path) -> Iterator[Path]:
    """The files below a folder, also by links to folders, but for links to a folder above them, which have no end."""
    above: dict[str, frozenset[tuple[int, int]]] = {str(folder): frozenset()}
    for place, names, files in os.walk(str(folder), followlinks=True):
        passed = above.pop(place) | {_identify(place)}
        names[:] = [name for name in names if _identify(os.path.join(place, name)) not in passed]
        above |= {os.path.join(place, name): passed for name in names}
        yield from (path for path in (Path(place, name) for name in files) if path.is_file())


def _identify(folder: str) -> tuple[int, int]:
    """The device and inode of a folder, which are one for all names that lead to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def read_json(path: str | Path, mend: str) -> dict:
    """The object that a JSON file holds.

    Args:
      path: the file.
      mend: what is to be done when it is damaged, the end of the sentence.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is no UTF-8, no JSON, or holds something other than an object; names `path`.
    """
    try:
        parsed = json.loads(Path(path).read_bytes().decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path}: damaged ({error}); {mend}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: damaged (expected a JSON object, found {type(parsed).__name__}); {mend}")
    return parsed


def write_json(path: str | Path, content: Mapping, indent: int | None = 1) -> None:
    """Publishes an object as JSON; see `publish`."""
    with publish(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent) + ("\n" if indent else ""))


class DifferentSettingsError(ValueError):
    """A folder remembers other settings than those it is to be continued with.

    Attributes:
      keys: the names of the settings that differ, in the order of the new ones.
      found: the settings that the folder remembers.
      difference: how they differ, in words for a sentence.
    """

    def __init__(self, path: Path, settings: Mapping, found: Mapping):
        names = [*settings, *(key for key in found if key not in settings)]
        self.keys = [key for key in names if (key in found, found.get(key)) != (key in settings, settings.get(key))]
        self.found = found
        self.difference = ", ".join(_word_difference(key, found.get(key), settings.get(key)) for key in self.keys)
        super().__init__(f"{path} says {self.difference}; choose another folder")


def _word_difference(key: str, found: object, wanted: object) -> str:
    if any(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in (found, wanted)):
        return f"{'other' if key.endswith('s') else 'another'} {key}"  # a hash tells nobody anything
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [name for name in (*wanted, *(name for name in found if name not in wanted))
                if found.get(name) != wanted.get(name)]  # fmt: skip
        return ", ".join(_word_difference(f"{key} {name}", found.get(name), wanted.get(name)) for name in keys)
    said = [str("none" if value is None else value)[:80] for value in (found, wanted)]
    return f"{key} {said[0]} (now {said[1]})"


def compare_settings(path: str | Path, settings: Mapping, found: Mapping) -> None:
    """Compares settings with those that were found in a file.

    Raises:
      DifferentSettingsError: they differ.
    """
    settings = json.loads(json.dumps(settings))
    if settings != found:
        raise DifferentSettingsError(Path(path), settings, found)


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
    if not Path(path).exists():
        write_json(path, settings, indent)
        return
    compare_settings(path, settings, read_json(path, "remove the folder or choose another"))


def guard_cell(text: str) -> str:
    """A text as a cell of a CSV file that a spreadsheet shows and never computes; `read_cell` gives the text back.

    Spreadsheets take a cell that begins with = + - @, a tab or a carriage return for a formula, which may start
    programs and open addresses, and a file's name may begin so. With an apostrophe before it, it is text to them.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def read_cell(cell: str) -> str:
    """The text of a cell that `guard_cell` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
