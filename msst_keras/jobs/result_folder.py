"""The folder of an evaluation's results: true to the maps, masks and options that it was made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

from msst_keras.evaluation.map_reader import MapReader
from msst_keras.evaluation.options import EvaluateOptions
from msst_keras.evaluation.report import metrics_path
from msst_keras.files import DifferentSettingsError, hash_files, read_json, remove
from msst_keras.options import remembered_values
from msst_keras.outputs import MEMORY, Memory

_OURS = ("metrics*.json", "metrics*.csv", "frames*.csv", "report.html", "figures")
_MEND = "give --overwrite to score again"


@dataclasses.dataclass
class Results:
    """What is there of the results.

    Attributes:
      memory: what they were made from.
      folders: protocol -> its folder.
      stems: method -> what stands in the names of its files.
      is_done: whether all was made from the same, to its end.
    """

    memory: Memory
    folders: Mapping[str, Path]
    stems: Mapping[str, str]
    is_done: bool

    def read(self) -> dict[tuple[str, str], dict] | None:
        """(method, protocol) -> the content of metrics.json, where all is there."""
        paths = {
            (method, protocol): metrics_path(folder, stem)
            for protocol, folder in self.folders.items()
            for method, stem in self.stems.items()
        }
        if not self.is_done or not all(path.is_file() for path in paths.values()):
            return None
        return {key: read_json(path, _MEND) for key, path in paths.items()}

    def begin(self) -> None:
        """Says whose the files are that are going to appear; what was made from something else goes."""
        for path in _list_ours(self.memory.path.parent, self.folders):
            if not path.name.startswith(".partial-"):  # those are being written
                remove(path)
        self.memory.write()

    def finish(self) -> None:
        """Says that all is there, and what."""
        root = self.memory.path.parent
        self.memory.write(files=sorted(_list_files(root, self.folders)))


def open_results(
    options: EvaluateOptions, reader: MapReader, folders: Mapping[str, Path], stems: Mapping[str, str]
) -> Results:
    """Compares what the folder says with what is to be scored.

    Raises:
      ValueError: it was made from something else, or holds files of these names and says nothing of them.
    """
    root = Path(options.output_dir)
    memory = Memory(root, "evaluate", _describe(options, reader))
    try:
        progress = memory.compare()
        if progress is None:
            memory.refuse_strangers(sorted(path.name for path in _list_ours(root, folders)))
    except DifferentSettingsError:
        if not options.overwrite:
            raise
        progress = None
    files = (progress or {}).get("files")
    is_done = files is not None and set(files) <= set(_list_files(root, folders))
    return Results(memory, folders, stems, is_done)


def _describe(options: EvaluateOptions, reader: MapReader) -> dict:
    """All that the results depend on."""
    masks: dict[str, Path] = {}
    frames: dict[str, Path] = {}
    for name, sequence in reader.sequences.items():
        for index, paths in sequence.mask_paths.items():
            masks |= {f"{name}/{index}/{number}": path for number, path in enumerate(paths)}
        frames |= {f"{name}/{path.name}": path for path in sequence.frame_paths}
    made_from = {"masks": hash_files(masks), "frames": hash_files(frames)}
    for method in reader.folders:
        maps = {
            f"{name}/{frame}": Path(reader.describe(method, name, frame))
            for name, sequence in reader.sequences.items()
            for frame in sequence.frame_names
        }
        made_from[f"maps of {method}"] = hash_files({name: path for name, path in maps.items() if path.is_file()})
    return made_from | remembered_values(options)


def _list_ours(root: Path, folders: Mapping[str, Path]) -> Iterator[Path]:
    for folder in {root, *folders.values()}:
        for pattern in _OURS:
            yield from folder.glob(pattern)


def _list_files(root: Path, folders: Mapping[str, Path]) -> Iterator[str]:
    for path in _list_ours(root, folders):
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file() and file.name != MEMORY:
                yield file.relative_to(root).as_posix()
