"""Trains the motion prior: the classifier of superpixels of the flow map (section 3.1).

  msst train_prior --records=records/davis_flow --output=prior.keras

The records need flow (`msst make_records --store_flow`) and masks; the prior takes over their flow settings.
"""

from __future__ import annotations

import json

from absl import flags

from msst_keras import cli

_RECORDS = flags.DEFINE_list("records", None, "Globs of record folders made with --store_flow, comma-separated.")
_OUTPUT = flags.DEFINE_string("output", None, "File of the prior, NAME.keras.")
_NUM_LEVELS = flags.DEFINE_integer("num_levels", 3, "M, segmentations of each flow map.", lower_bound=1)
_MAX_REGIONS = flags.DEFINE_integer(
    "max_regions", 512, "Most superpixels of a level; 256 do for small maps.", lower_bound=2
)
_PER_LEVEL = flags.DEFINE_bool("classifier_per_level", False, "One classifier per level (Eq. 1's S^j) instead of one.")
_BACKBONE = flags.DEFINE_enum("backbone", "vgg16", ["vgg16"], "Network that the deep features come from.")
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Of the backbone: imagenet (downloads), none, or a file.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies the backbone's numbers of channels.", lower_bound=0.01)
_TRAIN_BACKBONE = flags.DEFINE_bool(
    "train_backbone", None, "Train the backbone too; by default only where it has no weights (--weights=none)."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Flow maps in a step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 1000, "Steps.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of initial weights and order.", lower_bound=0)
flags.mark_flags_as_required(["records", "output"])


def main() -> None:
    """Reads flow and masks, segments, trains, writes the file."""
    import keras
    import numpy as np

    from msst_keras.data import pipeline
    from msst_keras.files import publish
    from msst_keras.motion.flow import FlowSettings
    from msst_keras.motion.prior import MotionPrior
    from msst_keras.motion.prior_training import train_prior
    from msst_keras.motion.superpixels import SuperpixelSettings, segment

    if not _OUTPUT.value.endswith(".keras"):
        raise ValueError(f"--output must end with .keras, not '{_OUTPUT.value}'")
    index, flow_settings = pipeline.index_flow(pipeline.find_record_folders(_RECORDS.value))
    superpixels = SuperpixelSettings(num_levels=_NUM_LEVELS.value, max_regions=_MAX_REGIONS.value)
    keras.utils.set_random_seed(_SEED.value)
    prior = MotionPrior(
        FlowSettings.from_dict(flow_settings), superpixels, backbone=_BACKBONE.value, width=_WIDTH.value,
        backbone_weights=_WEIGHTS.value, train_backbone=_TRAIN_BACKBONE.value, classifier_per_level=_PER_LEVEL.value,
    )  # fmt: skip

    def batches():
        for batch in pipeline.flow_batches(index, _BATCH_SIZE.value, _SEED.value, 0, _STEPS.value).as_numpy_iterator():
            labels = np.stack([segment(flow, superpixels) for flow in batch["flow"]])
            yield {"flow": batch["flow"], "superpixels": labels, "mask": batch["mask"] > 0.5}

    report = train_prior(batches(), prior, _STEPS.value, _LEARNING_RATE.value, _SEED.value)
    with publish(_OUTPUT.value) as temporary:
        prior.save(temporary)
    print(f"{_OUTPUT.value}: {json.dumps(report)}")


if __name__ == "__main__":
    cli.run(main)
