"""Converts a dataset to sharded TFRecords with flow, motion prior and masks.

  msst make_records --dataset=davis --root=DAVIS --split=train --output_dir=records/davis_train --store_flow
  msst make_records --dataset=folder --root=my_frames --output_dir=records/mine --prior=prior.keras
  msst make_records --add_prior=prior.keras --output_dir=records/davis_train

The folders that each dataset is expected in are listed in msst_keras/data/datasets.py. Started again after any
interruption, it makes only what is missing. The bytes written depend on the input and on the flags, but not on
--num_workers, --engine or interruptions. The last lines say how long each stage took.
"""

from __future__ import annotations

import os
import shlex

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
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards", 8, "Shards to write; a sequence lies whole in one. At least --num_workers of them, better four times "
    "as many: a shard is one worker's.", lower_bound=1,
)  # fmt: skip
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Processes that make shards, each with one thread. The default is the number of cores that "
    "this process may use: more would wait for each other.", lower_bound=1,
)  # fmt: skip
_ENGINE = flags.DEFINE_enum(
    "engine", "local", ["local", "beam"],
    "Who makes the shards: processes of this machine, or Apache Beam (pip install 'msst-keras[beam]') for clusters.",
)  # fmt: skip
_BEAM_ARGS = flags.DEFINE_string("beam_args", "", "Beam's own options, as '--runner=FlinkRunner --parallelism=8'.")
_ADD_PRIOR = flags.DEFINE_string(
    "add_prior", None, "Replace the prior of the records in --output_dir by this one, a file of `msst train_prior` or "
    "magnitude or flow, and leave all else in them as it is. No dataset is needed."
)  # fmt: skip
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
    "flow's residual magnitude, before there is a trained one), flow (flow itself as an image, for msst train "
    "--motion_input=flow), or none.",
)  # fmt: skip
_PRIOR_DIR = flags.DEFINE_string(
    "prior_dir", None, "Prior maps of another method, PRIOR_DIR/SEQUENCE/FRAME.png, 8-bit grey of any size, in place "
    "of --prior. A model that is trained on them cannot be exported, since nothing here makes them."
)  # fmt: skip
_STORE_FLOW = flags.DEFINE_bool("store_flow", False, "Store the flow as well; `msst train_prior` needs it.")
_LABEL_KIND = flags.DEFINE_enum("label_kind", "fine", ["fine", "coarse"], "What the masks are (paper, section 3.3).")
_COARSE_LABELS = flags.DEFINE_string(
    "coarse_labels", None, "Coarse labels of the frames that have no mask, COARSE_LABELS/SEQUENCE/FRAME.png, as "
    "`msst fuse_labels` makes and `msst review_labels` corrects them. Frames with a mask keep it."
)  # fmt: skip
_STILL_FRAMES = flags.DEFINE_integer(
    "still_frames", 1, "Frames of the clip that each of --dataset=stills becomes, camera and object moving; 1: none.",
    lower_bound=1,
)  # fmt: skip
_STILL_FLOW = flags.DEFINE_enum(
    "still_flow", "exact", ["exact", "estimated"],
    "Flow of such clips: of the motion itself, or by --flow from their frames, with the errors it has in use.",
)  # fmt: skip
_STILL_SEED = flags.DEFINE_integer("still_seed", 0, "Of the motion of stills.", lower_bound=0)
flags.mark_flag_as_required("output_dir")
_OF_RUNS = ("output_dir", "num_workers", "engine", "beam_args", "add_prior")  # the flags that --add_prior goes with


@flags.multi_flags_validator(["add_prior", "dataset", "root"], "needs --dataset and --root, or --add_prior")
def _check_input(values: dict) -> bool:
    if not values["add_prior"]:
        return bool(values["dataset"] and values["root"])
    own = [flag.name for flag in flags.FLAGS.get_flags_for_module(flags.FLAGS.find_module_defining_flag("add_prior"))]
    for name in own:
        if name not in _OF_RUNS and flags.FLAGS[name].present:
            raise flags.ValidationError(f"--add_prior takes the records as they are; leave --{name} away")
    return True


def main() -> None:
    """Finds the sequences, then converts them; or adds a prior."""
    if _ENGINE.value == "local" and _BEAM_ARGS.value:
        raise ValueError("--beam_args are for --engine=beam; leave them away or choose that engine")
    if _ENGINE.value == "beam" and _NUM_WORKERS.value:
        raise ValueError("--num_workers is for --engine=local; tell Beam's runner by --beam_args")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # macOS has it not
    num_workers = _NUM_WORKERS.value or cores
    run = {"num_workers": num_workers, "engine": _ENGINE.value, "beam_args": shlex.split(_BEAM_ARGS.value)}
    if not _ADD_PRIOR.value:
        from msst_keras.data import datasets, label_folders

        sequences = datasets.find_sequences(_DATASET.value, _ROOT.value, _SPLIT.value, _SEQUENCES.value)
        if _COARSE_LABELS.value:
            sequences = label_folders.add_coarse_labels(sequences, _COARSE_LABELS.value)
        sequences, stills = _set_in_motion(sequences)
    from msst_keras.conversion import convert  # brings TensorFlow: seconds that an input at fault need not wait
    from msst_keras.conversion.work_report import WorkReport

    report = WorkReport()
    if _ADD_PRIOR.value:
        manifest = convert.add_prior(_OUTPUT_DIR.value, _ADD_PRIOR.value, **run, report=report)
    else:
        description = {"dataset": _DATASET.value, "split": _SPLIT.value, **stills}
        manifest = convert.convert(
            sequences, _OUTPUT_DIR.value, _motion(), description, _LABEL_KIND.value, _NUM_SHARDS.value, **run,
            report=report,
        )  # fmt: skip
    if report.num_frames:
        print(report.format())
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
    print(
        f"{_OUTPUT_DIR.value}: {len(manifest['sequences'])} sequences, {manifest['num_frames']} frames, "
        f"{manifest['num_labelled']} labelled, {len(manifest['shards'])} shards, {size:.1f} MiB"
    )


def _set_in_motion(sequences):
    """The sequences, stills as clips where that is asked for, and what the manifest says of it."""
    if _STILL_FRAMES.value == 1:
        return sequences, {}
    if _DATASET.value != "stills" or _FLOW_DIR.value:
        raise ValueError("--still_frames is for --dataset=stills without --flow_dir: nobody has flow of such clips")
    from msst_keras.synthetic.stills import MovingStill

    motion = _STILL_FRAMES.value, _STILL_SEED.value, _STILL_FLOW.value == "exact"
    stills = dict(zip(("num_frames", "seed", "flow"), (*motion[:2], _STILL_FLOW.value), strict=True))
    return [MovingStill.from_sequence(still, *motion) for still in sequences], {"stills": stills}


def _motion():
    from msst_keras.motion.flow import FlowSettings
    from msst_keras.motion.settings import FILES, MotionOptions

    method = "files" if _FLOW_DIR.value else _FLOW.value
    flow = FlowSettings(method, _MOTION_SIZE.value, _DIRECTION.value, _STRIDE.value)
    stored = {"store_flow": _STORE_FLOW.value, "flow_dir": _FLOW_DIR.value}
    if _PRIOR_DIR.value:
        if flags.FLAGS["prior"].present:
            raise ValueError("--prior and --prior_dir are two priors; give one of them")
        return MotionOptions(flow, None, FILES, **stored, prior_dir=_PRIOR_DIR.value)
    if _PRIOR.value in ("none", "magnitude", "flow"):
        return MotionOptions(flow, None, _PRIOR.value, **stored)
    from msst_keras.motion.prior import load_prior

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
    return MotionOptions(prior.flow_settings, prior.superpixel_settings, _PRIOR.value, **stored)


if __name__ == "__main__":
    cli.run(main)
