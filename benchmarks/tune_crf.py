"""Searches settings of the dense CRF on maps of training sequences, and checks them on other training sequences.

  python benchmarks/tune_crf.py --maps=maps --frames=DAVIS/JPEGImages/480p --masks=DAVIS/Annotations/480p

MAPS/SEQUENCE/FRAME.png, as `msst predict` writes them, with the frames and masks (any value above 0 is object) of the
same names. Never give test sequences: what is chosen on them cannot be reported on them. Every second sequence is
searched on, the others check what was found. From a preset's settings on, one setting after the other takes the
value of its row in GRID that scores best, until nothing changes. What is found for blurry maps may harm good ones: the
masks of the held-out frames, reduced to an eighth and enlarged again, are refined too.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import images
from msst_keras.data.file_names import list_images, subfolders
from msst_keras.data.masks import read_mask
from msst_keras.evaluation.metrics import mean_absolute_error, s_measure
from msst_keras.evaluation.pixel_counts import count_pixels
from msst_keras.inference.crf import CRF_PRESETS, CrfOptions, refine
from msst_keras.inference.parallel import map_in_order

GRID = {
    "unary": ("log", "dss"),
    "iterations": (1, 2, 5, 10),
    "bilateral_sxy": (30.0, 60.0, 90.0, 130.0),
    "bilateral_srgb": (3.0, 5.0, 8.0, 13.0),
    "bilateral_compat": (2.0, 5.0, 10.0, 20.0, 40.0),
    "gaussian_sxy": (1.0, 3.0, 6.0),
    "gaussian_compat": (0.0, 1.0, 3.0, 6.0),
}
SCORES = ("S", "J", "MAE")


def read_triples(arguments: argparse.Namespace) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """(frame, map, mask) of every EVERY-th map of each sequence, beginning in the middle of the first EVERY."""
    sequences = []
    for folder in subfolders(arguments.maps):
        frames = {path.stem: path for path in list_images(arguments.frames / folder.name)}
        maps = list_images(folder)[arguments.every // 2 :: arguments.every]
        sequences.append([
            (images.read_frame(frames[path.stem]), images.read_map(path),
             read_mask(arguments.masks / folder.name / f"{path.stem}.png", "nonzero"))
            for path in maps
        ])  # fmt: skip
    return sequences


def score_map(saliency: np.ndarray, mask: np.ndarray) -> tuple[float, float, float]:
    """S-measure, intersection over union at 0.5, and MAE of a map as it is written: 8 bits."""
    grey = np.rint(saliency * 255).astype(np.uint8)
    pixels = count_pixels(grey, mask)
    selected = grey >= 128
    return (
        s_measure(pixels),
        (selected & mask).sum() / max(1, (selected | mask).sum()),
        mean_absolute_error(pixels),
    )


def score(sequences: list[list], options: CrfOptions | None, num_workers: int) -> np.ndarray:
    """(3,) means of SCORES over the frames of a sequence, then over sequences; options None: the maps as they are."""

    def score_one(triple):
        frame, saliency, mask = triple
        return score_map(saliency if options is None else refine(frame, saliency, options), mask)

    scores = iter(list(map_in_order(score_one, (triple for each in sequences for triple in each), num_workers)))
    return np.mean([np.mean([next(scores) for _ in each], axis=0) for each in sequences], axis=0)


def show(name: str, scores: np.ndarray) -> None:
    print(f"{name:32s} " + "  ".join(f"{title} {value:.4f}" for title, value in zip(SCORES, scores, strict=True)))


def search(sequences: list[list], options: CrfOptions, objective: int, num_workers: int) -> CrfOptions:
    """Coordinate search over GRID from `options`."""
    sign = -1 if SCORES[objective] == "MAE" else 1
    known = {}

    def value(candidate: CrfOptions) -> float:
        if candidate not in known:
            known[candidate] = sign * score(sequences, candidate, num_workers)[objective]
        return known[candidate]

    while True:
        before = options
        for name, values in GRID.items():
            candidates = [options, *(dataclasses.replace(options, **{name: value}) for value in values)]
            options = max(candidates, key=value)  # the first of equals: a setting stays unless another is better
            print(f"  {name} {getattr(options, name)}: {SCORES[objective]} {sign * value(options):.4f}", flush=True)
        if options == before:
            return options


def reduced_masks(sequences: list[list]) -> list[list]:
    """The frames and masks with maps as of a nearly perfect network: the mask, reduced to an eighth and enlarged."""

    def blur(mask):
        size = mask.shape[1] // 8, mask.shape[0] // 8
        small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return np.clip(cv2.resize(small, mask.shape[::-1], interpolation=cv2.INTER_LINEAR), 0, 1)

    return [[(frame, blur(mask), mask) for frame, _, mask in each] for each in sequences]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("maps", "frames", "masks"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--every", type=int, default=10, help="take every N-th map of a sequence")
    parser.add_argument("--objective", choices=SCORES, default="S")
    parser.add_argument("--start", choices=list(CRF_PRESETS), default="pdb", help="preset to start from")
    parser.add_argument("--num_workers", type=int, default=2)
    arguments = parser.parse_args()
    sequences = read_triples(arguments)
    searched, held_out = sequences[::2], sequences[1::2]
    for name, part in (("searched on", searched), ("held out", held_out)):
        print(f"{name}: {len(part)} sequences, {sum(map(len, part))} frames")
    objective = SCORES.index(arguments.objective)
    best = search(searched, CRF_PRESETS[arguments.start], objective, arguments.num_workers)
    print(f"found: {best}")
    compared = {"without CRF": None, **CRF_PRESETS, "found": best}
    parts = {"searched on": searched, "held out": held_out, "masks at an eighth, held out": reduced_masks(held_out)}
    for title, part in parts.items():
        print(f"{title}:")
        for name, options in compared.items():
            show(f"  {name}", score(part, options, arguments.num_workers))


if __name__ == "__main__":
    main()
