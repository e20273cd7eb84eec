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
        "The most superpixels that a level may have. 256 are enough for small maps.",
        SuperpixelSettings.max_regions,
        low=2,
        high=MAX_REGIONS,
    )
    classifier_per_level: bool = option(
        "Train a classifier for each level (Eq. 1's S^j) instead of one for all.", False
    )
    backbone: str = option(
        "The network that the deep features come from. The paper has vgg16.", "vgg16", choices=BACKBONES
    )
    weights: str = option("The backbone's first weights: imagenet, hed (for vgg16), none, or a file.", "imagenet")
    width: float = option("A factor for the backbone's numbers of channels.", 1.0, low=0.01, high=MAX_WIDTH)
    train_backbone: bool | None = option(
        "Train the backbone too. By default it is trained only if it has no weights (--weights=none).", None
    )
    camera: str = option(
        "The motion of the camera that is removed before the flow is coloured: none, the map's median, or a fitted "
        "affine motion or homography.",
        "homography",
        choices=CAMERAS,
    )
    rgb_features: bool = option("Use features of the frame beside those of the flow. The paper does not.", False)

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPriorOptions:
    """What to train on, and how."""

    records: tuple[str, ...] = option(
        "The record folders to train on, as globs with commas between them. They must have been made with "
        "--store_flow.",
        remembered=False,
    )
    val_records: tuple[str, ...] | None = option(
        "The record folders to report on, as globs with commas between them. They must hold other sequences.",
        None,
        remembered=False,
    )
    val_frames: int = option(
        "Report on at most this many frames of --val_records, drawn by --seed.", 200, low=1, remembered=False
    )
    output: str = option("The file to write the prior to, NAME.keras.", remembered=False)
    batch_size: int = option("The number of flow maps in a step.", 4, low=1)
    steps: int = option("The number of steps.", 1000, low=1)
    learning_rate: float = option("The learning rate of Adam.", 1e-3, low=0)
    seed: int = option("The seed of the initial weights and of the order.", 0, low=0)
    folds: int = option(
        "Deal the sequences into this many folds and train one more classifier for each, which does not see its fold. "
        "The file then holds all of them, and `msst make_records` gives each sequence of --records the prior that did "
        "not see it. 5 is usual; 0 trains none.",
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
