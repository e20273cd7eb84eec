"""The options of making coarse labels, and of reviewing them."""

from __future__ import annotations

import dataclasses

from msst_keras.data.layouts import NAMED_DATASETS, SPLITS
from msst_keras.options import PAIR, check_options, option

ORDERS = ("doubt", "sequence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseLabelsOptions:
    """Which maps to fuse into labels, and how."""

    dataset: str = option("Layout of --root.", "folder", choices=(*NAMED_DATASETS, "folder", "video"))
    root: str = option("Folder of the dataset, a folder of frames, or a video file.")
    split: str = option("Which official part of the dataset.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Only these sequences, comma-separated.", None)
    ground_truth: str | None = option(
        "Folder of more masks, SEQUENCE/FRAME.png, for sequences without masks in the dataset.", None
    )
    maps: tuple[str, ...] = option(
        "NAME:DIR for each method, comma-separated; its maps are DIR/SEQUENCE/FRAME.png, 8-bit grey.",
        (),
        syntax=PAIR,
    )
    sources: tuple[str, ...] | None = option(
        "Built-in methods to fuse as well: flow_magnitude, spectral_residual, fine_grained, model. The default is the "
        "first two, and the model if there is one. With --maps it is none of them, or the model if --model names one.",
        None,
    )
    model: str | None = option(
        "Folder of a SavedModel of `msst export`, for the source 'model'. By default the one installed with the "
        "package.",
        None,
    )
    free_offset: bool = option(
        "Fit the weights up to a constant in each frame, because the threshold is chosen for each frame anyway. "
        "--nofree_offset fits exactly as the paper's reference [11] does.",
        True,
    )
    output_dir: str = option("Folder for the labels and for the built-in methods' maps.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewLabelsOptions:
    """What to review, and where the page is."""

    frames: str = option(
        "Folder of the frames: FRAMES/SEQUENCE/FRAME.jpg, or one folder of frames. `msst fuse_labels` writes the "
        "frames of a video file to OUTPUT_DIR/frames."
    )
    labels: str = option("Folder of the labels: LABELS/SEQUENCE/FRAME.png, of 0 and 255.")
    order: str = option(
        "Show the most doubtful label first, as LABELS/frames.csv lists them, or go by name.", "doubt", choices=ORDERS
    )
    host: str = option(
        "Address to listen on. On any address but this machine's own, the page asks for a token.", "127.0.0.1"
    )
    port: int = option("Port to listen on; 0 takes a free one.", 8765, low=0, high=65535)

    def __post_init__(self) -> None:
        check_options(self)
