"""The options of training a motion prior."""

from __future__ import annotations

import dataclasses

from msst_keras.model.backbones import BACKBONES, MAX_WIDTH
from msst_keras.motion.camera import CAMERAS
from msst_keras.motion.superpixels import MAX_LEVELS, MAX_REGIONS, SuperpixelSettings
from msst_keras.options import check_options, option, options_of


@dataclasses.dataclass(frozen=True)
class PriorOptions:
    """What the prior is made of; see `prior.MotionPrior`."""

    num_levels: int = option(
        "M, the number of segmentations of each flow map.", SuperpixelSettings.num_levels, low=1, high=MAX_LEVELS
    )
    max_regions: int = option(
        "The most superpixels that a level may have; 256 suffice for small maps.",
        SuperpixelSettings.max_regions,
        low=2,
        high=MAX_REGIONS,
    )
    classifier_per_level: bool = option(
        "Train a classifier for each level (Eq. 1's S^j) instead of one for all.", False
    )
    backbone: str = option(
        "Network that the deep features come from; vgg16 is the paper's.", "vgg16", choices=BACKBONES
    )
    weights: str = option("The backbone's first weights: imagenet, hed (for vgg16), none, or a file.", "imagenet")
    width: float = option("A factor for the backbone's numbers of channels.", 1.0, low=0.01, high=MAX_WIDTH)
    train_backbone: bool | None = option(
        "Train the backbone too. By default it is trained only if it has no weights (--weights=none).", None
    )
    camera: str = option(
        "Which motion of the camera is removed before flow is coloured: none, the map's median, or a fitted motion.",
        "homography",
        choices=CAMERAS,
    )
    rgb_features: bool = option("Use features of the frame beside those of the flow; not in the paper.", False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPriorOptions:
    """What to train on, and how."""

    records: tuple[str, ...] = option(
        "Globs of record folders made with --store_flow, comma-separated.", remembered=False
    )
    val_records: tuple[str, ...] | None = option(
        "Globs of record folders to report on, of other sequences.", None, remembered=False
    )
    val_frames: int = option(
        "Report on at most so many frames of --val_records, drawn by --seed.", 200, low=1, remembered=False
    )
    output: str = option("File to write the prior to, NAME.keras.", remembered=False)
    batch_size: int = option("Number of flow maps in a step.", 4, low=1)
    steps: int = option("Number of steps.", 1000, low=1)
    learning_rate: float = option("Learning rate of Adam.", 1e-3, low=0)
    seed: int = option("Seed of the initial weights and of the order.", 0, low=0)
    folds: int = option(
        "Train so many more classifiers, each without a fold of the sequences, so that `msst make_records` gives each "
        "sequence of --records the prior that did not see it; 5 are usual, 0 trains none. They are in the same file.",
        0,
        low=0,
    )
    fine_only: bool = option(
        "Learn from fine labels alone, so that a network without coarse labels has a prior without them (Fig. 8).",
        False,
    )
    prior: PriorOptions = options_of(PriorOptions)

    def __post_init__(self) -> None:
        check_options(self)
