"""What papers report for other methods, to be shown beside measured numbers and never mixed with them.

The numbers were taken from the papers' tables; nothing here was measured by this program. They are for the whole test
set of the dataset and hold only under the rules of their own source: three papers give one method's MAE on DAVIS as
.0587, .061 and .091.
"""

from __future__ import annotations

from dataclasses import dataclass

_BENCHMARK = "Fan et al., Shifting More Attention to Video Salient Object Detection, CVPR 2019, benchmark table"
# These methods are not among the video methods of that benchmark; the rows circulate in later papers' tables.
_SECONDARY = "comparison tables of later papers, quoted at second hand"
_THIS_PAPER = "the paper that this program implements, section 4"


@dataclass(frozen=True)
class PublishedRow:
    """A method's numbers on one dataset as a paper prints them.

    Attributes:
      method: The method's name.
      dataset: "davis" or "fbms", as the layout of the dataset is called here.
      mae: Mean absolute error.
      max_f: Largest F-measure, or None where it is not given.
      s_measure: Structure measure, or None where it is not given.
      source: Where the numbers are printed.
      protocol: Rules that they were computed by, as far as the source says.
    """

    method: str
    dataset: str
    mae: float
    max_f: float | None
    s_measure: float | None
    source: str
    protocol: str


# (max F, S, MAE); None where it is not given.
Scores = tuple[float | None, float | None, float]


def _rows(source: str, protocol: str, *methods: tuple[str, Scores, Scores]) -> list[PublishedRow]:
    """Rows of methods given as (name, (max F, S, MAE) on DAVIS, the same on FBMS)."""
    return [
        PublishedRow(name, dataset, mae, max_f, s_measure, source, protocol)
        for name, on_davis, on_fbms in methods
        for dataset, (max_f, s_measure, mae) in (("davis", on_davis), ("fbms", on_fbms))
    ]


PUBLISHED: tuple[PublishedRow, ...] = (
    *_rows(
        _SECONDARY,
        "not stated",
        ("RFCN", (0.732, 0.788, 0.069), (0.764, 0.765, 0.108)),
        ("DCL", (0.760, 0.803, 0.065), (0.760, 0.772, 0.088)),
        ("DHS", (0.785, 0.820, 0.040), (0.765, 0.793, 0.083)),
        ("DSS", (0.775, 0.814, 0.056), (0.776, 0.793, 0.083)),
        ("SFCN", (0.708, 0.794, 0.061), (0.759, 0.794, 0.091)),
    ),
    *_rows(
        _BENCHMARK,
        "davsod",
        ("SCOM", (0.783, 0.832, 0.048), (0.797, 0.794, 0.079)),
        ("MBNM", (0.861, 0.887, 0.031), (0.816, 0.857, 0.047)),
        ("PDB", (0.855, 0.882, 0.028), (0.821, 0.851, 0.064)),
        ("SSAV", (0.861, 0.893, 0.028), (0.865, 0.879, 0.040)),
    ),
    *_rows(_THIS_PAPER, "its own split, with CRF", ("MSST", (None, None, 0.045), (None, None, 0.082))),
)


def published_rows(dataset: str) -> tuple[PublishedRow, ...]:
    """Returns the rows of the dataset of this layout; there are none for most layouts."""
    return tuple(row for row in PUBLISHED if row.dataset == dataset)
