"""Built-in methods that make maps for the labels: flow magnitude, two classical methods of OpenCV, and our model.

Mean IoU of their labels on 78 frames of 27 DAVIS-2016 training sequences: flow_magnitude .54, spectral_residual .24,
fine_grained .18. The plain mean of the first two has .49, that of all three .42; weights fitted on these frames have
.56. So a weak method does harm without masks, and helps where there are masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from msst_keras.inference import SHIPPED_MODEL
from msst_keras.inference.temporal_filter import LOOK_AHEAD
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior

# From the frames of a sequence, uint8 (H, W, 3) RGB, to their maps, float32 (H, W) in [0, 1].
Source = Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]


def make_source(name: str, model_path: str | Path | None = None) -> Source:
    """Makes a function from the frames of a sequence, uint8 (H, W, 3) RGB, to their maps, float32 (H, W) in [0, 1].

    Args:
      name: one of SOURCES: flow_magnitude (what moves against the camera), spectral_residual (Hou and Zhang 2007),
        fine_grained (Montabone and Soto 2010), or model.
      model_path: folder of a SavedModel of `msst export`, which only "model" needs; None for the installed one.

    Raises:
      FileNotFoundError: the model is missing, or none is installed.
      ValueError: the name is unknown.
    """
    if name not in SOURCES:
        raise ValueError(f"a source must be one of {', '.join(SOURCES)}, not '{name}'")
    if name != "model":
        return _flow_magnitude if name == "flow_magnitude" else _classical(_CLASSICAL[name])
    if model_path is None and not has_shipped_model():
        raise FileNotFoundError(
            "the source 'model' needs a SavedModel, and none is installed here: name one of `msst export` with --model"
        )
    from msst_keras.inference.stream import SaliencyModel, stream_maps  # brings TensorFlow, which the others do without

    model = SaliencyModel(model_path or SHIPPED_MODEL)

    def make_maps(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The maps that `msst predict` makes."""
        made = stream_maps(model, (("", frame) for frame in frames), look_ahead=LOOK_AHEAD)
        return (saliency for _, _, saliency in made)

    return make_maps


def has_shipped_model() -> bool:
    """Whether a model is installed with the package."""
    return SHIPPED_MODEL.is_dir()


def _flow_magnitude(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The magnitude of the flow less the camera's, a homography, which gives the best map (docs/measurements.md)."""
    size = None

    def note_size() -> Iterator[np.ndarray]:
        """Yields the frames; their width and height are then in `size`."""
        nonlocal size
        for frame in frames:
            size = frame.shape[1::-1]
            yield frame

    for flow in FlowEstimator(FlowSettings()).flows(note_size()):
        yield np.clip(cv2.resize(magnitude_prior(flow, camera="homography"), size), 0, 1)


def _classical(create: Callable[[], Any]) -> Source:
    def make_maps(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields OpenCV's map of each frame, stretched to 0..1; ValueError where OpenCV makes none."""
        for frame in frames:
            done, saliency = create().computeSaliency(np.ascontiguousarray(frame[..., ::-1]))
            if not done:
                raise ValueError(f"OpenCV's saliency fails on a frame of shape {frame.shape}")
            low, high = float(saliency.min()), float(saliency.max())
            yield (saliency - np.float32(low)) / np.float32(max(high - low, 1e-6))  # ranges differ by method

    return make_maps


_CLASSICAL = {
    "spectral_residual": cv2.saliency.StaticSaliencySpectralResidual_create,
    "fine_grained": cv2.saliency.StaticSaliencyFineGrained_create,
}
SOURCES = ("flow_magnitude", *_CLASSICAL, "model")
DEFAULTS = ("flow_magnitude", "spectral_residual")
