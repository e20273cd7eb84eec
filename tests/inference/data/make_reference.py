"""Writes crf_reference.npz, beside this file: maps refined by pydensecrf, which test_crf.py compares ours with.

Run in an environment with numpy, scikit-image and pydensecrf2 (made with scikit-image 0.26.0 and pydensecrf2 1.1 on
x86-64); nothing of msst_keras is used here. The frames are crops of scikit-image's photographs, which are public domain
or CC0. For each of them:

  NAME_frame     (H, W, 3) uint8
  NAME_saliency  (H, W) uint8: the input is this / 255 as float32
  NAME_options   (K, 6) float64: iterations, gaussian sxy and compat, bilateral sxy, srgb and compat
  NAME_refined   (K, H, W) uint16: pydensecrf's Q1 * 65535, rounded
"""

from pathlib import Path

import numpy as np
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax
from skimage import data

# name: crop, centre (row, column) and radius of the disc that stands for a salient object, options
CASES = {
    "astronaut": (np.s_[40:136, 160:288], (50, 62), 40, [(5, 3, 3, 60, 5, 5), (1, 3, 3, 60, 5, 5)]),
    # An odd number of pixels: pydensecrf handles four at a time.
    "coffee": (np.s_[120:221, 260:335], (50, 40), 34, [(5, 3, 3, 60, 5, 5), (3, 1.5, 10, 20, 13, 4)]),
    "chelsea": (np.s_[60:150, 120:241], (45, 60), 38, [(5, 3, 0, 80, 13, 10), (2, 6, 4, 8, 40, 0.5)]),
}


def saliency_of(height: int, width: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    """A soft disc under noise (a formula, the same everywhere), with some pixels at exactly 0 and 255: (H, W) uint8."""
    rows, columns = np.mgrid[:height, :width]
    disc = 1 / (1 + np.exp((np.hypot(rows - centre[0], columns - centre[1]) - radius) / 6))
    noise = (rows**2 * 7919 + columns**2 * 104729 + rows * columns * 31) * 2654435761 % 2**32 / 2**32
    return np.rint(255 * np.clip(0.75 * disc + 0.7 * (noise - 0.35), 0, 1)).astype(np.uint8)


def refine(frame: np.ndarray, saliency: np.ndarray, options: tuple) -> np.ndarray:
    """The reference: Q1 as (H, W) float32."""
    iterations, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat = options
    height, width = saliency.shape
    probabilities = saliency.astype(np.float32) / 255
    crf = DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(unary_from_softmax(np.stack([1 - probabilities, probabilities])))
    crf.addPairwiseGaussian(sxy=gaussian_sxy, compat=gaussian_compat)
    crf.addPairwiseBilateral(sxy=bilateral_sxy, srgb=bilateral_srgb, rgbim=frame, compat=bilateral_compat)
    return np.array(crf.inference(iterations))[1].reshape(height, width)


def main() -> None:
    arrays = {}
    for name, (crop, centre, radius, options) in CASES.items():
        frame = np.ascontiguousarray(getattr(data, name)()[crop])
        saliency = saliency_of(*frame.shape[:2], centre, radius)
        arrays[f"{name}_frame"] = frame
        arrays[f"{name}_saliency"] = saliency
        arrays[f"{name}_options"] = np.array(options, np.float64)
        refined = np.stack([refine(frame, saliency, each) for each in options])
        arrays[f"{name}_refined"] = np.rint(refined * 65535).astype(np.uint16)
    np.savez_compressed(Path(__file__).with_name("crf_reference.npz"), **arrays)


if __name__ == "__main__":
    main()
