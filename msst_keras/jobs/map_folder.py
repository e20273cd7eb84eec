"""The folder of a sequence's maps: begun once, held by one process, whole under its name, and true to what made it.

OUTPUT_DIR/.partial-NAME     the maps of NAME as long as they are not all there, and what they are made from
OUTPUT_DIR/NAME              all of them
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from msst_keras.data.frame_numbers import natural_key
from msst_keras.files import DifferentSettingsError, hash_file, remove, sync
from msst_keras.locks import hold_folder, lock
from msst_keras.outputs import MEMORY, Memory

_JOB = "predict"
# In the memory of whole maps the hash of the overlay that was made with them; in that of others the hashes of all that
# were finished for them, for the last one may not have got its name.
_OVERLAY, _OVERLAYS = "overlay", "overlays"


def partial_folder(folder: Path) -> Path:
    """Where the maps are as long as they are not all there."""
    return folder.with_name(f".partial-{folder.name}")


def check_free(folders: Iterable[Path]) -> None:
    """Looks at all folders before the first is worked on.

    Raises:
      BlockingIOError: another process is writing to one of them.
    """
    for folder in map(partial_folder, folders):
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                if not lock(descriptor):
                    raise BlockingIOError(
                        f"{folder}: another process is writing here; let it end first, or choose another --output_dir"
                    )
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def open_map_folder(
    folder: Path, made_from: Mapping, overlay: Path | None, overwrite: bool, is_kept: bool
) -> Iterator[tuple[Path, int, Callable[[Path], None]] | None]:
    """Gives the folder to write maps to; it has its name when the block ends without an error.

    Args:
      folder: OUTPUT_DIR/NAME.
      made_from: see `outputs.Memory`.
      overlay: a video that is made with the maps.
      overwrite: whether maps, or an overlay, that were made from something else are replaced.
      is_kept: whether the maps of a run that was interrupted are kept, so that it goes on behind them.

    Yields:
      (the folder for maps until they are whole, how many of the first are there already, what is to be called with the
      whole overlay just before it gets its name); None when all is there.

    Raises:
      ValueError: there are maps that were made from something else, or files that this job has not made.
      BlockingIOError: another process is writing to the folder.
    """
    partial = partial_folder(folder)
    memory, begun = (Memory(path, _JOB, made_from) for path in (folder, partial))
    if _is_whole(memory, begun, overlay, overwrite):
        yield None
        return
    with hold_folder(partial):
        if _is_whole(memory, begun, overlay, overwrite):  # another process has just made it
            partial.rmdir()
            yield None
            return
        try:
            remembered = begun.compare()
        except DifferentSettingsError:
            if not overwrite:
                raise
            remembered = None
        for path in partial.iterdir():
            if remembered is None or not is_kept or path.name.startswith(".partial-"):  # a map that was being written
                remove(path)
        finished = _list_overlays(remembered)

        def remember(path: Path) -> None:
            """Remembers the overlay, so that the next run knows it, should this one end before its maps are whole."""
            finished.append(hash_file(path))
            begun.write(**{_OVERLAYS: finished})

        begun.write(**{_OVERLAYS: finished})
        yield partial, _count_first(partial), remember
        begun.write(maps=len(_list_maps(partial)), **({_OVERLAY: finished[-1]} if overlay else {}))
        sync(partial)
        if folder.is_dir():
            for path in (*_list_maps(folder), memory.path):
                path.unlink(missing_ok=True)
        os.replace(partial, folder)
        sync(folder)


def _is_whole(memory: Memory, begun: Memory, overlay: Path | None, overwrite: bool) -> bool:
    """Whether all that is to be made is there; raises when what is there must stay."""
    folder = memory.path.parent
    if not folder.exists() or not any(folder.iterdir()):
        _refuse_overlay(overlay, overwrite, (begun,))
        return False
    if not memory.path.is_file():
        memory.refuse_strangers(sorted(path.name for path in folder.iterdir()))
    memory.refuse_strangers(sorted({path.name for path in folder.iterdir()} - {MEMORY} - set(_names(folder))))
    try:
        progress = memory.compare() or {}
    except DifferentSettingsError:
        if not overwrite:
            raise
        return False
    if progress.get("maps") != len(_list_maps(folder)):  # somebody has removed maps: they are made again
        _refuse_overlay(overlay, overwrite, (memory, begun))
        return False
    if overlay and not (overlay.is_file() and progress.get(_OVERLAY) == hash_file(overlay)):
        if not overwrite:
            raise ValueError(
                f"{folder} is there already, without {overlay}; choose another --output_dir, give --overlay=none, or "
                "--overwrite to make both anew"
            )
        return False
    return True


def _refuse_overlay(overlay: Path | None, overwrite: bool, memories: Iterable[Memory]) -> None:
    """Raises ValueError when there is a file in place of the overlay that none of the memories knows."""
    if overlay and overlay.exists() and not overwrite and not _is_known(overlay, memories):
        raise ValueError(
            f"{overlay} is there already, and nothing says that it was made with these maps; give another name, or "
            "--overwrite to replace it"
        )


def _is_known(overlay: Path, memories: Iterable[Memory]) -> bool:
    """Whether an earlier run of the same settings made this file."""
    known = []
    for memory in memories:
        with contextlib.suppress(DifferentSettingsError):
            known += _list_overlays(memory.compare())
    return overlay.is_file() and hash_file(overlay) in known


def _list_overlays(progress: Mapping | None) -> list[str]:
    """The hashes of the overlays that a memory knows."""
    progress = progress or {}
    return [*progress.get(_OVERLAYS, ()), *([progress[_OVERLAY]] if _OVERLAY in progress else [])]


def _list_maps(folder: Path) -> list[Path]:
    """The maps in the order of their frames."""
    return sorted(folder.glob("[!.]*.png"), key=natural_key)


def _names(folder: Path) -> list[str]:
    return [path.name for path in _list_maps(folder)]


def _count_first(partial: Path) -> int:
    """How many maps are there, of a folder whose maps are written in order."""
    return sum(1 for _ in itertools.takewhile(lambda path: path.stat().st_size, _list_maps(partial)))
