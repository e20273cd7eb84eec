"""Frame by frame saliency with a SavedModel, in memory that does not grow with the video.

The two streams do not look at time, so each frame is encoded once and the maps of the last T frames are fused: a
quarter of the work of a sliding window of T = 4, the same output. The first T - 1 frames of a video repeat the first
one, so every frame gets a map. Forward flow (from t to t + 1, the default of the records) delays the stream by
`stride` frames: the map of a frame comes when the frame it flows to has been pushed, the rest when the stream is
closed.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from msst_keras.inference import SHIPPED_MODEL, saved_models
from msst_keras.motion.flow import FROM_FILES, FlowEstimator
from msst_keras.motion.superpixels import segment


class SaliencyModel:
    """A SavedModel of `msst export`, loaded: its settings and its signatures.

    Attributes:
      path: its folder, saved_models/NAME/VERSION.
      settings: the asset `msst.json`: "num_frames", "image_size", "motion", and where the model came from.
      motion: how the motion of its frames is to be made; None for a model that sees none.
      windows: the names of the maps that `fuse` wants of the last T frames; of the others the last frame's.
    """

    def __init__(self, path: str | Path = SHIPPED_MODEL):
        """Loads saved_models/NAME/VERSION, or the newest version of saved_models/NAME.

        Raises:
          FileNotFoundError: no such folder, or no SavedModel in it.
          ValueError: a SavedModel that `msst export` did not write, or one that cannot be read; one with operations
            that `msst export` does not write, before any of them runs.
        """
        self.path = path = _find_version(Path(path))
        asset = path / "assets" / "msst.json"
        if not asset.is_file():
            raise ValueError(f"{path}: a SavedModel, but not one of `msst export` (it has no assets/msst.json)")
        self.settings, self.motion = saved_models.read_settings(path)
        saved_models.check_operations(path)
        try:
            self._loaded = tf.saved_model.load(str(path))
            self.encode = self._loaded.signatures["encode"]
            self.fuse = self._loaded.signatures["fuse"]
            inputs = self.fuse.structured_input_signature[1]
            self.windows = tuple(name for name, spec in inputs.items() if spec.shape.rank == 5)
        except Exception as error:  # of damaged files TensorFlow raises nearly anything
            raise ValueError(f"{path}: this SavedModel cannot be loaded ({error}); export it again") from error
        encode = self.encode.structured_input_signature[1]
        saved_models.check_signatures(path, encode, inputs, self.settings["num_frames"], self.motion)


class SaliencyStream:
    """The saliency maps of one video, pushed frame by frame.

    Attributes:
      takes_flow: whether each frame's flow is to be pushed with it, because the model was made with flow from files.
    """

    def __init__(self, model: SaliencyModel):
        self._model = model
        self._maps = collections.deque(maxlen=model.settings["num_frames"])
        self._waiting = collections.deque()  # frames whose flow is not known yet
        motion = model.motion
        settings = motion.flow_settings if motion else None
        self.takes_flow = settings is not None and settings.method == FROM_FILES
        self._flow = FlowEstimator(settings) if settings and not self.takes_flow else None
        self._superpixels = motion.superpixel_settings if motion else None

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None) -> list[np.ndarray]:
        """Takes the next frame and returns the maps that are ready, in order, float32 (H, W) in 0..1.

        Without motion, with given or with backward flow that is this frame's map (backward: none for the first frame
        and two for the second); with forward flow that of the frame `stride` before.

        Args:
          frame: uint8 (H, W, 3) RGB.
          flow: float32 (h, w, 2) at the model's motion size, for a model of flow from files alone (`takes_flow`).

        Raises:
          ValueError: the frame is no uint8 RGB image or of another size than those before it; flow is missing, or given
            to a model that computes it.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be uint8 (H, W, 3), not {frame.dtype} {frame.shape}")
        if self.takes_flow != (flow is not None):
            raise ValueError(
                f"this model {'needs flow from files (--flow_dir)' if self.takes_flow else 'takes no flow'}"
            )
        if self._flow is None:
            return [self._step(frame, flow)]
        self._waiting.append(frame)
        return [self._step(self._waiting.popleft(), flow) for flow in self._flow.push(frame)]

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come, in order."""
        flows = self._flow.close() if self._flow else []
        return [self._step(self._waiting.popleft(), flow) for flow in flows]

    def _step(self, frame: np.ndarray, flow: np.ndarray | None) -> np.ndarray:
        inputs = {"frame": tf.constant(frame[None])}
        if flow is not None:
            inputs["flow"] = tf.constant(flow[None])
            if self._superpixels:
                inputs["superpixels"] = tf.constant(segment(flow, self._superpixels)[None])
        maps = self._model.encode(**inputs)
        kept = {name: maps[name] for name in self._model.windows}
        self._maps.append(kept)
        while len(self._maps) < self._maps.maxlen:  # the first frame stands for those before it
            self._maps.append(kept)
        maps = maps | {name: tf.stack([step[name] for step in self._maps], axis=1) for name in kept}
        size = tf.constant([frame.shape[:2]], tf.int32)
        return self._model.fuse(frame_size=size, **maps)["saliency"].numpy()[0, :, :, 0]


def stream_maps(
    model: SaliencyModel, frames: Iterable[tuple[str, np.ndarray]], flows: Iterable[np.ndarray] | None = None
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields (name, frame, map) for each (name, frame) of a video, in order; see `SaliencyStream`.

    `flows` has the flow of each frame, for a model of flow from files.
    """
    flows = iter(flows) if flows is not None else itertools.repeat(None)
    stream = SaliencyStream(model)
    waiting = collections.deque()
    for name, frame in frames:
        waiting.append((name, frame))
        for saliency in stream.push(frame, next(flows)):
            yield *waiting.popleft(), saliency
    for saliency in stream.close():
        yield *waiting.popleft(), saliency


def _find_version(path: Path) -> Path:
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such model folder; `msst export` writes saved_models/NAME/VERSION")
    if (path / "saved_model.pb").is_file():
        return path
    versions = [child for child in path.iterdir() if child.name.isdigit() and (child / "saved_model.pb").is_file()]
    if not versions:
        raise FileNotFoundError(f"{path}: no SavedModel here (no saved_model.pb, and no folder VERSION with one)")
    return max(versions, key=lambda child: int(child.name))
