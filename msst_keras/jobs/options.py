"""The options of jobs that run other jobs."""

from __future__ import annotations

import dataclasses

from msst_keras.data.layouts import NAMED_DATASETS, SPLITS
from msst_keras.options import check_options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """What to train, and what to test it on."""

    configs: tuple[str, ...] = option("The flagfiles of `msst train`, in order, with commas between them.")
    train_args: str = option(
        "Flags of `msst train` for all runs. Where a config has the same flag, its own value holds.", ""
    )
    seeds: tuple[str, ...] = option(
        "Each config is trained once with each of these seeds. Several seeds give a mean and a spread.", ("0",)
    )
    crf: tuple[str, ...] = option("The names of the configs whose maps are also refined, as NAME_crf, or all.", ())
    refine_args: str = option("Flags of `msst refine`, such as --crf_preset=dss.", "")
    ground_truth: str = option("The folder of the dataset to test on.")
    layout: str = option("The layout of --ground_truth.", "davis", choices=NAMED_DATASETS)
    split: str = option("Which official part of the dataset to test on.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Test on these sequences only, with commas between them.", None)
    protocol: str = option("The protocol of `msst evaluate`.", "paper")
    output_dir: str = option("The folder for everything that is made.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """How much the demo does, and where."""

    output_dir: str = option("The folder for everything that the demo makes.", "demo")
    steps: int = option(
        "The number of training steps on clips. There are four times as many on single frames before them.", 90, low=1
    )
    prior_steps: int = option("The number of training steps of the motion prior.", 150, low=1)
    num_videos: int = option("The number of videos to generate.", 56, low=2)
    num_val: int = option("How many of these videos are held out to score on.", 8, low=1)

    def __post_init__(self) -> None:
        check_options(self)
