"""Trains the motion prior: the classifier of superpixels of the flow map (section 3.1).

  msst train_prior --records=records/davis_flow --output=prior.keras

The records need flow (`msst make_records --store_flow`) and masks; the prior takes over their flow settings. vgg16 is
the paper's backbone; mobilenetv2 is the light one, which keeps up with a live video on a CPU.

OUTPUT.json, beside the .keras file, says how good the prior is: the share of superpixels classified right, and on
--val_records the prior as a saliency map (MAE, max F, S at the size of the flow), beside flow magnitude and all black.
"""

from __future__ import annotations

import json
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.tools._flags import BACKBONES

_RECORDS = flags.DEFINE_list("records", None, "Globs of record folders made with --store_flow, comma-separated.")
_VAL_RECORDS = flags.DEFINE_list("val_records", None, "Globs of record folders to report on, of other sequences.")
_VAL_FRAMES = flags.DEFINE_integer(
    "val_frames", 200, "At most so many of their frames, drawn by --seed.", lower_bound=1
)
_OUTPUT = flags.DEFINE_string("output", None, "File of the prior, NAME.keras.")
_NUM_LEVELS = flags.DEFINE_integer("num_levels", 3, "M, segmentations of each flow map.", lower_bound=1)
_MAX_REGIONS = flags.DEFINE_integer(
    "max_regions", 512, "Most superpixels of a level; 256 do for small maps.", lower_bound=2
)
_PER_LEVEL = flags.DEFINE_bool("classifier_per_level", False, "One classifier per level (Eq. 1's S^j) instead of one.")
_BACKBONE = flags.DEFINE_enum(
    "backbone", "vgg16", BACKBONES, "Network that the deep features come from; vgg16 is the paper's."
)
_WEIGHTS = flags.DEFINE_string("weights", "imagenet", "Of the backbone: imagenet, hed (vgg16), none, or a file.")
_WIDTH = flags.DEFINE_float("width", 1.0, "Multiplies the backbone's numbers of channels.", lower_bound=0.01)
_TRAIN_BACKBONE = flags.DEFINE_bool(
    "train_backbone", None, "Train the backbone too; by default only where it has no weights (--weights=none)."
)
_CAMERA = flags.DEFINE_enum(
    "camera", "homography", ["none", "median", "affine", "homography"],
    "The camera's motion that is removed before flow is coloured: the map's median, or a fitted one.",
)  # fmt: skip
_RGB_FEATURES = flags.DEFINE_bool(
    "rgb_features", False, "Features of the frame beside those of the flow; not in the paper."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Flow maps in a step.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 1000, "Steps.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 1e-3, "Of Adam.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Of initial weights and order.", lower_bound=0)
flags.mark_flags_as_required(["records", "output"])


def main() -> None:
    """Reads flow and masks, segments, trains, writes the file."""
    import keras

    from msst_keras.files import publish
    from msst_keras.motion.flow import FlowSettings
    from msst_keras.motion.prior import MotionPrior
    from msst_keras.motion.prior_training import train_prior
    from msst_keras.motion.superpixels import SuperpixelSettings
    from msst_keras.pipeline import clip_index
    from msst_keras.records.folders import check_disjoint

    if not _OUTPUT.value.endswith(".keras"):
        raise ValueError(f"--output must end with .keras, not '{_OUTPUT.value}'")
    folders = clip_index.find_record_folders(_RECORDS.value)
    index, flow_settings = clip_index.index_flow(folders)
    val_index = None
    if _VAL_RECORDS.value:
        val_folders = clip_index.find_record_folders(_VAL_RECORDS.value)
        check_disjoint(folders, val_folders)
        val_index, val_flow_settings = clip_index.index_flow(val_folders)
        if val_flow_settings != flow_settings:
            raise ValueError("--val_records were made with other flow settings than --records; make them alike")
    superpixels = SuperpixelSettings(num_levels=_NUM_LEVELS.value, max_regions=_MAX_REGIONS.value)
    keras.utils.set_random_seed(_SEED.value)
    prior = MotionPrior(
        FlowSettings.from_dict(flow_settings), superpixels, backbone=_BACKBONE.value, width=_WIDTH.value,
        backbone_weights=_WEIGHTS.value, train_backbone=_TRAIN_BACKBONE.value, camera=_CAMERA.value,
        rgb_features=_RGB_FEATURES.value, classifier_per_level=_PER_LEVEL.value,
    )  # fmt: skip
    batches = _read_batches(index, prior, _BATCH_SIZE.value, _STEPS.value)
    report = {"training": train_prior(batches, prior, _STEPS.value, _LEARNING_RATE.value, _SEED.value)}
    report["validation"] = _validate(val_index, prior) if val_index else None
    with publish(_OUTPUT.value) as temporary:
        prior.save(temporary)
    with publish(Path(_OUTPUT.value).with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{_OUTPUT.value}: {json.dumps(report['training'])} on training data")
    if val_index is None:
        print("nothing was held out; --val_records of other sequences tell how good the prior is")
        return
    frames = report["validation"]["num_frames"]
    print(f"held out, {frames} frames: {json.dumps(report['validation']['regions'])}\n")
    print("                  MAE   max F      S")
    for name, scores in report["validation"]["maps"].items():
        print(f"{name:14s} " + " ".join(f"{score:6.3f}" for score in scores.values()))


def _read_batches(index, prior, batch_size: int, steps: int):
    """Yields batches of the records with the prior's superpixels."""
    import numpy as np

    from msst_keras.motion.superpixels import segment
    from msst_keras.pipeline.batches import flow_batches

    dataset = flow_batches(index, batch_size, _SEED.value, 0, steps, prior.needs_frames)
    for batch in dataset.as_numpy_iterator():
        labels = np.stack([segment(flow, prior.superpixel_settings) for flow in batch["flow"]])
        yield {**batch, "superpixels": labels, "mask": batch["mask"] > 0.5}


def _validate(index, prior) -> dict:
    """The accuracy over regions, and MAE, max F and S of the prior, flow magnitude and black as saliency maps."""
    import numpy as np

    from msst_keras.evaluation.protocols import PROTOCOLS, Evaluator
    from msst_keras.motion.flow import magnitude_prior
    from msst_keras.motion.prior_training import predict_priors, summarise_regions

    evaluators = {name: Evaluator(PROTOCOLS["paper"]) for name in ("prior", "flow magnitude", "all black")}
    counts, num_frames = np.zeros(4), min(_VAL_FRAMES.value, len(index))
    for batch, maps, found in predict_priors(_read_batches(index, prior, 1, num_frames), prior):
        sequence, _, frame = index.names[batch["clip"][0]].rpartition("/")
        magnitude = magnitude_prior(batch["flow"][0], _CAMERA.value)
        for evaluator, saliency in zip(evaluators.values(), (maps[0], magnitude, np.zeros_like(maps[0])), strict=True):
            evaluator.add(sequence, frame, saliency, batch["mask"][0])
        counts += found
    results = {name: evaluator.result() for name, evaluator in evaluators.items()}
    maps = {name: {key: result[key] for key in ("mae", "max_f", "s_measure")} for name, result in results.items()}
    return {"num_frames": num_frames, "regions": summarise_regions(counts), "maps": maps}


if __name__ == "__main__":
    cli.run(main)
