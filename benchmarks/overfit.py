"""A narrow network on eight clips until it knows them: max F above .98 in each variant, or something is broken.

  python benchmarks/overfit.py [--steps=600]

Eight clips of two generated sequences of 128x192, their exact flow's magnitude as prior, no augmentation; scored on
these clips, protocol `paper`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
from feeding import write_records

from msst_keras.model.msst import build_msst
from msst_keras.model.options import VARIANTS
from msst_keras.pipeline import clip_index
from msst_keras.pipeline.batches import training_batches
from msst_keras.pipeline.options import Augmentation
from msst_keras.training import loop
from msst_keras.training.options import OptimizerOptions, StepOptions, TrainingOptions
from msst_keras.training.validation import make_validation

SIZE, BATCH, AUGMENTATION = (128, 192), 4, Augmentation(flip=False, min_scale=1)
BAR = 0.98


def train(variant: str, records: Path, run_dir: Path, steps: int, width: float, seed: int) -> dict:
    """Trains a variant and scores it on the same clips, which `msst train` refuses: the result of `loop.train`."""
    num_frames = 4 if variant == "msst" else 1
    index = clip_index.index_clips([str(records)], num_frames, variant != "os")
    keras.utils.set_random_seed(seed)
    model = build_msst(variant, num_frames=num_frames, width=width, output_stride=8)
    optimizer = OptimizerOptions(2e-3, "cosine", warmup_steps=20, clip_norm=1)
    options = TrainingOptions(steps, StepOptions(region_weight=1), optimizer, checkpoint_every=100)

    def batches(first):
        return training_batches(index, num_frames, BATCH, (SIZE,), seed, first, steps, AUGMENTATION)

    validate = make_validation(model, index, num_frames, BATCH, SIZE)
    return loop.train(model, batches, index.names, run_dir, options, validate=validate)


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
        for variant in arguments.variants.split(","):
            run_dir = Path(folder) / variant
            result = train(variant, records, run_dir, arguments.steps, arguments.width, arguments.seed)
            scores = ", ".join(f"{name} {result[name]:.4f}" for name in ("max_f", "s_measure", "mae", "loss"))
            print(f"{variant}: {scores} after {arguments.steps} steps (bar: max F {BAR})", flush=True)


if __name__ == "__main__":
    main()
