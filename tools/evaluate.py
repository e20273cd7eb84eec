"""Scores saliency maps against masks under named protocols; writes metrics, a CSV per frame, and a report.

  msst evaluate --predictions=maps --ground_truth=DAVIS --protocol=paper --output_dir=results
  msst evaluate --predictions=maps --ground_truth=DAVIS --protocol=all --output_dir=results --compare=pdb:PDB,ssav:SSAV

Maps are 8-bit grey PNGs named PREDICTIONS/SEQUENCE/FRAME.png, as `msst predict` writes them (flat:
PREDICTIONS/NAME.png). Beside them stand two baselines, an all-black map and the magnitude of optical flow. OUTPUT_DIR
gets metrics.json, metrics.csv, frames.csv and report.html, and metrics-NAME.json, metrics-NAME.csv and frames-NAME.csv
of each other method; with several protocols, a folder each.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from absl import flags

from msst_keras import cli

_PROTOCOLS = ("paper", "davsod", "davis16", "pysodmetrics")

_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of the maps.")
_NAME = flags.DEFINE_string("name", "predictions", "What the maps are called in tables and report.")
_GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "Folder of the dataset that has the masks.")
_LAYOUT = flags.DEFINE_enum(
    "layout", "davis", ["davis", "fbms", "segtrackv2", "flat"],
    "Of --ground_truth; flat: a folder of masks, by name, which counts as one sequence.",
)  # fmt: skip
_SPLIT = flags.DEFINE_enum("split", "all", ["train", "val", "all"], "Which official part of the dataset.")
_SEQUENCES = flags.DEFINE_list("sequences", None, "Only these sequences, comma-separated.")
_PROTOCOL = flags.DEFINE_list(
    "protocol", "paper", f"The rules, or several, or all: {', '.join(_PROTOCOLS)}. Numbers of two do not compare."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the results.")
_COMPARE = flags.DEFINE_list("compare", [], "NAME:DIR,...: other methods' maps, scored beside.")
_BASELINES = flags.DEFINE_bool("baselines", True, "Score an all-black map and the magnitude of flow beside.")
_TEMPORAL_STABILITY = flags.DEFINE_bool(
    "temporal_stability", False, "Measure flicker along the flow of the frames (T: 0 is best); flow takes time."
)
_REPORT = flags.DEFINE_bool("report", True, "Write report.html and its figures.")
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Processes; the result is the same for any number. By default one per core.", lower_bound=1
)
flags.mark_flags_as_required(["predictions", "ground_truth", "output_dir"])
flags.register_validator(
    "protocol", lambda names: names == ["all"] or (names and not set(names) - set(_PROTOCOLS)),
    message=f"must be among {', '.join(_PROTOCOLS)}, or all",
)  # fmt: skip


def main() -> None:
    """Checks that maps and masks belong together, scores all methods in one pass, writes and prints."""
    from msst_keras.evaluation.protocols import PROTOCOLS
    from msst_keras.evaluation.published import published_rows
    from msst_keras.evaluation.report import format_published
    from msst_keras.evaluation.scoring import make_parts, score_methods
    from msst_keras.processes import count_cores

    names = list(_PROTOCOLS) if _PROTOCOL.value == ["all"] else list(dict.fromkeys(_PROTOCOL.value))
    protocols = [PROTOCOLS[name] for name in names]
    reader = _open_reader()
    frames = {name: s.frame_names for name, s in reader.sequences.items()} if _TEMPORAL_STABILITY.value else None
    parts = make_parts(protocols, reader.annotated(), frames)
    out = Path(_OUTPUT_DIR.value)
    folders = {name: out / name if len(names) > 1 else out for name in names}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_removed_if_empty(out, *folders.values()))
        on_frame = _open_tables(stack, reader.methods, folders)
        num_workers = _NUM_WORKERS.value or count_cores()
        evaluators = score_methods(
            reader, reader.methods, protocols, parts, on_frame, num_workers, _TEMPORAL_STABILITY.value
        )
    for name in names:
        _write(reader, {method: evaluators[method, name].result() for method in reader.methods}, folders[name])
    if published := published_rows(_LAYOUT.value):
        print(format_published(published), end="")


def _open_reader():
    """Finds masks and maps, and raises when they do not belong together."""
    from msst_keras.data import datasets
    from msst_keras.evaluation.map_reader import MapReader
    from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE

    flat = _LAYOUT.value == "flat"
    if flat and _TEMPORAL_STABILITY.value:
        raise ValueError("--temporal_stability needs the frames, which a flat folder of masks does not have")
    folders = {_NAME.value: Path(_PREDICTIONS.value)} | _read_compare()
    for folder in folders.values():
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; the maps are expected in {folder}/SEQUENCE/FRAME.png")
    if flat:
        found = known = [datasets.find_flat_masks(_GROUND_TRUTH.value)]
    else:
        found = datasets.find_sequences(_LAYOUT.value, _GROUND_TRUTH.value, _SPLIT.value, _SEQUENCES.value)
        partial = _SEQUENCES.value or _SPLIT.value != "all"
        known = datasets.find_sequences(_LAYOUT.value, _GROUND_TRUTH.value) if partial else found
    baselines = (ALL_BLACK, FLOW_MAGNITUDE) if _BASELINES.value else ()
    if flat and baselines:
        baselines = (ALL_BLACK,)
        print(f"the row '{FLOW_MAGNITUDE}' is left out: a flat folder of masks has no frames to compute flow from")
    reader = MapReader({sequence.name: sequence for sequence in found}, folders, flat, baselines)
    reader.check_maps(sequence.name for sequence in known)
    return reader


def _read_compare() -> dict[str, Path]:
    from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE

    taken = {_NAME.value, ALL_BLACK, FLOW_MAGNITUDE}
    if len(taken) < 3:
        raise ValueError(f"--name={_NAME.value} is the name of a baseline; choose another")
    folders = {}
    for entry in _COMPARE.value:
        name, colon, folder = entry.partition(":")
        if not colon or not re.fullmatch(r"\w[\w .+-]*", name) or not folder:
            raise ValueError(f"--compare wants NAME:DIR,... with names of letters, digits and .+-_, not '{entry}'")
        if name.replace(" ", "-") in {other.replace(" ", "-") for other in (*taken, *folders)}:
            raise ValueError(f"--compare wants different names, but '{name}' is there already; rename one")
        folders[name] = Path(folder)
    return folders


@contextlib.contextmanager
def _removed_if_empty(*folders: Path):
    """Leaves no new empty folder behind when an input is at fault."""
    new = [folder for folder in folders if not folder.exists()]
    try:
        yield
    finally:
        for folder in reversed(new):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _open_tables(stack: contextlib.ExitStack, methods, folders: dict[str, Path]):
    """Opens frames.csv of each method and protocol; returns what writes a frame's row to its table."""
    from msst_keras.evaluation.report import write_frames

    tables = {
        (method, name): stack.enter_context(write_frames(folder, _file_name(method)))
        for method in methods
        for name, folder in folders.items()
    }
    return lambda method, name, *row: tables[method, name](*row)


def _write(reader, results: dict[str, dict], folder: Path) -> None:
    from msst_keras.evaluation.report import format_table, write_results

    for method, result in results.items():
        write_results(result, folder, _file_name(method))
    print(format_table(results))
    if _REPORT.value:
        _write_report(reader, results, folder)


def _write_report(reader, results: dict[str, dict], folder: Path) -> None:
    from msst_keras.evaluation.figures import Method
    from msst_keras.evaluation.html_report import write_report
    from msst_keras.evaluation.protocols import to_levels
    from msst_keras.evaluation.published import published_rows
    from msst_keras.evaluation.report import read_frames

    def read_images(sequence, frame):
        mask, maps = reader.read(sequence, frame)
        maps = {method: to_levels(saliency, mask.shape) for method, saliency in maps.items()}
        return reader.read_frame(sequence, frame), mask, maps

    methods = [
        Method(name, result, read_frames(folder, _file_name(name)), is_baseline=name in reader.baselines)
        for name, result in results.items()
    ]
    title = f"{Path(_PREDICTIONS.value).resolve().name} on {Path(_GROUND_TRUTH.value).resolve().name}"
    write_report(folder, methods, read_images, published_rows(_LAYOUT.value), title)


def _file_name(method: str) -> str:
    """What stands in the names of a method's files; nothing for the user's own."""
    return "" if method == _NAME.value else method


if __name__ == "__main__":
    cli.run(main)
