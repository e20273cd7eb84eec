"""Chooses on training sequences alone: flow methods, camera models and superpixels, each scored by what it is for.

  python benchmarks/prior_choices.py --root=DAVIS_TRAIN [--every=10] [--flow=dis,dis_fast] [--superpixels]

The tree is DAVIS's; of each sequence every `--every`-th frame is scored, under protocol `paper`. A flow method and a
camera model are scored by the magnitude of the residual flow as a saliency map; superpixels by the best map that they
allow: each region labelled as most of its pixels are (the IoU of that with the mask, J), beside their number.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import cv2
import numpy as np

from msst_keras.data import datasets
from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scores import HEADLINE
from msst_keras.motion.camera import CAMERAS
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment

SCALES = ((300.0, 60.0), (150.0, 30.0), (75.0, 15.0))
MIN_SIZES = ((80, 16), (40, 8), (20, 4))
SHORTER_SIDES = (120, 240)


def read_pairs(root: str, every: int) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields sequence, name of the frame, the frame, the next one, and the frame's mask."""
    for sequence in datasets.find_sequences("davis", root):
        frames = ((name, frame) for name, _, frame in sequence.read_frames())
        for index, ((name, first), (_, second)) in enumerate(itertools.pairwise(frames)):
            if index % every == 0:
                yield sequence.name, name, first, second, sequence.read_mask(index)


def compare_magnitudes(root: str, every: int, methods: list[str]) -> None:
    """Prints a row for each flow method and camera model."""
    rows = {row: Evaluator(PROTOCOLS["paper"]) for row in itertools.product(methods, CAMERAS)}
    estimators = {method: FlowEstimator(FlowSettings(method)) for method in methods}
    for sequence, name, first, second, mask in read_pairs(root, every):
        for method, estimator in estimators.items():
            flow = estimator.between(first, second)
            for camera in CAMERAS:
                rows[method, camera].add(sequence, name, magnitude_prior(flow, camera), mask)
    print("flow       camera        MAE   max F   S")
    for (method, camera), evaluator in rows.items():
        result = evaluator.result()
        scores = (result[key] for key in HEADLINE)
        print(f"{method:10s} {camera:11s}", *(f"{score:6.3f}" for score in scores), flush=True)


def compare_superpixels(root: str, every: int, method: str) -> None:
    """Prints a row for each setting of the segmentation, levels from coarse to fine."""
    estimator, settings = FlowEstimator(FlowSettings(method)), {}
    for scales, min_sizes, side in itertools.product(SCALES, MIN_SIZES, SHORTER_SIDES):
        settings[scales, min_sizes, side] = SuperpixelSettings(
            scales=scales, min_sizes=min_sizes, shorter_side=side, max_regions=4096
        )
    scores = {row: [] for row in settings}
    for _, _, first, second, mask in read_pairs(root, every):
        flow = estimator.between(first, second)
        mask = cv2.resize(mask.astype(np.float32), flow.shape[1::-1], interpolation=cv2.INTER_AREA) >= 0.5
        if mask.any():
            for row, each in settings.items():
                scores[row].append([score_level(level, mask) for level in np.moveaxis(segment(flow, each), -1, 0)])
    print("scales          smallest    side   J by level          regions by level")
    for (scales, min_sizes, side), levels in scores.items():
        overlaps, counts = np.mean(levels, axis=0).T
        most = np.max(levels, axis=0)[-1, 1]
        print(f"{scales!s:15s} {min_sizes!s:10s} {side:5d}  ", *(f"{x:6.3f}" for x in overlaps),
              *(f"{x:6.0f}" for x in counts), f"(at most {most:.0f})", flush=True)  # fmt: skip


def score_level(labels: np.ndarray, mask: np.ndarray) -> tuple[float, int]:
    """The IoU of the mask with each region labelled as most of its pixels, and the number of regions."""
    areas = np.bincount(labels.ravel())
    best = (np.bincount(labels.ravel(), mask.ravel()) / np.maximum(areas, 1) > 0.5)[labels]
    return (best & mask).sum() / (best | mask).sum(), len(areas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", required=True, help="a DAVIS tree of training sequences")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--flow", default="dis,dis_fast,farneback", help="methods, comma-separated")
    parser.add_argument("--superpixels", action="store_true", help="compare superpixels, of the first method's flow")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    methods = arguments.flow.split(",")
    if arguments.superpixels:
        compare_superpixels(arguments.root, arguments.every, methods[0])
    else:
        compare_magnitudes(arguments.root, arguments.every, methods)


if __name__ == "__main__":
    main()
