"""Milliseconds of a streamed frame, beside a sliding window of four frames here and in PyTorch; they take turns.

  python benchmarks/window.py [--backbone=vgg16] [--image_size=320] [--precision=float32] [--steps=5] [--without_torch]

Full network with random weights, variant msst, T = 4, frames of the network's size, motion given; its prior is the
magnitude of flow. A streamed frame is encoded once and fused with the three before it; a window computes all four. In
PyTorch (to be installed beside: it is no requirement of this package) the window is the network alone, channels-last,
with the same weights and, in bfloat16, under autocast; it must give the same map. PyTorch knows vgg16 alone, and has a
process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from train_step import NUM_FRAMES, build_torch_network, write_weights

TOLERANCE = {"float32": 1e-3, "mixed_bfloat16": 0.05}  # of a map in 0..1: 40 layers, summed in another order


def make_frames(image_size: int) -> np.ndarray:
    """(T, H, W, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, image_size, image_size, 3), np.uint8)


def make_ours(arguments, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """What is timed in this process, each giving the map of the last frame; writes the weights for PyTorch."""
    import tensorflow as tf
    from random_model import export_random_model

    from msst_keras.inference.motion_stream import MovingFrame
    from msst_keras.inference.stream import SaliencyModel
    from msst_keras.model.msst import get_parts

    path = folder / "model" / "1"
    size = (arguments.image_size,) * 2
    network = export_random_model(path, arguments.backbone, size, arguments.precision, magnitude=True)
    if not arguments.without_torch:
        write_weights(folder / "weights.npz", *get_parts(network))
    model, loaded = SaliencyModel(path), tf.saved_model.load(str(path))
    frames = make_frames(arguments.image_size)
    still = np.zeros((*model.motion.flow_settings.motion_size, 2), np.float32)
    maps = model.open_maps()
    for frame in frames[:-1]:
        maps.push(MovingFrame(frame, still))
    clip = {"frames": tf.constant(frames[None]), "flow": tf.constant(np.stack([still] * NUM_FRAMES)[None])}
    window = loaded.signatures["serving_default"]
    streamed = maps.push(MovingFrame(frames[-1], still))
    tolerance = 1e-5 if arguments.precision == "float32" else TOLERANCE[arguments.precision]
    np.testing.assert_allclose(streamed, window(**clip)["saliency"][0, ..., 0], atol=tolerance)
    return {
        "a streamed frame": lambda: maps.push(MovingFrame(frames[-1], still)),
        "a window": lambda: window(**clip)["saliency"].numpy()[0, ..., 0],
    }


def serve_torch(image_size: int, is_low: bool, weights_path: Path, pipe) -> None:
    """Body of PyTorch's process: a window for every message, (map, seconds) back."""
    import torch

    with np.load(weights_path) as archive:
        network = build_torch_network({name: archive[name] for name in archive.files})
    network = network.to(memory_format=torch.channels_last).eval()
    frames = torch.from_numpy(np.moveaxis(make_frames(image_size), -1, -3).astype(np.float32))
    prior = torch.zeros(NUM_FRAMES, 1, image_size, image_size)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=is_low):
        while pipe.recv():
            started = time.perf_counter()
            saliency = network(frames, prior)[0].float().sigmoid().numpy()[0, 0]
            pipe.send((saliency, time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--image_size", type=int, default=320)
    parser.add_argument("--precision", default="float32", choices=list(TOLERANCE))
    parser.add_argument("--steps", type=int, default=5, help="timed turns, after one that is not")
    parser.add_argument("--without_torch", action="store_true")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        ours = make_ours(arguments, Path(folder))
        seconds = {name: [] for name in ours}
        if not arguments.without_torch:
            seconds["a window in PyTorch"] = []
            pipe, far_end = context.Pipe()
            is_low = arguments.precision != "float32"
            weights = Path(folder) / "weights.npz"
            context.Process(
                target=serve_torch, args=(arguments.image_size, is_low, weights, far_end), daemon=True
            ).start()
        for turn in range(1 + arguments.steps):
            for name, compute in ours.items():
                started = time.perf_counter()
                saliency = compute()
                seconds[name].append(time.perf_counter() - started)
            if turn == 0:
                expected = saliency  # of the window: the stream's last four frames are other ones from now on
            if not arguments.without_torch:
                pipe.send(True)
                found, spent = pipe.recv()
                seconds["a window in PyTorch"].append(spent)
                np.testing.assert_allclose(found, expected, atol=TOLERANCE[arguments.precision])
        if not arguments.without_torch:
            pipe.send(False)
    medians = {name: float(np.median(times[1:])) for name, times in seconds.items()}
    size = f"{arguments.image_size}x{arguments.image_size}"
    print(f"{arguments.backbone}, {size}, T = {NUM_FRAMES}, {arguments.precision}, medians of {arguments.steps}:")
    streamed = medians["a streamed frame"]
    for name, median in medians.items():
        print(f"{name:20s} {1000 * median:8.1f} ms; a streamed frame takes {streamed / median:.3f} of it")


if __name__ == "__main__":
    main()
