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

    flow: str = option("Optical flow method.", FlowSettings.method, choices=FLOW_METHODS)
    flow_dir: str | None = option("Read flow from FLOW_DIR/SEQUENCE/FRAME.flo or .png; not --flow.", None)
    flow_direction: str = option(
        "Flow from a frame to the next (a live stream then lags by a frame) or to the one before it (no lag).",
        FlowSettings.direction,
        choices=DIRECTIONS,
    )
    flow_stride: int = option("Frames between the two that flow is measured on.", FlowSettings.stride, low=1)
    motion_size: Size = option("Size at which flow, superpixels and prior are made.", FlowSettings.motion_size)
    prior: str = option(
        "A file of `msst train_prior` (its flow settings then hold, and no flow flag may contradict them), magnitude "
        "(the flow's residual magnitude, before there is a trained one), flow (flow itself as an image, for msst train "
        "--motion_input=flow), or none.",
        MAGNITUDE,
    )
    prior_dir: str | None = option(
        "Prior maps of another method, PRIOR_DIR/SEQUENCE/FRAME.png, 8-bit grey of any size, in place of --prior. A "
        "model that is trained on them cannot be exported, since nothing here makes them.",
        None,
    )
    store_flow: bool = option("Store the flow as well; `msst train_prior` needs it.", False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class StillOptions:
    """How still images become clips."""

    still_frames: int = option(
        "Frames of the clip that each of --dataset=stills becomes, camera and object moving; 1: none.", 1, low=1
    )
    still_flow: str = option(
        "Flow of such clips: of the motion itself, or by --flow from their frames, with the errors it has in use.",
        "exact",
        choices=STILL_FLOWS,
    )
    still_seed: int = option("Of the motion of stills.", 0, low=0)
    still_shrunk: float = option(
        "Share of such clips seen from farther away, so that the object is 3 to 30 % of the frame, as in video; of "
        "stills whose object lies whole within.",
        0.0,
        low=0.0,
        high=1.0,
    )
    still_parallax: float = option(
        "Share of such clips whose background is near here and far there, so that no homography explains its motion.",
        0.0,
        low=0.0,
        high=1.0,
    )
    still_distractors: float = option(
        "Share of such clips in which another still's object, smaller, slower and behind, is part of the background.",
        0.0,
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MakeRecordsOptions:
    """What to convert, or what to add a prior to, and by whom."""

    dataset: str | None = option("Layout of --root.", None, choices=DATASETS)
    root: str | None = option("Folder of the dataset; a video file or a folder of frames for video and folder.", None)
    split: str = option("Which official part of the dataset.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Only these sequences, comma-separated.", None)
    skip_sequences: tuple[str, ...] = option("All but these sequences, as those that are held out to validate on.", ())
    output_dir: str = option("Folder to write shards and manifest to.")
    overwrite: bool = option("Make records anew that --output_dir holds of other inputs or flags.", False)
    num_shards: int = option(
        "Shards to write; a sequence lies whole in one. At least --num_workers of them, better four times as many: a "
        "shard is one worker's.",
        8,
        low=1,
    )
    num_workers: int | None = option(
        "Processes that make shards, each with one thread. The default is the number of cores that this process may "
        "use: more would wait for each other.",
        None,
        low=1,
    )
    engine: str = option(
        "Who makes the shards: processes of this machine, or Apache Beam (pip install 'msst-keras[beam]') for "
        "clusters.",
        "local",
        choices=ENGINES,
    )
    beam_args: str = option("Beam's own options, as '--runner=FlinkRunner --parallelism=8'.", "")
    add_prior: str | None = option(
        "Replace the prior of the records in --output_dir by this one, a file of `msst train_prior` or magnitude or "
        "flow, and leave all else in them as it is. No dataset is needed.",
        None,
    )
    label_kind: str = option("What the masks are (paper, section 3.3).", "fine", choices=LABEL_KINDS)
    coarse_labels: str | None = option(
        "Coarse labels of the frames that have no mask, COARSE_LABELS/SEQUENCE/FRAME.png, as `msst fuse_labels` makes "
        "and `msst review_labels` corrects them. Frames with a mask keep it.",
        None,
    )
    motion: FlowOptions = options_of(FlowOptions)
    stills: StillOptions = options_of(StillOptions)

    def __post_init__(self) -> None:
        check_options(self)
