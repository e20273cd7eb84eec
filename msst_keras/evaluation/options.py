"""The options of an evaluation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from msst_keras.data.layouts import NAMED_DATASETS, SPLITS
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.options import PAIR, check_options, option

PROTOCOL_NAMES = tuple(PROTOCOLS)
_LONGEST_METHOD = 100  # bytes of a name, which becomes a part of names of files
FLAT = "flat"  # a layout: one folder of masks, which are one sequence without frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What to score, and by which rules."""

    predictions: str = option("The folder of the maps.", remembered=False)
    name: str = option("What the maps are called in the tables and the report.", "predictions")
    ground_truth: str = option("The folder of the dataset that has the masks.", remembered=False)
    layout: str = option(
        "The layout of --ground_truth. flat is one folder of masks, which counts as one sequence.",
        "davis",
        choices=(*NAMED_DATASETS, FLAT),
    )
    split: str = option("Which official part of the dataset to score.", "all", choices=SPLITS)
    sequences: tuple[str, ...] | None = option("Score only these sequences, with commas between them.", None)
    protocol: tuple[str, ...] = option(
        f"One or several protocols, or all: {', '.join(PROTOCOL_NAMES)}. Their numbers cannot be compared.",
        ("paper",),
        choices=(*PROTOCOL_NAMES, "all"),
    )
    output_dir: str = option("The folder for the results.", remembered=False)
    overwrite: bool = option(
        "Score anew if --output_dir holds results of other maps, masks or flags.", False, remembered=False
    )
    compare: tuple[str, ...] = option(
        "Score the maps of these other methods too: NAME:DIR, with commas between them.",
        (),
        syntax=PAIR,
        remembered=False,
    )
    baselines: bool = option("Score an all-black map and the magnitude of flow too.", True)
    temporal_stability: bool = option(
        "Measure how much the maps flicker along the flow of the frames (T; 0 is best), which takes time.", False
    )
    report: bool = option("Write report.html and its figures.", True)
    num_workers: int | None = option(
        "The number of processes, by default one per core. Any number gives the same result.",
        None,
        low=1,
        remembered=False,
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not are_protocols(self.protocol):
            names = ", ".join(PROTOCOL_NAMES)
            raise ValueError(f"protocol must be among {names}, or all, not {', '.join(self.protocol)}")

    @property
    def protocols(self) -> tuple[str, ...]:
        """The names of the protocols, each once."""
        return PROTOCOL_NAMES if tuple(self.protocol) == ("all",) else tuple(dict.fromkeys(self.protocol))


def check_method_names(names: Iterable[str], taken: Iterable[str] = ()) -> None:
    """Refuses names of methods that files, tables and flags cannot have; `taken` are those that others have already.

    Raises:
      ValueError: names the first of them.
    """
    used = {in_file_names(name) for name in taken}
    for name in names:
        if not re.fullmatch(r"\w[\w .,+()\[\]-]*", name) or len(name.encode()) > _LONGEST_METHOD:
            raise ValueError(
                f"a method must have a name of letters, digits, spaces and .,+-_()[], at most {_LONGEST_METHOD} bytes "
                f"long, not {name!r}; rename it"
            )
        if in_file_names(name) in used:
            raise ValueError(f"methods must have different names, but {name!r} is there already; rename one")
        used.add(in_file_names(name))


def in_file_names(name: str) -> str:
    """A method's name as names of files have it: their parts have no spaces."""
    return name.replace(" ", "-")


def are_protocols(names: tuple[str, ...]) -> bool:
    """Whether these are names of protocols, or "all" alone."""
    return tuple(names) == ("all",) or bool(names) and not set(names) - set(PROTOCOL_NAMES)
