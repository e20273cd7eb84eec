"""Scores saliency maps against masks under a named protocol; writes metrics.json and a CSV per sequence.

  msst evaluate --predictions=maps --ground_truth=DAVIS --protocol=paper --output_dir=results
  msst evaluate --predictions=maps --ground_truth=DAVIS --output_dir=results --compare=black:maps_black,flow:maps_flow

Maps are 8-bit grey PNGs named PREDICTIONS/SEQUENCE/FRAME.png, as `msst predict` writes them (flat:
PREDICTIONS/NAME.png).
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from msst_keras import cli

_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder of the maps.")
_GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "Folder of the dataset that has the masks.")
_LAYOUT = flags.DEFINE_enum(
    "layout", "davis", ["davis", "fbms", "segtrackv2", "flat"], "Of --ground_truth; flat: a folder of masks, by name."
)
_SPLIT = flags.DEFINE_enum("split", "all", ["train", "val", "all"], "Which official part of the dataset.")
_SEQUENCES = flags.DEFINE_list("sequences", None, "Only these sequences, comma-separated.")
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "paper", ["paper", "pysodmetrics"], "The rules; numbers of two do not compare."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for metrics.json and metrics.csv.")
_COMPARE = flags.DEFINE_list(
    "compare", [], "NAME:DIR,...: other methods' maps, scored beside; their files go to OUTPUT_DIR/NAME."
)
flags.mark_flags_as_required(["predictions", "ground_truth", "output_dir"])


def main() -> None:
    """Pairs maps and masks, scores each method, prints one table."""
    from msst_keras.evaluation.report import format_table, write_results

    methods = {"predictions": (Path(_PREDICTIONS.value), Path(_OUTPUT_DIR.value))}
    for entry in _COMPARE.value:
        name, colon, folder = entry.partition(":")
        if not colon or not name or not folder or name in methods:
            raise ValueError(f"--compare wants NAME:DIR,... with different names, not '{entry}'")
        methods[name] = (Path(folder), Path(_OUTPUT_DIR.value) / name)
    ground_truth = _find_ground_truth()
    results = {name: _score(folder, ground_truth) for name, (folder, _) in methods.items()}
    for name, (_, output_dir) in methods.items():
        write_results(results[name], output_dir)
    print(format_table(results), end="")


def _find_ground_truth():
    from msst_keras.data import datasets

    if _LAYOUT.value == "flat":
        return [datasets.find_flat_masks(_GROUND_TRUTH.value)]
    return datasets.find_sequences(_LAYOUT.value, _GROUND_TRUTH.value, _SPLIT.value, _SEQUENCES.value)


def _score(folder: Path, ground_truth) -> dict:
    from msst_keras.data import images
    from msst_keras.evaluation.protocols import PROTOCOLS, Evaluator, pair_maps
    from msst_keras.progress import progress

    def map_dir(sequence):
        return folder if _LAYOUT.value == "flat" else folder / sequence

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; the maps are expected in {folder}/SEQUENCE/FRAME.png")
    indices = {s.name: {s.frame_names[i]: i for i in sorted(s.mask_paths)} for s in ground_truth}
    maps = {name: [path.stem for path in sorted(map_dir(name).glob("*.png"))] for name in indices}
    pairs = pair_maps(indices, maps, {s.name: s.frame_names for s in ground_truth})
    sequences = {sequence.name: sequence for sequence in ground_truth}
    evaluator = Evaluator(PROTOCOLS[_PROTOCOL.value])
    for sequence, frame in progress(pairs, len(pairs), str(folder)):
        prediction = images.read_map(map_dir(sequence) / f"{frame}.png")
        evaluator.add(sequence, frame, prediction, sequences[sequence].read_mask(indices[sequence][frame]))
    return evaluator.result()


if __name__ == "__main__":
    cli.run(main)
