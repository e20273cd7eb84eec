"""A narrow network on eight clips until it knows them: max F above .98 in each variant, or something is broken.

  python benchmarks/overfit.py [--steps=600]

Eight clips of two generated sequences of 128x192, their exact flow's magnitude as prior, no augmentation; scored on
these clips, protocol `paper`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from feeding import write_records
from variants import train

from msst_keras.model.msst import VARIANTS
from msst_keras.pipeline.clips import Augmentation

SIZE, BATCH, AUGMENTATION = (128, 192), 4, Augmentation(flip=False, min_scale=1)
BAR = 0.98


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "records"
        write_records(records, num_sequences=2, num_frames=4, size=SIZE)
        folders = {"train": str(records), "test": str(records)}
        for variant in arguments.variants.split(","):
            run_dir = Path(folder) / variant
            result = train(
                variant, folders, run_dir, arguments.steps, arguments.width, arguments.seed,
                size=SIZE, batch_size=BATCH, augmentation=AUGMENTATION,
            )  # fmt: skip
            scores = ", ".join(f"{name} {result[name]:.4f}" for name in ("max_f", "s_measure", "mae", "loss"))
            print(f"{variant}: {scores} after {arguments.steps} steps (bar: max F {BAR})", flush=True)


if __name__ == "__main__":
    main()
