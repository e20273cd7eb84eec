"""Converts a dataset to sharded TFRecords with flow, motion prior and masks.

  msst make_records --dataset=davis --root=DAVIS --split=train --output_dir=records/davis_train --store_flow
  msst make_records --dataset=folder --root=my_frames --output_dir=records/mine --prior=prior.keras

The folders that each dataset is expected in are listed in msst_keras/data/datasets.py. Started again after an
interruption, it makes only what is missing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.tools._flags import define_size

_DATASET = flags.DEFINE_enum(
    "dataset", None, ["davis", "fbms", "segtrackv2", "stills", "folder", "video"], "Layout of --root."
)
_ROOT = flags.DEFINE_string(
    "root", None, "Folder of the dataset; a video file or a folder of frames for video and folder."
)
_SPLIT = flags.DEFINE_enum("split", "all", ["train", "val", "all"], "Which official part of the dataset.")
_SEQUENCES = flags.DEFINE_list("sequences", None, "Only these sequences, comma-separated.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder to write shards and manifest to.")
_NUM_SHARDS = flags.DEFINE_integer("num_shards", 8, "Shards to write; a sequence lies whole in one.", lower_bound=1)
_FLOW = flags.DEFINE_enum("flow", "dis", ["dis", "dis_fast", "farneback", "tvl1", "deepflow"], "Optical flow method.")
_FLOW_DIR = flags.DEFINE_string("flow_dir", None, "Read flow from FLOW_DIR/SEQUENCE/FRAME.flo or .png; not --flow.")
_DIRECTION = flags.DEFINE_enum(
    "flow_direction", "forward", ["forward", "backward"],
    "Flow from a frame to the next (a live stream then lags by a frame) or to the one before it (no lag).",
)  # fmt: skip
_STRIDE = flags.DEFINE_integer("flow_stride", 1, "Frames between the two that flow is measured on.", lower_bound=1)
_MOTION_SIZE = define_size("motion_size", "240x432", "Size at which flow, superpixels and prior are made.")
_PRIOR = flags.DEFINE_string(
    "prior", "magnitude",
    "A file of `msst train_prior` (its flow settings then hold, and no flow flag may contradict them), magnitude (the "
    "flow's residual magnitude, before there is a trained one), or none.",
)  # fmt: skip
_STORE_FLOW = flags.DEFINE_bool("store_flow", False, "Store the flow as well; `msst train_prior` needs it.")
_LABEL_KIND = flags.DEFINE_enum("label_kind", "fine", ["fine", "coarse"], "What the masks are (paper, section 3.3).")
flags.mark_flags_as_required(["dataset", "root", "output_dir"])


def main() -> None:
    """Finds the sequences, then converts them."""
    from msst_keras.data import datasets

    sequences = datasets.find_sequences(_DATASET.value, _ROOT.value, _SPLIT.value, _SEQUENCES.value)
    from msst_keras.data import convert  # brings TensorFlow: seconds that an input at fault need not wait

    description = {"dataset": _DATASET.value, "split": _SPLIT.value}
    manifest = convert.convert(
        sequences, _OUTPUT_DIR.value, _motion(), description, _LABEL_KIND.value, _NUM_SHARDS.value
    )  # fmt: skip
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
    print(
        f"{_OUTPUT_DIR.value}: {len(manifest['sequences'])} sequences, {manifest['num_frames']} frames, "
        f"{manifest['num_labelled']} labelled, {len(manifest['shards'])} shards, {size:.1f} MiB"
    )


def _motion():
    from msst_keras.data.convert import MotionOptions
    from msst_keras.motion.flow import FlowSettings

    method = "files" if _FLOW_DIR.value else _FLOW.value
    flow = FlowSettings(method, _MOTION_SIZE.value, _DIRECTION.value, _STRIDE.value)
    stored = {"store_flow": _STORE_FLOW.value, "flow_dir": _FLOW_DIR.value}
    if _PRIOR.value == "none":
        return MotionOptions(flow, None, None, {"kind": "none"}, **stored)
    from msst_keras.motion.prior import MagnitudePrior, load_prior

    if _PRIOR.value == "magnitude":
        return MotionOptions(flow, None, MagnitudePrior(), {"kind": "magnitude"}, **stored)
    prior = load_prior(_PRIOR.value)
    if (prior.flow_settings.method == "files") != bool(_FLOW_DIR.value):
        raise ValueError(f"{_PRIOR.value} was trained on flow of method {prior.flow_settings.method}; give --flow_dir "
                         "with a prior of flow from files, and with no other")  # fmt: skip
    for flag in (_FLOW, _MOTION_SIZE, _DIRECTION, _STRIDE):
        setting = {"flow": "method", "flow_direction": "direction", "flow_stride": "stride"}.get(flag.name, flag.name)
        if flags.FLAGS[flag.name].present and flag.value != getattr(prior.flow_settings, setting):
            raise ValueError(
                f"--{flag.name}={flag.value} contradicts {_PRIOR.value}, which was trained with "
                f"{getattr(prior.flow_settings, setting)}; leave the flag away or train another prior"
            )
    digest = hashlib.sha256(Path(_PRIOR.value).read_bytes()).hexdigest()
    description = {"kind": "network", "sha256": digest}
    return MotionOptions(prior.flow_settings, prior.superpixel_settings, prior, description, **stored)


if __name__ == "__main__":
    cli.run(main)
