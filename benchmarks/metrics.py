"""Times the five metrics that PySODMetrics computes too, pair by pair in turn, and how scoring scales with processes.

  python benchmarks/metrics.py [--num_pairs=700] [--predictions=MAPS --ground_truth=DAVIS]

MAE, F (curve and adaptive), S, E (curve and adaptive) and weighted F of 480x854 maps and masks, one thread each;
decoding is not timed. Then the whole job, from files, in one process and in two. Without folders the pairs are made: an
object that moves, a soft and noisy map of it; with them they are a method's maps on a dataset in DAVIS layout.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy is imported

import argparse
import importlib
import importlib.util
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import datasets
from msst_keras.evaluation.map_reader import MapReader
from msst_keras.evaluation.metrics import score_pair
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scoring import make_parts, score_methods

SIZE = 480, 854
MEASURES = ("MAE", "Fmeasure", "Smeasure", "Emeasure", "WeightedFmeasure")


def make_pairs(num_pairs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Maps, uint8, and masks, bool, of SIZE."""
    rows, columns = np.indices(SIZE, np.float32)
    noise = np.random.default_rng(0).random(SIZE, np.float32)
    for index in range(num_pairs):
        angle = 2 * np.pi * index / 100
        row, column = 240 + 120 * np.sin(angle), 427 + 250 * np.cos(angle)
        radius = 60 + 30 * np.sin(5 * np.arctan2(rows - row, columns - column) + angle)
        distance = np.hypot(rows - row, columns - column) - radius
        soft = 1 / (1 + np.exp(distance / 6)) * 0.9 + 0.1 * np.roll(noise, index, axis=1)
        yield np.rint(255 * soft).astype(np.uint8), distance < 5 * noise


def write_pairs(root: Path, num_pairs: int) -> tuple[Path, Path]:
    """Writes the made pairs as folders of maps and masks of one sequence; returns both folders."""
    for index, (saliency, mask) in enumerate(make_pairs(num_pairs)):
        for folder, image in (("maps", saliency), ("masks", mask * np.uint8(255))):
            (root / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(root / folder / f"{index:05d}.png"), image)
    return root / "maps", root / "masks"


def open_reader(predictions: Path, ground_truth: Path) -> MapReader:
    flat = not (ground_truth / "Annotations").is_dir()
    found = [datasets.find_flat_masks(ground_truth)] if flat else datasets.find_sequences("davis", ground_truth)
    reader = MapReader({sequence.name: sequence for sequence in found}, {"maps": predictions}, flat)
    reader.check_maps(reader.sequences)
    return reader


def find_reference() -> types.ModuleType | None:
    """PySODMetrics' module of metrics, without the rest of its package, which needs scikit-learn."""
    package = importlib.util.find_spec("py_sod_metrics")
    if package is None:
        return None
    name = "py_sod_metrics_without_the_rest"
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = list(package.submodule_search_locations)
    return importlib.import_module(f"{name}.sod_metrics")


def time_metrics(reader: MapReader, num_pairs: int, reference: types.ModuleType | None) -> None:
    measures = [getattr(reference, name)() for name in MEASURES] if reference else []
    seconds = {"ours": [], "PySODMetrics": []}
    for sequence, frames in reader.annotated().items():
        for frame in frames[: num_pairs - len(seconds["ours"])]:
            mask, maps = reader.read(sequence, frame)
            grey = mask * np.uint8(255)
            started = time.perf_counter()
            score_pair(maps["maps"], mask, min_max=True)
            done = time.perf_counter()
            for measure in measures:
                measure.step(maps["maps"], grey)
            seconds["ours"].append(done - started)
            seconds["PySODMetrics"].append(time.perf_counter() - done)
    ours, theirs = (sum(values) for values in seconds.values())
    num_pairs = len(seconds["ours"])
    print(f"{num_pairs} pairs of {mask.shape[0]}x{mask.shape[1]}, MAE, F, S, E and weighted F, one process each")
    print(f"ours          {1000 * ours / num_pairs:6.1f} ms a pair")
    if reference:
        print(f"PySODMetrics  {1000 * theirs / num_pairs:6.1f} ms a pair, {theirs / ours:.2f} times ours")


def time_processes(reader: MapReader) -> None:
    """The job without its files: reads, scores under `pysodmetrics`, averages. Starting the processes counts."""
    protocol = PROTOCOLS["pysodmetrics"]
    parts = make_parts([protocol], reader.annotated())
    seconds, results = [], []
    for num_workers in (1, 2):
        started = time.perf_counter()
        evaluators = score_methods(reader, ["maps"], [protocol], parts, num_workers=num_workers)
        seconds.append(time.perf_counter() - started)
        results.append(evaluators["maps", protocol.name].result())
        per_second = results[-1]["num_frames"] / seconds[-1]
        print(f"{num_workers} process{'es' * (num_workers > 1)}: {seconds[-1]:.1f} s, {per_second:.1f} pairs a second")
    same = "the same to the bit" if results[0] == results[1] else "DIFFERENT"
    print(f"two processes are {seconds[0] / seconds[1]:.2f} times as fast; their results are {same}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=700)
    parser.add_argument("--predictions", type=Path, help="a method's maps, MAPS/SEQUENCE/FRAME.png")
    parser.add_argument("--ground_truth", type=Path, help="the dataset, in DAVIS layout")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # PySODMetrics announces that its classes will be renamed
    with tempfile.TemporaryDirectory() as folder:
        folders = arguments.predictions, arguments.ground_truth
        reader = open_reader(*(folders if all(folders) else write_pairs(Path(folder), arguments.num_pairs)))
        time_metrics(reader, arguments.num_pairs, find_reference())
        time_processes(reader)


if __name__ == "__main__":
    main()
