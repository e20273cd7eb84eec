"""Frame by frame saliency with a SavedModel, in memory that does not grow with the video.

The two streams do not look at time, so each frame is encoded once and the maps of the last T frames are fused. A
sliding window encodes each frame T times, for the same output. The first T - 1 frames of a video repeat the first
one, so every frame gets a map. Forward flow (from t to t + 1, the default of the records) delays the stream by
`stride` frames: the map of a frame comes when the frame it flows to has been pushed, the rest when the stream is
closed.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from msst_keras.files import hash_folder
from msst_keras.inference import SHIPPED_MODEL, saved_models
from msst_keras.inference.mirror import MirroredFilter, MirroredMaps, MirroredMotion
from msst_keras.inference.motion_stream import MotionStream, MovingFrame
from msst_keras.inference.parallel import read_ahead
from msst_keras.inference.saliency_stream import MapModel, SaliencyStream, open_filter, open_maps

__all__ = ["MapStream", "SaliencyModel", "SaliencyStream", "stream_maps"]


Name = TypeVar("Name")  # of a frame, or anything else that belongs to it


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
        self.path = path = saved_models.find_version(Path(path))
        asset = path / "assets" / "msst.json"
        if not asset.is_file():
            raise ValueError(f"{path}: a SavedModel, but not one of `msst export` (it has no assets/msst.json)")
        self.settings, self.motion = saved_models.read_settings(path)
        saved_models.check_model(path, self.settings["num_frames"], self.motion)
        try:
            self._loaded = tf.saved_model.load(str(path))
            self.encode = self._loaded.signatures["encode"]
            self.fuse = self._loaded.signatures["fuse"]
            inputs = self.fuse.structured_input_signature[1]
            self.windows = tuple(name for name, spec in inputs.items() if spec.shape.rank == 5)
        except Exception as error:  # of damaged files TensorFlow raises nearly anything
            raise ValueError(f"{path}: this SavedModel cannot be loaded ({error}); export it again") from error

    def identify(self) -> str:
        """What tells this model from every other one: the hash of its folder."""
        return hash_folder(self.path)

    def open_maps(self) -> MapStream:
        """The maps of one video, whose motion is made elsewhere."""
        return MapStream(self)


class MapStream:
    """The saliency maps of one video's frames, whose motion is known: the network's part of `SaliencyStream`."""

    def __init__(self, model: SaliencyModel):
        self._model = model
        self._num_frames: int = model.settings["num_frames"]
        self._steps: list[dict[str, tf.Tensor]] = []  # of the last T frames; set anew and never changed, for copies

    def push(self, moving: MovingFrame) -> np.ndarray:
        """Takes the next frame with its motion and returns its map, float32 (H, W) in 0..1."""
        given = {"frame": moving.frame, "flow": moving.flow, "superpixels": moving.superpixels}
        maps = self._model.encode(**{name: tf.constant(x[None]) for name, x in given.items() if x is not None})
        kept = {name: maps[name] for name in self._model.windows}
        before = self._steps[1:] or [kept] * (self._num_frames - 1)  # the first frame stands for those before it
        steps = [*before, kept]
        maps = maps | {name: tf.stack([step[name] for step in steps], axis=1) for name in kept}
        size = tf.constant([moving.frame.shape[:2]], tf.int32)
        saliency = self._model.fuse(frame_size=size, **maps)["saliency"].numpy()[0, :, :, 0]
        self._steps = steps
        return saliency


def stream_maps(
    model: MapModel,
    frames: Iterable[tuple[Name, np.ndarray] | tuple[Name, np.ndarray, float]],
    flows: Iterable[np.ndarray] | None = None,
    num_ahead: int = 2,
    mirror: bool = False,
    alternate_mirror: bool = True,
    temporal_filter: float | None = None,
    look_ahead: int = 0,
    first: int = 0,
    stop: Callable[[], None] | None = None,
) -> Generator[tuple[Name, np.ndarray, np.ndarray], None, None]:
    """Yields (name, frame, map) for each (name, frame) or (name, frame, time) of a video; see `SaliencyStream`.

    A pipeline of threads: `frames` and their motion are made in one, the network works in another, and the caller goes
    on with the maps in its own. The maps do not depend on it. Whoever stops before the end closes this generator, so
    that the threads end.

    Args:
      model: what makes the maps.
      frames: a name, or anything else that belongs to the frame, the frame, and where some are missing its time.
      flows: the flow of each frame, for a model of flow from files.
      num_ahead: so many frames wait at most between two threads; 0 does everything in the caller's.
      mirror: whether each map is averaged with that of the mirror image, which takes twice the time (see `mirror`).
      alternate_mirror: see `saliency_stream.open_maps`; it changes nothing with `mirror`.
      temporal_filter: how much of each map comes from those around it (see `temporal_filter`); None for what the
        model's settings say.
      look_ahead: how many of those after it count in that at least; so its maps come later.
      first: the number of the first of `frames` in its video, when a video is gone on with.
      stop: makes `frames` end, where they may wait for long; see `read_ahead`.

    Raises:
      ValueError: see `SaliencyStream.push` and `saliency_stream.open_filter`.
      Whatever `frames` and `flows` raise, behind the maps of the frames before.
    """
    motion: Any = MirroredMotion(model.motion) if mirror else MotionStream(model.motion)
    filtering: Any = (MirroredFilter if mirror else open_filter)(model, temporal_filter, look_ahead, first)
    maps: Any = MirroredMaps(model) if mirror else open_maps(model, filtering, alternate_mirror, first)
    moving = read_ahead(_add_motion(motion, frames, flows), num_ahead, stop)
    made = read_ahead(_add_maps(maps, moving), num_ahead)
    return read_ahead(_filter_maps(filtering, made), num_ahead)


def _add_motion(
    motion: MotionStream | MirroredMotion,
    frames: Iterable[tuple[Name, np.ndarray] | tuple[Name, np.ndarray, float]],
    flows: Iterable[np.ndarray] | None,
) -> Generator[tuple[Name, np.ndarray, Any], None, None]:
    """Yields (name, frame, what `maps` of `_add_maps` takes)."""
    given = iter(flows) if flows is not None else itertools.repeat(None)
    waiting: collections.deque[tuple[Name, np.ndarray]] = collections.deque()
    for name, frame, *time in frames:
        waiting.append((name, frame))
        for moving in motion.push(frame, next(given), *time):
            yield *waiting.popleft(), moving
    for moving in motion.close():
        yield *waiting.popleft(), moving


def _add_maps(
    maps: Any, moving_frames: Generator[tuple[Name, np.ndarray, Any], None, None]
) -> Generator[tuple[Name, np.ndarray, Any, Any], None, None]:
    with contextlib.closing(moving_frames):
        for name, frame, moving in moving_frames:
            yield name, frame, moving, maps.push(moving)


def _filter_maps(
    filtering: Any, made: Generator[tuple[Name, np.ndarray, Any, Any], None, None]
) -> Generator[tuple[Name, np.ndarray, np.ndarray], None, None]:
    waiting: collections.deque[tuple[Name, np.ndarray]] = collections.deque()
    with contextlib.closing(made):
        for name, frame, moving, saliency in made:
            waiting.append((name, frame))
            for filtered in filtering.push(moving, saliency):
                yield *waiting.popleft(), filtered
        for filtered in filtering.close():
            yield *waiting.popleft(), filtered
