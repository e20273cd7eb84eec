"""Times the dense CRF of a 480x854 frame, 5 iterations: NumPy against pydensecrf, in turn in one run, one thread each.

  python benchmarks/crf.py [--frame=FRAME.jpg] [--repeats=7] [--num_workers=2]

Then one map of a frame against four, which share its lattice, and several frames at a time: by threads, as the jobs do,
and by processes. The default frame is scikit-image's photograph of a cup of coffee, enlarged. Without pydensecrf only
NumPy is timed.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image
from skimage import data

from msst_keras.inference.crf import BACKENDS, CRF_PRESETS, CrfOptions, DenseCrf, refine
from msst_keras.inference.parallel import map_in_order


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


def time_maps(frame: np.ndarray, saliency: np.ndarray, num_maps: int) -> float:
    """Seconds to refine several maps of one frame."""
    started = time.perf_counter()
    crf = DenseCrf(frame)
    for number in range(num_maps):
        crf.refine(saliency * np.float32(1 - number / 8))
    return time.perf_counter() - started


def time_preset(frame: np.ndarray, saliency: np.ndarray, options: CrfOptions) -> float:
    """Seconds to refine one map of a frame."""
    started = time.perf_counter()
    refine(frame, saliency, options)
    return time.perf_counter() - started


def refine_shifted(number: int, frame: np.ndarray, saliency: np.ndarray) -> int:
    """One of several frames: the frame, shifted, and its map; a checksum of the result."""
    shifted = np.roll(frame, 16 * number, axis=1)
    return hash(refine(shifted, np.roll(saliency, 16 * number, axis=1)).tobytes())


_arguments = None  # of refine_shifted, in each process


def _set_arguments(*arguments: np.ndarray) -> None:
    global _arguments
    _arguments = arguments


def _refine_in_process(number: int) -> int:
    return refine_shifted(number, *_arguments)


def time_frames(frame: np.ndarray, saliency: np.ndarray, num_workers: int, num_frames: int) -> dict[str, float]:
    """Frames per second, one after the other, by threads, and by processes that have started already."""
    context = multiprocessing.get_context("spawn")
    speeds = {}
    with ProcessPoolExecutor(num_workers, context, _set_arguments, (frame, saliency)) as pool:
        list(pool.map(_refine_in_process, range(2 * num_workers)))  # started, each with its spatial kernel
        ways = {
            "one after the other": lambda: map(lambda n: refine_shifted(n, frame, saliency), range(num_frames)),
            f"{num_workers} threads": lambda: map_in_order(
                lambda n: refine_shifted(n, frame, saliency), range(num_frames), num_workers
            ),
            f"{num_workers} processes": lambda: pool.map(_refine_in_process, range(num_frames)),
        }
        for name, way in ways.items():
            started = time.perf_counter()
            assert len(list(way())) == num_frames
            speeds[name] = num_frames / (time.perf_counter() - started)
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frame", help="an image file, resized to 480x854")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--num_workers", type=int, default=os.cpu_count(), help="frames at a time")
    parser.add_argument("--num_frames", type=int, default=32, help="frames to refine in each way")
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
    one, four = (np.median([time_maps(frame, saliency, n) for _ in range(arguments.repeats)]) for n in (1, 4))
    print(f"maps of one frame: 1 in {one:.3f} s, 4 in {four:.3f} s, {four / one:.2f} times as long")
    for name, options in CRF_PRESETS.items():
        seconds = np.median([time_preset(frame, saliency, options) for _ in range(arguments.repeats)])
        print(f"preset {name:6s} {seconds:.3f} s a frame")
    speeds = time_frames(frame, saliency, arguments.num_workers, arguments.num_frames)
    for name, speed in speeds.items():
        print(f"frames, {name:20s} {speed:6.2f} a second, {speed / speeds['one after the other']:.2f} times")


if __name__ == "__main__":
    main()
