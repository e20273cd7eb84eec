"""Memory of a training step, with and without recomputation, each in a process of its own.

  python benchmarks/memory.py [--image_size=512] [--precision=float32] [--width=1]

Printed is the peak resident set minus that before the first step, and the seconds of the second step. The step is that
of the whole network (variant msst, VGG16, output stride 16, T = 4) with one clip, Adam included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

NUM_FRAMES = 4


def measure(image_size: int, precision: str, width: float, recompute: bool, queue) -> None:
    """Puts (MiB before, peak MiB, seconds of a step) on the queue."""
    import keras
    import numpy as np
    import tensorflow as tf

    from msst_keras.model.msst import build_msst
    from msst_keras.training.optimizer import Update
    from msst_keras.training.options import OptimizerOptions, StepOptions
    from msst_keras.training.step import make_step
    from msst_keras.training.strategy import Devices

    keras.config.set_dtype_policy(precision)
    model = build_msst(variant="msst", num_frames=NUM_FRAMES, width=width, weights="none")
    step = make_step(model, Update(model, OptimizerOptions()), StepOptions(recompute=recompute), Devices())
    generator, size = np.random.default_rng(0), (image_size, image_size)
    batch = {
        "frames": tf.constant(generator.uniform(0, 255, (1, NUM_FRAMES, *size, 3)), tf.float32),
        "prior": tf.constant(generator.uniform(0, 1, (1, NUM_FRAMES, *size, 1)), tf.float32),
        "mask": tf.constant(generator.uniform(0, 1, (1, *size, 1)) > 0.8, tf.float32),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    for _ in range(2):
        started = time.perf_counter()
        float(step(batch, tf.constant(1e-3), tf.constant(0.0))["loss"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    queue.put((before, peak, time.perf_counter() - started))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=512)
    parser.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    parser.add_argument("--width", type=float, default=1.0, help="of the network; 1 is the paper's")
    arguments = parser.parse_args()
    context, rows = multiprocessing.get_context("spawn"), []
    for recompute in (False, True):
        queue = context.Queue()
        process = context.Process(
            target=measure, args=(arguments.image_size, arguments.precision, arguments.width, recompute, queue)
        )
        process.start()
        before, peak, seconds = queue.get()
        process.join()
        rows.append(peak - before)
        name = "recomputed" if recompute else "plain"
        print(f"{name}: {before:.0f} MiB before, peak {peak:.0f}: {peak - before:.0f} MiB; {seconds:.1f} s a step")
    print(f"recomputation takes {rows[1] / rows[0]:.2f} of the memory (bar .5)")


if __name__ == "__main__":
    main()
