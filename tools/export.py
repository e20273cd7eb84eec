"""Exports a run as a SavedModel with its motion prior inside, for predict, query and TF Serving.

msst export --run_dir=runs/msst --output_dir=saved_models/msst
"""

from __future__ import annotations

import platform
from pathlib import Path

from absl import flags

import msst_keras
from msst_keras import cli
from msst_keras.tools._flags import define_size

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "saved_models/NAME; the model goes to NAME/VERSION.")
_IMAGE_SIZE = define_size("image_size", None, "The network's input size; by default the last one it was trained with.")
_VERSION = flags.DEFINE_integer(
    "version", None, "Number of the version; by default one more than there is.", lower_bound=1
)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16"],
    "What the network computes in. float32 runs well everywhere; bfloat16 only where the hardware multiplies it.",
)  # fmt: skip
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "last", ["last", "best"], "Of the run; best: of its validations, by S-measure."
)
flags.mark_flags_as_required(["run_dir", "output_dir"])


def main() -> None:
    """Loads the run and its prior, writes the SavedModel."""
    import keras
    import tensorflow as tf

    from msst_keras.model.msst import fold_model
    from msst_keras.motion.flow import FlowSettings
    from msst_keras.motion.prior import UNTRAINED_PRIORS, load_prior
    from msst_keras.serving.export import export_saved_model
    from msst_keras.training import run

    settings = run.read_run(_RUN_DIR.value)
    if settings["motion"] and settings["motion"]["prior"]["kind"] == "files":
        raise ValueError(
            f"{_RUN_DIR.value}: its motion prior came from files (--prior_dir), which no model makes; train with a "
            "prior of `msst train_prior` to export"
        )
    keras.config.set_dtype_policy(_PRECISION.value)
    model = fold_model(run.load_model(_RUN_DIR.value, _CHECKPOINT.value), settings["model"])
    keras.config.set_dtype_policy("float32")
    prior = None
    if settings["motion"]:
        run.keep_prior(_RUN_DIR.value, settings["motion"], None)  # refuses a prior other than the records'
        kind, flow = settings["motion"]["prior"]["kind"], FlowSettings.from_dict(settings["motion"]["flow"])
        prior = UNTRAINED_PRIORS[kind](flow) if kind in UNTRAINED_PRIORS else load_prior(
            Path(_RUN_DIR.value) / run.PRIOR_NAME
        )  # fmt: skip
    output_dir = Path(_OUTPUT_DIR.value)
    versions = [int(path.name) for path in output_dir.glob("*") if path.name.isdigit()]
    path = output_dir / str(_VERSION.value or max(versions, default=0) + 1)
    asset = {
        "num_frames": settings["model"]["num_frames"],
        "image_size": _IMAGE_SIZE.value or settings["image_size"],
        "motion": settings["motion"],
        "model": settings["model"],
        "precision": _PRECISION.value,
        "run": Path(_RUN_DIR.value).resolve().name,
        "versions": {
            "msst_keras": msst_keras.__version__, "tensorflow": tf.__version__, "keras": keras.__version__,
            "python": platform.python_version(),
        },
    }  # fmt: skip
    export_saved_model(path, model, prior, asset)
    print(path)


if __name__ == "__main__":
    cli.run(main)
