"""Scores saliency maps against masks under named protocols; `msst evaluate`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from msst_keras.data import datasets
from msst_keras.data.layouts import DAVIS_SPLITS
from msst_keras.evaluation.evaluator import to_levels
from msst_keras.evaluation.figures import Method
from msst_keras.evaluation.html_report import write_report
from msst_keras.evaluation.map_reader import MapReader, forget_files
from msst_keras.evaluation.options import FLAT, EvaluateOptions, check_method_names
from msst_keras.evaluation.protocols import PROTOCOLS, Protocol
from msst_keras.evaluation.published import PublishedRow, published_rows
from msst_keras.evaluation.report import format_published, format_table, read_frames, write_frames, write_results
from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE
from msst_keras.evaluation.scoring import Part, make_parts, score_methods
from msst_keras.jobs import result_folder
from msst_keras.locks import hold_folder
from msst_keras.outputs import check_apart
from msst_keras.processes import count_cores


def evaluate(options: EvaluateOptions) -> dict[tuple[str, str], dict]:
    """Checks that maps and masks belong together, scores all methods in one pass, writes and prints.

    Returns:
      (method, protocol) -> the content of its metrics.json, what `Evaluator.result` gives. The user's own maps are the
      method `options.name`.

    Raises:
      ValueError, FileNotFoundError: maps, masks and options that do not fit each other.
      OSError: a worker died, or a result could not be written.
    """
    forget_files()
    names = options.protocols
    protocols = [PROTOCOLS[name] for name in names]
    reader = _open_reader(options)
    frames = {name: s.frame_names for name, s in reader.sequences.items()} if options.temporal_stability else None
    parts = make_parts(protocols, reader.annotated(), frames)
    out = Path(options.output_dir)
    check_apart(out, reader.folders.values())
    folders = {name: out / name if len(names) > 1 else out for name in names}
    stems = {method: _file_name(options, method) for method in reader.methods}
    with _removed_if_empty(out, *folders.values()), hold_folder(out):
        begun = result_folder.open_results(options, reader, folders, stems)
        results = begun.read()
        if results is None:
            results = _score(options, reader, protocols, parts, folders, begun)
            for name in names:
                _write(options, reader, {method: results[method, name] for method in reader.methods}, folders[name])
            begun.finish()
        else:
            for name in names:
                print(format_table({method: results[method, name] for method in reader.methods}))
            print(f"{out}: there already")
    if published := _list_published(options, reader):
        print(format_published(published), end="")
    return results


def _score(
    options: EvaluateOptions,
    reader: MapReader,
    protocols: Sequence[Protocol],
    parts: list[Part],
    folders: dict[str, Path],
    begun: result_folder.Results,
) -> dict[tuple[str, str], dict]:
    """Scores all parts; the tables of frames have their names when all are scored."""
    with contextlib.ExitStack() as stack:
        on_frame = _open_tables(stack, options, reader.methods, folders)
        num_workers = options.num_workers or count_cores()
        evaluators = score_methods(
            reader, reader.methods, protocols, parts, on_frame, num_workers, options.temporal_stability
        )
        begun.begin()  # before the first file of it appears
    return {key: evaluator.result() for key, evaluator in evaluators.items()}


def _open_reader(options: EvaluateOptions) -> MapReader:
    """Finds masks and maps, and raises when they do not belong together."""
    flat = options.layout == FLAT
    if flat and options.temporal_stability:
        raise ValueError("--temporal_stability needs the frames, which a flat folder of masks does not have")
    folders = {options.name: Path(options.predictions)} | _read_compare(options)
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; the maps are expected in {folder}/SEQUENCE/FRAME.png")
    needs_frames = options.temporal_stability
    if flat:
        found = known = [datasets.find_flat_masks(options.ground_truth)]
    else:
        where = options.layout, options.ground_truth
        found = datasets.find_sequences(*where, options.split, options.sequences, needs_frames)
        partial = options.sequences or options.split != "all"
        known = datasets.find_sequences(*where, needs_frames=needs_frames) if partial else found
    has_frames = all(s.frame_paths[i] not in paths for s in found for i, paths in s.mask_paths.items())
    baselines: tuple[str, ...] = (ALL_BLACK, FLOW_MAGNITUDE) if options.baselines else ()
    if baselines and not has_frames:
        baselines = (ALL_BLACK,)
        print(f"the row '{FLOW_MAGNITUDE}' is left out: there are masks and no frames to compute flow from")
    reader = MapReader({sequence.name: sequence for sequence in found}, folders, flat, baselines, has_frames)
    reader.check_maps((sequence.name for sequence in known), _find_scored(options, reader))
    return reader


def _find_scored(options: EvaluateOptions, reader: MapReader) -> dict[str, list[str]]:
    """Sequence -> the frames that any of the protocols scores, in order: of the others no map is needed."""
    scored = {}
    for sequence, names in reader.annotated().items():
        chosen = {name for each in options.protocols for name in PROTOCOLS[each].select_frames(sequence, names)}
        scored[sequence] = [name for name in names if name in chosen]
    return scored


def _read_compare(options: EvaluateOptions) -> dict[str, Path]:
    taken = {options.name, ALL_BLACK, FLOW_MAGNITUDE}
    if len(taken) < 3:
        raise ValueError(f"--name={options.name} is the name of a baseline; choose another")
    folders: dict[str, Path] = {}
    for entry in options.compare:
        name, colon, folder = entry.partition(":")
        if not (name and colon and folder):
            raise ValueError(f"--compare wants NAME:DIR,..., not '{entry}'")
        check_method_names([name], [*taken, *folders])
        folders[name] = Path(folder)
    return folders


@contextlib.contextmanager
def _removed_if_empty(*folders: Path) -> Iterator[None]:
    """Leaves no new empty folder behind when an input is at fault."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in reversed(new):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _open_tables(
    stack: contextlib.ExitStack, options: EvaluateOptions, methods: Sequence[str], folders: dict[str, Path]
) -> Callable[..., None]:
    """Opens frames.csv of each method and protocol; returns what writes a frame's row to its table."""
    tables = {
        (method, name): stack.enter_context(write_frames(folder, _file_name(options, method)))
        for method in methods
        for name, folder in folders.items()
    }
    return lambda method, name, *row: tables[method, name](*row)


def _write(options: EvaluateOptions, reader: MapReader, results: dict[str, dict], folder: Path) -> None:
    for method, result in results.items():
        write_results(result, folder, _file_name(options, method))
    print(format_table(results))
    if options.report:
        _write_report(options, reader, results, folder)


def _write_report(options: EvaluateOptions, reader: MapReader, results: dict[str, dict], folder: Path) -> None:
    def read_images(sequence: str, frame: str) -> tuple[np.ndarray | None, np.ndarray, dict[str, np.ndarray]]:
        """The frame, its mask, and each method's map in 8 bits at the size of the mask."""
        mask, maps = reader.read(sequence, frame)
        maps = {method: to_levels(saliency, mask.shape) for method, saliency in maps.items()}
        return reader.read_frame(sequence, frame), mask, maps

    methods = [
        Method(name, result, read_frames(folder, _file_name(options, name)), is_baseline=name in reader.baselines)
        for name, result in results.items()
    ]
    title = f"{Path(options.predictions).resolve().name} on {Path(options.ground_truth).resolve().name}"
    write_report(folder, methods, read_images, _list_published(options, reader), title)


def _list_published(options: EvaluateOptions, reader: MapReader) -> tuple[PublishedRow, ...]:
    """What papers report for this dataset; nothing beside somebody's own videos in a tree like that of DAVIS."""
    if options.layout == "davis" and not set(DAVIS_SPLITS["val"].split()) & reader.sequences.keys():
        return ()
    return published_rows(options.layout)


def _file_name(options: EvaluateOptions, method: str) -> str:
    """What stands in the names of a method's files; nothing for the user's own."""
    return "" if method == options.name else method
