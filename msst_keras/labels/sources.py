"""Maps that need no other people's folders: flow magnitude, two classical methods of OpenCV, and a model of ours.

Mean IoU of their labels on 78 frames of 27 DAVIS-2016 training sequences: flow_magnitude .54, spectral_residual .24,
fine_grained .18. The plain mean of the first two has .49, of all three .42; weights fitted on these frames have .56. So
without masks a weak method does harm, and where there are masks it helps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from msst_keras.inference import SHIPPED_MODEL
from msst_keras.motion.flow import FlowEstimator, FlowSettings, magnitude_prior


def make_source(name: str, model_path: str | Path | None = None) -> Callable[[Iterable[np.ndarray]], Iterator]:
    """A function from the frames of a sequence, uint8 (H, W, 3) RGB, to their maps, float32 (H, W) in [0, 1].

    Args:
      name: one of SOURCES: flow_magnitude (what moves against the camera), spectral_residual (Hou and Zhang 2007),
        fine_grained (Montabone and Soto 2010), or model.
      model_path: of a SavedModel of `msst export`, for "model" alone; None is the one that is installed.

    Raises:
      FileNotFoundError: no such model, or none that is installed.
      ValueError: an unknown name.
    """
    if name not in SOURCES:
        raise ValueError(f"a source must be one of {', '.join(SOURCES)}, not '{name}'")
    if name != "model":
        return {"flow_magnitude": _flow_magnitude}.get(name) or _classical(_CLASSICAL[name])
    if model_path is None and not has_shipped_model():
        raise FileNotFoundError(
            "the source 'model' needs a SavedModel, and none is installed here: name one of `msst export` with --model"
        )
    from msst_keras.inference.stream import SaliencyModel, stream_maps  # brings TensorFlow, which the others do without

    model = SaliencyModel(model_path or SHIPPED_MODEL)
    return lambda frames: (saliency for _, _, saliency in stream_maps(model, (("", frame) for frame in frames)))


def has_shipped_model() -> bool:
    """Whether a model is installed with the package."""
    return SHIPPED_MODEL.is_dir()


def _flow_magnitude(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The residual flow's magnitude. Of the cameras, the homography gives the best map (docs/measurements.md)."""
    size = None

    def note_size():
        nonlocal size
        for frame in frames:
            size = frame.shape[1::-1]
            yield frame

    for flow in FlowEstimator(FlowSettings()).flows(note_size()):
        yield np.clip(cv2.resize(magnitude_prior(flow, camera="homography"), size), 0, 1)


def _classical(create: Callable) -> Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]:
    def make_maps(frames):
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
