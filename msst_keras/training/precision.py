"""The floating-point policy with which a machine trains a network fast."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import keras
import tensorflow as tf

from msst_keras.model.options import BFLOAT16, FLOAT32, POLICIES
from msst_keras.ordered_sums import ordered_sums
from msst_keras.training.optimizer import Update
from msst_keras.training.options import StepOptions
from msst_keras.training.step import make_step
from msst_keras.training.strategy import Devices

LEAST_GAIN = 1.1  # float32 is the more exact of the two: bfloat16 has to earn its place, and not by a whim of the clock
LEAST_STEPS = 50  # a shorter training cannot get back the time that measuring takes, two graphs above all
_NUM_STEPS = 2  # timed, after the one that traces the graph


def choose_precision(time_step: Callable[[str], float], num_steps: int, may_gain: bool | None = None) -> str:
    """Measures which Keras dtype policy is the faster one here, and says which and why in a line on standard error.

    Where the hardware cannot multiply bfloat16 nothing is measured: there it is emulated, several times slower than
    float32. Where it can, it may still lose: dense convolutions gain, depthwise ones can lose more. Nor is anything
    measured for a training of fewer than LEAST_STEPS.

    Args:
      time_step: policy -> seconds of a training step.
      num_steps: of the training.
      may_gain: whether the hardware multiplies bfloat16; None looks.

    Returns:
      one of POLICIES; mixed_bfloat16 if its steps take at most 1 / LEAST_GAIN of float32's time.
    """
    if not (multiplies_bfloat16() if may_gain is None else may_gain):
        print("--precision=auto: float32, because this hardware does not multiply bfloat16", file=sys.stderr)
        return FLOAT32
    if num_steps < LEAST_STEPS:
        print(f"--precision=auto: float32, because {num_steps} steps are too few to measure first", file=sys.stderr)
        return FLOAT32
    seconds = {policy: time_step(policy) for policy in POLICIES}
    choice = BFLOAT16 if seconds[FLOAT32] >= LEAST_GAIN * seconds[BFLOAT16] else FLOAT32
    print(
        f"--precision=auto: {choice}, because a step of one clip takes {seconds[FLOAT32]:.3g} s in {FLOAT32} and "
        f"{seconds[BFLOAT16]:.3g} s in {BFLOAT16} here",
        file=sys.stderr,
    )
    return choice


def multiplies_bfloat16() -> bool:
    """Whether there is a GPU of compute capability 8 or more, or a CPU with AMX or AVX512-BF16."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0)) >= (8, 0)
    path = Path("/proc/cpuinfo")  # only Linux has it; elsewhere float32 is right
    lines = path.read_text().splitlines() if path.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)


def time_step(
    policy: str, build: Callable[[], keras.Model], image_size: tuple[int, int], options: StepOptions
) -> float:
    """Seconds of a step of one random clip, without the update of the weights, which is the same in every policy.

    Args:
      policy: the Keras dtype policy, which is the process's while this runs.
      build: makes the network, whose weights do not matter.
      image_size: of the clip.
      options: of the step.

    Returns:
      the shorter of two steps, behind one that traces the graph.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = build()
        update = cast(Update, _Still(model))
        step = make_step(model, update, dataclasses.replace(options, accumulation_steps=1), Devices())
        batch, seconds = _make_clip(model, image_size), []
        with ordered_sums():  # as the training runs it
            for _ in range(1 + _NUM_STEPS):
                started = time.perf_counter()
                float(step(batch, tf.constant(0.0), tf.constant(0.0))["loss"])
                seconds.append(time.perf_counter() - started)
        return min(seconds[1:])
    finally:
        keras.config.set_dtype_policy(before)


class _Still:
    """An `optimizer.Update` that leaves the weights as they are."""

    def __init__(self, model: keras.Model):
        self.variables = list(model.trainable_variables)

    def apply(self, gradients: Sequence[tf.Tensor], learning_rate: tf.Tensor) -> tf.Tensor:
        """Gives the norm of the gradients alone."""
        return tf.linalg.global_norm(gradients)


def _make_clip(model: keras.Model, image_size: tuple[int, int]) -> dict[str, tf.Tensor]:
    """A batch of one random clip."""
    highest = {"frames": 255.0, "prior": 1.0}
    batch = {
        name: tf.random.uniform((1, value.shape[1] or 1, *image_size, value.shape[-1]), 0, highest[name])
        for name, value in model.input.items()
    }
    return batch | {"mask": tf.cast(tf.random.uniform((1, *image_size, 1)) < 0.2, tf.float32)}
