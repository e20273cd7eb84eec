"""Clips per second that records feed, beside what a training step consumes, in one run; they take turns.

  python benchmarks/feeding.py [--records=FOLDER] [--clips=200] [--steps=3] [--image_size=321] [--width=1]

Clips are of T = 4 frames with their prior, augmented as in training. The step is that of the whole network (variant
msst, VGG16, output stride 16) with one clip, its update included. Without --records a set of 480x854 is generated.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from msst_keras.data import images
from msst_keras.model.msst import build_msst
from msst_keras.motion.flow_pictures import magnitude_prior
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import training_batches
from msst_keras.pipeline.options import Augmentation
from msst_keras.records.example import FrameRecord
from msst_keras.records.manifest import build_manifest, write_manifest
from msst_keras.records.shard_files import shard_path, write_shard
from msst_keras.synthetic import videos
from msst_keras.synthetic.scenes import SceneOptions
from msst_keras.training.optimizer import Update
from msst_keras.training.options import OptimizerOptions, StepOptions
from msst_keras.training.step import make_step
from msst_keras.training.strategy import Devices

NUM_FRAMES = 4
FLOW = {"method": "generated", "motion_size": [240, 432]}
BAR = 10
RATE, GO = tf.constant(1e-3), tf.constant(0.0)  # the paper's learning rate; no signal to stop


def write_records(
    folder: Path,
    num_sequences: int,
    num_frames: int,
    size: tuple[int, int] = (480, 854),
    options: SceneOptions | None = None,
    first_seed: int = 0,
) -> None:
    """A record folder of generated sequences; the magnitude of their exact flow stands for a prior."""
    frames = []
    for number in range(num_sequences):
        sequence = videos.generate_sequence(first_seed + number, num_frames, size, options)
        for index in range(num_frames):
            prior = np.uint8(255 * magnitude_prior(sequence.flow[index])[::2, ::2])
            mask = images.encode_png(sequence.masks[index].astype(np.uint8) * 255)
            frame = images.encode_jpeg(sequence.frames[index])
            name = f"s{first_seed + number}"
            frames.append(FrameRecord(name, f"{index:05d}", index, *size, frame, mask, "fine",
                                              images.encode_png(prior)))  # fmt: skip
    write_shard(shard_path(folder, 0, 1), frames)
    motion = {"flow": FLOW, "superpixels": None, "prior": {"kind": "magnitude"}, "flow_stored": False}
    write_manifest(folder, build_manifest(folder, 1, {"dataset": "generated", "motion": motion}))


def make_batches(folder: str, image_size: int, last_step: int):
    index = clip_index.index_clips([folder], NUM_FRAMES, with_prior=True)
    size = ((image_size, image_size),)
    return training_batches(index, NUM_FRAMES, 1, size, 0, 0, last_step, Augmentation())


def time_feeding(batches, num_clips: int) -> float:
    """Clips a second, the first eight (start of the threads, filled buffers) left out."""
    iterator = iter(batches)
    for _ in range(8):
        next(iterator)
    started = time.perf_counter()
    count = sum(1 for _ in itertools.islice(iterator, num_clips))
    return count / (time.perf_counter() - started)


def time_steps(step, batch, num_steps: int) -> float:
    """Clips a second of training steps on a batch that is there already."""
    started = time.perf_counter()
    for _ in range(num_steps):
        float(step(batch, RATE, GO)["loss"])
    return num_steps / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", help="a record folder with a prior; none generates one")
    parser.add_argument("--clips", type=int, default=200, help="clips to feed, each time")
    parser.add_argument("--steps", type=int, default=3, help="training steps, each time")
    parser.add_argument("--repeats", type=int, default=3, help="how often both are timed, in turn")
    parser.add_argument("--image_size", type=int, default=321)
    parser.add_argument("--width", type=float, default=1.0, help="of the network; 1 is the paper's")
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    arguments = parser.parse_args()
    keras.config.set_dtype_policy(arguments.precision)
    model = build_msst(variant="msst", backbone="vgg16", num_frames=NUM_FRAMES, width=arguments.width, weights="none")
    step = make_step(model, Update(model, OptimizerOptions()), StepOptions(), Devices())
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.records:
            write_records(Path(folder), num_sequences=2, num_frames=20)
        batches = make_batches(arguments.records or folder, arguments.image_size, arguments.clips + 8)
        batch = next(iter(batches))
        float(step(batch, RATE, GO)["loss"])  # traces the graph
        runs = []
        for _ in range(arguments.repeats):
            runs.append((time_feeding(batches, arguments.clips), time_steps(step, batch, arguments.steps)))
            print(f"feeds {runs[-1][0]:.1f} clips/s, a step takes {runs[-1][1]:.3f} clips/s", flush=True)
    feeding, training = np.median(runs, axis=0)
    size = f"{arguments.image_size}x{arguments.image_size}"
    print(f"{size}, T = {NUM_FRAMES}, {arguments.precision}, width {arguments.width:g}, medians of {len(runs)}:")
    print(f"feeds {feeding:.1f} clips/s, trains {training:.3f} clips/s: {feeding / training:.1f} times (bar {BAR})")


if __name__ == "__main__":
    main()
