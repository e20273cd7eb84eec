"""Times the dense CRF of a 480x854 frame, 5 iterations: NumPy against pydensecrf, in turn in one run, one thread each.

  python benchmarks/crf.py [--frame=FRAME.jpg] [--repeats=7]

The default frame is scikit-image's photograph of a cup of coffee, enlarged. Without pydensecrf only NumPy is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time

import numpy as np
from PIL import Image
from skimage import data

from msst_keras.inference.crf import BACKENDS, CrfOptions, DenseCrf


def read_frame(path: str | None) -> np.ndarray:
    """(480, 854, 3) uint8."""
    image = Image.open(path).convert("RGB") if path else Image.fromarray(data.coffee())
    return np.array(image.resize((854, 480), Image.Resampling.BICUBIC))


def soft_disc(height: int, width: int) -> np.ndarray:
    """A map as of a network: (H, W) float32 in [0, 1], high in the middle."""
    rows, columns = np.indices((height, width), np.float32)
    distance = np.hypot((rows - height / 2) / height, (columns - width / 2) / width)
    return 1 / (1 + np.exp((distance - 0.25) * 20))


def time_once(frame: np.ndarray, saliency: np.ndarray, backend: str) -> tuple[float, float, np.ndarray]:
    """Seconds to build the frame's lattice, seconds to refine a map, the refined map."""
    started = time.perf_counter()
    crf = DenseCrf(frame, CrfOptions(iterations=5), backend)
    built = time.perf_counter()
    refined = crf.refine(saliency)
    return built - started, time.perf_counter() - built, refined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", help="an image file, resized to 480x854")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    frame = read_frame(arguments.frame)
    saliency = soft_disc(*frame.shape[:2])
    backends = [name for name in BACKENDS if name == "numpy" or importlib.util.find_spec("pydensecrf")]
    first_build = time_once(frame, saliency, "numpy")[0]
    runs = {backend: [] for backend in backends}
    for _ in range(arguments.repeats):
        for backend in backends:
            runs[backend].append(time_once(frame, saliency, backend))
    totals = {}
    for backend in backends:
        build, refine = np.median([run[:2] for run in runs[backend]], axis=0)
        totals[backend] = np.median([sum(run[:2]) for run in runs[backend]])
        print(f"{backend:11s} {totals[backend]:.3f} s: lattice {build:.3f} s, 5 iterations {refine:.3f} s")
    print(f"numpy's first frame of a size builds the spatial kernel too: lattices {first_build:.3f} s")
    if len(backends) == 2:
        difference = np.abs(runs["numpy"][0][2] - runs["pydensecrf"][0][2]).max()
        ratio = totals["numpy"] / totals["pydensecrf"]
        print(f"numpy / pydensecrf: {ratio:.2f}; the maps differ by {difference:.1e} at most")


if __name__ == "__main__":
    main()
