"""The scores: the name of each, its title in tables and pictures, and whether low or high is better.

A new score is a row here and its computation in `metrics` or `boundaries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Score:
    """A number by which maps are judged.

    Attributes:
      title: What tables and pictures call it.
      family: Key of MEANINGS.
      lower_is_better: Whether the best map has the lowest score.
    """

    title: str
    family: str
    lower_is_better: bool = False


# By their names in metrics.json and in CSVs, in the order of both.
SCORES: Mapping[str, Score] = MappingProxyType({
    "mae": Score("MAE", "MAE", lower_is_better=True),
    "max_f": Score("max F", "F"),
    "mean_f": Score("mean F", "F"),
    "adaptive_f": Score("adaptive F", "F"),
    "weighted_f": Score("weighted F", "F"),
    "s_measure": Score("S", "S"),
    "max_e": Score("max E", "E"),
    "mean_e": Score("mean E", "E"),
    "adaptive_e": Score("adaptive E", "E"),
    "j_mean": Score("J", "J"),
    "f_boundary_mean": Score("boundary F", "boundary F"),
    "temporal_stability": Score("T", "T", lower_is_better=True),
})  # fmt: skip

MEANINGS: Mapping[str, str] = MappingProxyType({
    "MAE": "mean absolute difference of map and mask, 0 to 1; lower is better. An all-black map does well by it "
    "wherever objects are small, so it is to be read beside F and S",
    "F": "precision and recall in one number (beta squared 0.3), from the map binarised at each threshold (max, mean), "
    "at twice the map's mean (adaptive), or weighted by place (weighted)",
    "S": "similarity of structure, of objects and of regions",
    "E": "enhanced alignment of map and mask, pixel by pixel and as a whole",
    "J": "intersection over union of map and mask, binarised at one half",
    "boundary F": "how well the outlines agree, binarised at one half",
    "T": "flicker: difference of consecutive maps along the optical flow; lower is better; needs no mask",
})  # fmt: skip

# MAE rewards an all-black map, so it never stands alone: max F and S always stand beside it.
HEADLINE = ("mae", "max_f", "s_measure")

# The score that decides which state of a network is better. MAE favours black maps, and max F forgives a wrong
# threshold.
DECISIVE = "s_measure"

# Methods that need no network, to compare the others with.
ALL_BLACK, FLOW_MAGNITUDE = "all black", "flow magnitude"


def choose_headline(result: Mapping[str, Any]) -> dict[str, float]:
    """The scores of HEADLINE in what `Evaluator.result` returned."""
    return {name: result[name] for name in HEADLINE}
