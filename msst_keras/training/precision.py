"""The floating-point policy with which a machine is fast."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from msst_keras.training.options import PRECISIONS


def resolve_precision(precision: str) -> str:
    """The Keras dtype policy for `precision`; "auto" is mixed_bfloat16 where the hardware multiplies bfloat16 itself.

    That is a GPU of compute capability 8 or more, or a CPU with AMX or AVX512-BF16. Anywhere else bfloat16 is emulated,
    several times slower than float32, so "auto" is float32 there.

    Raises:
      ValueError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not '{precision}'")
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    return "mixed_bfloat16" if {"amx_bf16", "avx512_bf16"} & _cpu_flags() else "float32"


def _cpu_flags() -> set[str]:
    path = Path("/proc/cpuinfo")  # only Linux has it; elsewhere float32 is right
    if not path.exists():
        return set()
    lines = (line for line in path.read_text().splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())
