"""Trains the network of the paper, or one of its ablations, on records.

  msst train --records=records/davis_train --val_records=records/davis_val --prior=prior.keras --run_dir=runs/msst

Started again with the same --run_dir, it goes on where it was; SIGTERM or SIGINT finishes the step, saves, and exits
with 75.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.tools._flags import BACKBONES, define_sizes

_RECORDS = flags.DEFINE_list("records", None, "Globs of record folders to train on, comma-separated.")
_VAL_RECORDS = flags.DEFINE_list("val_records", None, "Globs of record folders to validate on.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_PRIOR = flags.DEFINE_string("prior", None, "File of the motion prior that the records were made with.")
_VARIANT = flags.DEFINE_enum(
    "variant", "msst", ["os", "st", "msst"], "Spatial stream, both, or both and ConvLSTM (Fig. 6)."
)
_BACKBONE = flags.DEFINE_enum("backbone", "vgg16", BACKBONES, "Of the streams; vgg16 is the paper's.")
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Of the backbone: imagenet (downloads), none, or a file.")
_IMAGE_SIZES = define_sizes(
    "image_sizes", "321x321,512x512", "Mixed batch by batch; the last is the size of use (4.1)."
)
_OUTPUT_STRIDE = flags.DEFINE_enum(
    "output_stride", "16", ["8", "16"], "16 is the paper read literally; 8 is finer, slower."
)
_WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies every number of channels.", lower_bound=0.01)
_INIT_FROM = flags.DEFINE_string("init_from", None, "A run whose weights to start from (os, then st, then msst).")
_NUM_FRAMES = flags.DEFINE_integer("num_frames", 4, "T, frames a clip has (msst; the others need one).", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Clips in a step. The paper is silent.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 20000, "Steps of the whole training. The paper is silent.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam; 1e-3 is the paper's.", lower_bound=0)
_ALPHA = flags.DEFINE_string(
    "alpha", "balanced", "Balance factor of Eq. 7: balanced (per image), or a number in (0, 1)."
)
_BETA = flags.DEFINE_float("beta", 0.1, "Weight of the loss behind the ConvLSTM, Eq. 8.", lower_bound=0)
_REGION_WEIGHT = flags.DEFINE_float("region_weight", 0.0, "Weight of a soft IoU loss; not in the paper.", lower_bound=0)
_MIN_SCALE = flags.DEFINE_float("min_scale", 0.7, "Smallest random crop, as a share of the side.", 0.1, 1.0)
_FLIP = flags.DEFINE_bool("flip", True, "Mirror half of the clips.")
_PRECISION = flags.DEFINE_enum("precision", "auto", ["auto", "float32", "mixed_bfloat16"], "auto asks the hardware.")
_CHECKPOINT_EVERY = flags.DEFINE_integer("checkpoint_every", 200, "Steps between checkpoints.", lower_bound=1)
_VALIDATE_EVERY = flags.DEFINE_integer(
    "validate_every", 0, "Steps between validations; 0: at the end alone.", lower_bound=0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of initial weights, order and augmentation.", lower_bound=0)
flags.mark_flags_as_required(["records", "run_dir"])


def main() -> int | None:
    """Checks that records, prior and model fit, then trains."""
    import keras

    from msst_keras.data import pipeline
    from msst_keras.data.folders import check_disjoint
    from msst_keras.model.msst import build_msst
    from msst_keras.training import loop, run
    from msst_keras.training.precision import resolve_precision
    from msst_keras.training.validation import make_validation

    num_frames = _NUM_FRAMES.value if _VARIANT.value == "msst" else 1
    temporal = _VARIANT.value != "os"
    record_folders = pipeline.find_record_folders(_RECORDS.value)
    index = pipeline.index_clips(record_folders, num_frames, temporal)
    if _VAL_RECORDS.value:
        check_disjoint(record_folders, pipeline.find_record_folders(_VAL_RECORDS.value))
    run_dir = Path(_RUN_DIR.value)
    run.keep_prior(run_dir, index.motion, _PRIOR.value)
    keras.config.set_dtype_policy(resolve_precision(_PRECISION.value))
    keras.utils.set_random_seed(_SEED.value)
    model_settings = {
        "variant": _VARIANT.value, "backbone": _BACKBONE.value, "num_frames": num_frames, "width": _WIDTH.value,
        "output_stride": int(_OUTPUT_STRIDE.value), "weights": _WEIGHTS.value,
    }  # fmt: skip
    model = build_msst(**model_settings)
    if _INIT_FROM.value:
        run.transfer_weights(run.load_model(_INIT_FROM.value), model)
    run.write_run(run_dir, {"model": model_settings, "motion": index.motion, "image_size": _IMAGE_SIZES.value[-1]})
    (run_dir / "flags.txt").write_text(cli.flags_text(main))

    validate = None
    if _VAL_RECORDS.value:
        val_index = pipeline.index_clips(pipeline.find_record_folders(_VAL_RECORDS.value), num_frames, temporal)
        if val_index.motion != index.motion:
            raise ValueError(
                "--val_records were made with other flow or prior settings than --records; make them alike"
            )
        validate = make_validation(model, val_index, num_frames, _BATCH_SIZE.value, _IMAGE_SIZES.value[-1])

    def make_batches(first_step):
        augmentation = pipeline.Augmentation(_FLIP.value, _MIN_SCALE.value)
        return pipeline.training_batches(
            index, num_frames, _BATCH_SIZE.value, _IMAGE_SIZES.value, _SEED.value,
            first_step, _STEPS.value, augmentation,
        )  # fmt: skip

    options = loop.TrainingOptions(
        _STEPS.value, _LEARNING_RATE.value, _ALPHA.value if _ALPHA.value == "balanced" else float(_ALPHA.value),
        _BETA.value, _REGION_WEIGHT.value, _CHECKPOINT_EVERY.value, validate_every=_VALIDATE_EVERY.value,
    )  # fmt: skip
    try:
        results = loop.train(model, make_batches, index.names, run_dir, options, validate)
    except loop.Interrupted as interruption:
        print(f"msst train: {interruption}", file=sys.stderr)
        return cli.INTERRUPTED
    print(f"{run_dir}: " + ", ".join(f"{name} {value:.4g}" for name, value in results.items()))


if __name__ == "__main__":
    cli.run(main)
