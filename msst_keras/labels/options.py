"""The options of making coarse labels, and of reviewing them."""

from __future__ import annotations

import dataclasses

from msst_keras.data.layouts import NAMED_DATASETS, SPLITS
from msst_keras.options import PAIR, check_options, option

ORDERS = ("doubt", "sequence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseLabelsOptions:
    """Which maps to fuse into labels, and how."""

    dataset: str = option("The layout of --root.", "folder", choices=(*NAMED_DATASETS, "folder", "video"))
    root: str = option("The folder of the dataset, a folder of frames, or a video file.")
    split: str = option("Which official part of the dataset to take.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Take only these sequences, with commas between them.", None)
    ground_truth: str | None = option(
        "A folder of more masks, SEQUENCE/FRAME.png, for sequences that have no masks in the dataset.", None
    )
    maps: tuple[str, ...] = option(
        "The maps of each method, NAME:DIR, with commas between them. They are DIR/SEQUENCE/FRAME.png, 8-bit grey.",
        (),
        syntax=PAIR,
    )
    sources: tuple[str, ...] | None = option(
        "Built-in methods to fuse as well: flow_magnitude, spectral_residual, fine_grained, model. The default is the "
        "first two, and the model if there is one. With --maps it is none of them, or the model if --model names one.",
        None,
    )
    model: str | None = option(
        "The folder of a SavedModel of `msst export`, for the source 'model'. By default it is the model that is "
        "installed with the package.",
        None,
    )
    free_offset: bool = option(
        "Fit the weights up to a constant in each frame, because the threshold is chosen for each frame anyway. "
        "--nofree_offset fits exactly as the paper's reference [11] does.",
        True,
    )
    output_dir: str = option("The folder for the labels and for the maps of the built-in methods.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewLabelsOptions:
    """What to review, and where the page is."""

    frames: str = option(
        "The folder of the frames: FRAMES/SEQUENCE/FRAME.jpg, or one folder of frames. `msst fuse_labels` writes the "
        "frames of a video file to OUTPUT_DIR/frames."
    )
    labels: str = option("The folder of the labels, LABELS/SEQUENCE/FRAME.png, which hold 0 and 255.")
    order: str = option(
        "Show the most doubtful label first, as LABELS/frames.csv lists them (doubt), or go by name (sequence).",
        "doubt",
        choices=ORDERS,
    )
    host: str = option(
        "The address to listen on. On any address but this machine's own, the page asks for a token.", "127.0.0.1"
    )
    port: int = option("The port to listen on. 0 takes a free one.", 8765, low=0, high=65535)

    def __post_init__(self) -> None:
        check_options(self)
