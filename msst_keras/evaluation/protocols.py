"""The rules by which maps are scored. Each set of rules has a name, which should stand beside every number.

One method's published MAE on one dataset differs by half between papers, because they skip, normalise and average
differently. A protocol writes these choices down, and `evaluator.Evaluator` follows them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from msst_keras.evaluation.scores import SCORES

# The scalars of a result, in their order there.
SCALARS = tuple(SCORES)
_SALIENCY_SCALARS = SCALARS[: SCALARS.index("adaptive_e") + 1]
_SEGMENTATION_SCALARS = ("j_mean", "f_boundary_mean")
# What a protocol may choose from. `temporal_stability` belongs to no protocol: it needs no mask and is given on
# request.
_CHOICES = {
    "frames": ("annotated", "inner"),
    "normalisation": ("none", "min_max"),
    "thresholds": ("integers", "half"),
    "averaging": ("frames", "sequences"),
    "f_curve": ("of_means", "mean"),
    "centroid": ("half_even", "half_up"),
    "resizing": ("bilinear",),
}
_MIN_INNER = 3  # the fewest annotated frames of which one is left without the first and the last


@dataclass(frozen=True)
class Protocol:
    """A way of scoring maps against masks.

    Attributes:
      name: What the user calls it.
      frames: Which frames are scored. "annotated": each frame that has a mask. "inner": each of them but the first and
        the last of a sequence; a sequence with fewer than three masks is an error (the published programs divide by
        zero). If only a few frames have a mask (FBMS), the first and the last of these few are skipped.
      normalisation: What is done to a map first. "none": nothing. "min_max": its lowest level becomes 0 and its highest
        1; a constant map stays as it is.
      thresholds: Where maps are binarised. "integers": at t = 0..255 on the 8-bit map, level >= t, for curves. "half":
        once, at 0.5, level >= 128.
      averaging: How the mean is taken. "frames": over all frames, each with the same weight. "sequences": over the
        frames of each sequence, then over the sequences, each with the same weight. Curves are averaged in the same
        way.
      f_curve: What the F curve is, whose maximum and mean are max_f and mean_f. "of_means": F of the averaged precision
        and recall, so that max F is a point of the precision-recall curve. "mean": the mean of the frames' F curves.
      centroid: How the S-measure rounds a mask's centroid half-way between two pixels: "half_even" as NumPy does,
        "half_up" as MATLAB does.
      resizing: How a map of another size is resized to the mask. "bilinear": with aligned pixel centres, without
        smoothing before reduction. Aspect ratios that differ by more than 5 % are an error. The file is never changed.
      metrics: Which of SCALARS the protocol defines; the others are null.
      source: Where the rules come from, and what was decided where the source says nothing.

    Raises:
      ValueError: a field has a value that is not listed here.
    """

    name: str
    frames: str
    normalisation: str
    thresholds: str
    averaging: str
    f_curve: str
    centroid: str
    resizing: str
    metrics: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                value = getattr(self, field)
                raise ValueError(f"protocol {self.name}: {field} must be one of {choices}, not {value!r}")
        known = _SEGMENTATION_SCALARS if self.thresholds == "half" else _SALIENCY_SCALARS
        if unknown := sorted(set(self.metrics) - set(known)):
            raise ValueError(f"protocol {self.name}: metrics {unknown} are not among {known}")

    @property
    def has_curves(self) -> bool:
        """Whether precision, recall, F and E are computed over thresholds."""
        return self.thresholds == "integers"

    def select_frames(self, sequence_name: str, annotated: Sequence[str]) -> Sequence[str]:
        """Returns which of a sequence's annotated frames, given in order, are scored.

        Raises:
          ValueError: none would be left; the message names the sequence.
        """
        if self.frames == "annotated":
            return annotated
        if len(annotated) < _MIN_INNER:
            raise ValueError(
                f"sequence {sequence_name} has {len(annotated)} annotated frame{'s' * (len(annotated) != 1)}, and "
                f"protocol {self.name} skips the first and the last: it needs {_MIN_INNER}; leave the sequence out "
                "(--sequences) or take the protocol paper or pysodmetrics"
            )
        return annotated[1:-1]


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="paper",
            frames="annotated",
            normalisation="none",
            thresholds="integers",
            averaging="frames",
            f_curve="of_means",
            centroid="half_even",
            resizing="bilinear",
            metrics=_SALIENCY_SCALARS,
            source="Section 4.1 of the paper: precision-recall curve at integer thresholds, and MAE. It names no "
            "F-measure; benchmarks of its time averaged precision and recall over frames and took F on that curve.",
        ),
        Protocol(
            name="davsod",
            frames="inner",
            normalisation="min_max",
            thresholds="integers",
            averaging="sequences",
            f_curve="mean",
            centroid="half_up",
            resizing="bilinear",
            metrics=tuple(name for name in _SALIENCY_SCALARS if name != "weighted_f"),
            source="EvaluateTool/main.m of DengPingFan/DAVSOD (Fan et al., CVPR 2019). There a map of another size is "
            "resized bicubically and overwritten. It prints no E-measure, which is averaged like the others here.",
        ),
        Protocol(
            name="davis16",
            frames="inner",
            normalisation="none",
            thresholds="half",
            averaging="sequences",
            f_curve="mean",
            centroid="half_even",
            resizing="bilinear",
            metrics=_SEGMENTATION_SCALARS,
            source="The benchmark of DAVIS-2016 (Perazzi et al., CVPR 2016; fperazzi/davis): mean J and mean F. It is "
            "given segmentations; saliency maps are binarised at 0.5.",
        ),
        Protocol(
            name="pysodmetrics",
            frames="annotated",
            normalisation="min_max",
            thresholds="integers",
            averaging="frames",
            f_curve="mean",
            centroid="half_even",
            resizing="bilinear",
            metrics=_SALIENCY_SCALARS,
            source="PySODMetrics 1.6.2 with its defaults, every pair counted once. It does not resize.",
        ),
    )
})  # fmt: skip
