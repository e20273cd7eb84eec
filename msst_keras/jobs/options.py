"""The options of jobs that run other jobs."""

from __future__ import annotations

import dataclasses

from msst_keras.data.layouts import NAMED_DATASETS, SPLITS
from msst_keras.options import check_options, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """What to train, and what to test it on."""

    configs: tuple[str, ...] = option("Flagfiles of `msst train`, in order, comma-separated.")
    train_args: str = option("Flags of `msst train` for all runs; a config's own win.", "")
    seeds: tuple[str, ...] = option("Each config is trained once a seed; more than one gives mean and spread.", ("0",))
    crf: tuple[str, ...] = option("Configs whose maps are also refined, as NAME_crf: names, or all.", ())
    refine_args: str = option("Flags of `msst refine`, such as --crf_preset=dss.", "")
    ground_truth: str = option("Folder of the dataset to test on.")
    layout: str = option("Of --ground_truth.", "davis", choices=NAMED_DATASETS)
    split: str = option("Which official part of it.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Only these sequences, comma-separated.", None)
    protocol: str = option("Of `msst evaluate`.", "paper")
    output_dir: str = option("Folder for everything.")

    def __post_init__(self) -> None:
        check_options(self)


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """How much the demo does, and where."""

    output_dir: str = option("Folder for everything that the demo makes.", "demo")
    steps: int = option("Training steps on clips; four times as many on frames.", 90, low=1)
    prior_steps: int = option("Training steps of the motion prior.", 150, low=1)
    num_videos: int = option("Videos to generate.", 56, low=2)
    num_val: int = option("Of these, videos that are held out to score on.", 8, low=1)

    def __post_init__(self) -> None:
        check_options(self)
