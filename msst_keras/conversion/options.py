"""The options of a conversion."""

from __future__ import annotations

import dataclasses

from msst_keras.data.datasets import DATASETS
from msst_keras.data.layouts import SPLITS
from msst_keras.motion.flow import DIRECTIONS, FLOW_METHODS, FlowSettings
from msst_keras.motion.settings import MAGNITUDE
from msst_keras.options import Size, check_options, option, options_of
from msst_keras.records.options import LABEL_KINDS

ENGINES = ("local", "beam")
STILL_FLOWS = ("exact", "estimated")


@dataclasses.dataclass(frozen=True)
class FlowOptions:
    """How flow and prior are made."""

    flow: str = option("The optical flow method.", FlowSettings.method, choices=FLOW_METHODS)
    flow_dir: str | None = option("Read the flow from FLOW_DIR/SEQUENCE/FRAME.flo or .png, in place of --flow.", None)
    flow_direction: str = option(
        "Whether flow leads from a frame to the next one (a live stream then lags by a frame) or to the one before it "
        "(no lag).",
        FlowSettings.direction,
        choices=DIRECTIONS,
    )
    flow_stride: int = option(
        "Flow is measured between frames that are this many frames apart.", FlowSettings.stride, low=1
    )
    motion_size: Size = option("The size at which flow, superpixels and prior are made.", FlowSettings.motion_size)
    prior: str = option(
        "The motion prior of the records: a file of `msst train_prior`, magnitude, flow, or none. A file brings its "
        "own flow settings, which no flag may contradict. magnitude is the length of the flow without the camera's "
        "motion, for use before there is a trained prior. flow is the flow itself as an image, for `msst train "
        "--motion_input=flow`.",
        MAGNITUDE,
    )
    prior_dir: str | None = option(
        "Take the prior maps of another method, PRIOR_DIR/SEQUENCE/FRAME.png, 8-bit grey of any size, in place of "
        "--prior. A model that is trained on them cannot be exported, because nothing here makes them.",
        None,
    )
    store_flow: bool = option("Store the flow as well, which `msst train_prior` needs.", False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class StillOptions:
    """How still images become clips."""

    still_frames: int = option(
        "Each image of --dataset=stills becomes a clip of this many frames, in which camera and object move. 1 leaves "
        "it a still image.",
        1,
        low=1,
    )
    still_flow: str = option(
        "The flow of such clips: exact is that of the motion itself, and estimated is measured on their frames by "
        "--flow, with the errors that it has in use.",
        "exact",
        choices=STILL_FLOWS,
    )
    still_seed: int = option("The seed of the motion of stills.", 0, low=0)
    still_shrunk: float = option(
        "The share of such clips that are seen from farther away, so that the object covers 3 to 30 % of the frame, "
        "as in video. It is drawn from the stills whose object lies whole within.",
        0.0,
        low=0.0,
        high=1.0,
    )
    still_parallax: float = option(
        "The share of such clips whose background is near in some places and far in others, so that no homography "
        "explains its motion.",
        0.0,
        low=0.0,
        high=1.0,
    )
    still_distractors: float = option(
        "The share of such clips in which another still's object is part of the background. It is smaller and slower "
        "than the clip's own object, and behind it.",
        0.0,
        low=0.0,
        high=1.0,
    )
    still_crowds: float = option(
        "The share of such clips in which a crowd stands behind the moving object: three to seven copies of it and of "
        "other stills' objects, which rest and are part of the background.",
        0.0,
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeRecordsOptions:
    """What to convert, or what to add a prior to, and by whom."""

    dataset: str | None = option("The layout of --root.", None, choices=DATASETS)
    root: str | None = option(
        "The folder of the dataset. For video and folder it can also be a video file or a folder of frames.", None
    )
    split: str = option("Which official part of the dataset to take.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Take only these sequences, with commas between them.", None)
    skip_sequences: tuple[str, ...] = option(
        "Take all sequences but these, for example those that are held out to validate on.", ()
    )
    output_dir: str = option("The folder to write the shards and the manifest to.")
    overwrite: bool = option(
        "Make the records anew if --output_dir holds records of other inputs or flags. Where it holds these records, "
        "their shards are read, and those that are damaged are made anew.",
        False,
    )
    num_shards: int = option(
        "The number of shards to write. A sequence lies whole in one shard, and one worker makes a shard, so there "
        "should be at least as many as --num_workers, and better four times as many.",
        8,
        low=1,
    )
    num_workers: int | None = option(
        "The number of processes that make shards, each with one thread. By default it is the number of cores that "
        "this process may use; more processes would wait for each other.",
        None,
        low=1,
    )
    engine: str = option(
        "Who makes the shards: processes of this machine (local), or Apache Beam for clusters (pip install "
        "'msst-keras[beam]').",
        "local",
        choices=ENGINES,
    )
    beam_args: str = option("Beam's own options, such as '--runner=FlinkRunner --parallelism=8'.", "")
    add_prior: str | None = option(
        "Replace the prior of the records in --output_dir by this one, which is a file of `msst train_prior`, or "
        "magnitude, or flow. All else in the records stays as it is, and the dataset is not needed.",
        None,
    )
    label_kind: str = option("Whether the masks are fine or coarse labels (section 3.3).", "fine", choices=LABEL_KINDS)
    coarse_labels: str | None = option(
        "The folder of coarse labels for the frames that have no mask, COARSE_LABELS/SEQUENCE/FRAME.png, as `msst "
        "fuse_labels` makes and `msst review_labels` corrects them. Frames with a mask keep it.",
        None,
    )
    motion: FlowOptions = options_of(FlowOptions)
    stills: StillOptions = options_of(StillOptions)

    def __post_init__(self) -> None:
        check_options(self)
