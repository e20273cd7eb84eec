"""Dense CRF refinement of saliency maps (the paper's section 4.1: "to improve spatial coherence").

The fully connected CRF of Kraehenbuehl and Koltun ("Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", 2011) with two labels: mean field over a spatial and a bilateral Gaussian kernel. It is the same
computation as pydensecrf's `DenseCRF2D` with `addPairwiseGaussian` and `addPairwiseBilateral` at their defaults
(diagonal kernel, symmetric normalisation, Potts compatibility), over the same permutohedral lattice.

With two labels one channel is enough: Q0 = 1 - Q1 and the filter K is linear, so a mean-field update of the log odds is
    log(Q1 / Q0) = unary + sum over kernels of compat * K (Q1 - Q0),   Q1 - Q0 = tanh(log(Q1 / Q0) / 2).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Mapping

import numpy as np

from msst_keras.inference.permutohedral import PermutohedralLattice

# "numpy" is the default: it runs everywhere and needs about half of pydensecrf's time (benchmarks/crf.py). The maps of
# the two agree to 1e-4.
BACKENDS = ("numpy", "pydensecrf")

# "log": minus the logarithm of a label's probability p. "dss": DSS divides that by 1.05 sigmoid(p), which is 0.53 to
# 0.77, so the map is trusted more against the kernels.
UNARIES = ("log", "dss")

# Probabilities of either label below this are raised to it before their logarithm is taken, so a certain pixel has
# log odds of 11.5; it is the default of pydensecrf's `unary_from_softmax`.
PROBABILITY_FLOOR = 1e-5
_DSS_EPSILON, _DSS_TAU = 1e-8, 1.05


@dataclasses.dataclass(frozen=True)
class CrfOptions:
    """Settings of the dense CRF. The paper gives none; the defaults are the preset "pdb", see CRF_PRESETS.

    Attributes:
      iterations: mean-field updates, at least 1.
      gaussian_sxy: standard deviation of the spatial kernel, pixels.
      gaussian_compat: its weight (Potts).
      bilateral_sxy: standard deviation of the bilateral kernel in space, pixels.
      bilateral_srgb: and in colour, grey levels of 0 to 255.
      bilateral_compat: its weight (Potts).
      unary: how a probability becomes an energy, one of UNARIES.

    Raises:
      ValueError: for less than one iteration, a deviation that is not positive, a negative weight or an unknown unary.
    """

    iterations: int = 5
    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 60.0
    bilateral_srgb: float = 5.0
    bilateral_compat: float = 5.0
    unary: str = "log"

    def __post_init__(self) -> None:
        if not isinstance(self.iterations, numbers.Integral) or self.iterations < 1:
            raise ValueError(f"iterations must be a whole number of at least 1, got {self.iterations!r}")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")
        for name in ("gaussian_compat", "bilateral_compat"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be zero or a positive number, got {value}")
        if self.unary not in UNARIES:
            raise ValueError(f"unary must be one of {', '.join(UNARIES)}, got {self.unary!r}")


# What detectors of the same kind use, read in the code that their authors published:
#   "pdb"  PDB (Song et al., ECCV 2018), github.com/shenjianbing/PDB-ConvLSTM, davis_applyCRF.py. That program stretches
#          each map to 0..1 before and takes the likelier label after; we do neither, for PR curves need soft maps.
#   "dss"  DSS (Hou et al., CVPR 2017), github.com/houqb/dss_crf, examples/dense_hsal.py: the same kernels, one update,
#          other energies. DSS and PDB are often named in one breath for these kernels; their updates differ.
#   "tuned" benchmarks/tune_crf.py on every tenth frame of 14 DAVIS-2016 training sequences, with the blurry maps of a
#          narrow network that had trained on them, against coarse labels. On 13 other such sequences S is .782 without
#          a CRF, .821 with "pdb", .865 with this; MAE .041, .029, .017. It is no default: it makes twice the updates,
#          and on maps that are nearly right already (the labels at an eighth of the size) S falls: .976, .958, .933.
# DCL (Li and Yu, CVPR 2016) has a dense CRF too, whose values we could not verify: no source of it is at hand.
CRF_PRESETS: Mapping[str, CrfOptions] = {
    "pdb": CrfOptions(),
    "dss": CrfOptions(iterations=1, unary="dss"),
    "tuned": CrfOptions(
        iterations=10, gaussian_sxy=6.0, bilateral_sxy=130.0, bilateral_srgb=3.0, bilateral_compat=10.0
    ),
}


class DenseCrf:
    """The dense CRF of one frame: its lattice is built here, once, and refines as many maps of the frame as you like.

    Args:
      frame: (H, W, 3) uint8, RGB.
      options: see CrfOptions; its defaults when None.
      backend: one of BACKENDS.

    Raises:
      ValueError: when the frame is not such an array, when a kernel is too narrow for the frame's size, or when the
        backend is unknown or not installed.
    """

    def __init__(self, frame: np.ndarray, options: CrfOptions | None = None, backend: str = "numpy"):
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (3,) or not frame.size:
            raise ValueError(f"the frame must be a (H, W, 3) uint8 array, got {_describe(frame)}")
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
        prepare = _prepare_numpy if backend == "numpy" else _prepare_pydensecrf
        options = options or CrfOptions()
        self._size = frame.shape[:2]
        self._unary = options.unary
        self._infer = prepare(frame, options)

    def refine(self, saliency: np.ndarray) -> np.ndarray:
        """Refines one map.

        Args:
          saliency: (H, W) float32 in [0, 1], the frame's size.

        Returns:
          (H, W) float32 in [0, 1]: the salient label's probability Q1, not cut to 0 and 1: that would leave a single
          point of the precision-recall curve.

        Raises:
          ValueError: for another shape or type, or for values that are not in [0, 1] (NaN included).
        """
        if not isinstance(saliency, np.ndarray) or saliency.dtype != np.float32 or saliency.shape != self._size:
            raise ValueError(
                f"the saliency map must be a float32 array of its frame's size {self._size}, got {_describe(saliency)}"
            )
        lowest, highest = float(saliency.min()), float(saliency.max())
        if not (lowest >= 0 and highest <= 1):  # also true for NaN
            raise ValueError(f"the saliency map must lie in [0, 1], its values go from {lowest} to {highest}")
        return self._infer(_energies(saliency.ravel(), self._unary)).reshape(self._size)


def refine(
    frame: np.ndarray, saliency: np.ndarray, options: CrfOptions | None = None, backend: str = "numpy"
) -> np.ndarray:
    """Refines one map of one frame: `DenseCrf(frame, options, backend).refine(saliency)`; see there."""
    return DenseCrf(frame, options, backend).refine(saliency)


def _energies(saliency: np.ndarray, unary: str) -> np.ndarray:
    """(N,) float32 probabilities of the salient label -> (2, N) float32 unary energies of the other label and of it."""
    probabilities = np.stack([1 - saliency, saliency])
    if unary == "dss":
        tempered = np.float32(_DSS_TAU) / (1 + np.exp(-probabilities))
        return -np.log(probabilities + np.float32(_DSS_EPSILON)) / tempered
    return -np.log(np.maximum(probabilities, np.float32(PROBABILITY_FLOOR)))


def _prepare_numpy(frame: np.ndarray, options: CrfOptions) -> Callable[[np.ndarray], np.ndarray]:
    """Builds the kernels; returns the function (2, H*W) float32 unary energies -> (H*W,) float32 Q1."""
    height, width = frame.shape[:2]
    gaussian_compat, bilateral_compat = float(options.gaussian_compat), float(options.bilateral_compat)
    spatial = _spatial_kernel(height, width, options.gaussian_sxy)
    colours = frame.reshape(-1, 3).T.astype(np.float32) / np.float32(options.bilateral_srgb)
    bilateral = _Kernel(np.concatenate([_positions(height, width, options.bilateral_sxy), colours]))

    def infer(energies: np.ndarray) -> np.ndarray:
        """(2, H*W) float32 unary energies -> (H*W,) float32 Q1 in 0..1."""
        unary = energies[0] - energies[1]
        difference = np.tanh(unary / 2)
        for _ in range(options.iterations):
            log_odds = unary + gaussian_compat * spatial.apply(difference)
            log_odds += bilateral_compat * bilateral.apply(difference)
            difference = np.tanh(log_odds / 2)
        return (1 + difference) / 2

    return infer


class _Kernel:
    """A Gaussian kernel over (d, N) float32 features, normalised symmetrically: D^-1/2 K D^-1/2, D = row sums of K."""

    def __init__(self, features: np.ndarray):
        self._lattice = PermutohedralLattice(features)
        self._norm = 1 / np.sqrt(self._lattice.filter(np.ones(features.shape[1], np.float32)))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """(N,) float32 -> (N,) float32."""
        return self._norm * self._lattice.filter(self._norm * values)


# The spatial kernel is the same for all frames of a size, and a video has one size; the second place is for whoever
# refines two videos in turn. A kernel holds about 13 MB at 480x854.
@functools.lru_cache(maxsize=2)
def _spatial_kernel(height: int, width: int, deviation: float) -> _Kernel:
    return _Kernel(_positions(height, width, deviation))


def _positions(height: int, width: int, deviation: float) -> np.ndarray:
    """(2, H*W) float32: x then y of each pixel, in standard deviations."""
    return np.indices((height, width), np.float32)[::-1].reshape(2, -1) / np.float32(deviation)


def _prepare_pydensecrf(frame: np.ndarray, options: CrfOptions) -> Callable[[np.ndarray], np.ndarray]:
    """As _prepare_numpy, with the C++ code of Kraehenbuehl and Koltun."""
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ValueError(
            "the backend pydensecrf is not installed: pip install pydensecrf2 (it needs g++, and Python 3.12 at most), "
            "or use the backend numpy"
        ) from error
    height, width = frame.shape[:2]
    crf = DenseCRF2D(width, height, 2)
    crf.addPairwiseGaussian(sxy=options.gaussian_sxy, compat=options.gaussian_compat)
    crf.addPairwiseBilateral(sxy=options.bilateral_sxy, srgb=options.bilateral_srgb,
                             rgbim=np.ascontiguousarray(frame), compat=options.bilateral_compat)  # fmt: skip

    def infer(energies: np.ndarray) -> np.ndarray:
        """(2, H*W) float32 unary energies -> (H*W,) float32 Q1 in 0..1."""
        crf.setUnaryEnergy(energies)
        return np.array(crf.inference(options.iterations))[1]

    return infer


def _describe(value: object) -> str:
    """Shape and type of a wrong argument, for messages."""
    return f"shape {value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
