"""The saliency maps of a video, pushed frame by frame, by whatever model. Nothing here is TensorFlow's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from msst_keras.inference.motion_stream import MotionStream, MovingFrame, mirror_image
from msst_keras.inference.temporal_filter import NoFilter, TemporalFilter, read_share
from msst_keras.motion.settings import MotionSettings


class MapSource(Protocol):
    """The maps of one video, frame by frame: a `stream.MapStream`, or a `serving.client.RemoteMaps`.

    A copy by `copy.copy` goes on by itself: what is pushed to it is not pushed to the one that it was made of.
    """

    def push(self, moving: MovingFrame) -> np.ndarray:
        """Returns the frame's map, float32 (H, W) in 0..1."""


class MapModel(Protocol):
    """A model that makes maps, here or on a server.

    Attributes:
      motion: how the motion of its frames is to be made; None for a model that sees none.
      settings: the asset of `msst export`.
    """

    motion: MotionSettings | None
    settings: dict[str, Any]

    def open_maps(self) -> MapSource:
        """Starts a video."""


class SaliencyStream:
    """The saliency maps of one video, pushed frame by frame; filtered over time where the model's settings say so.

    Only the maps before a frame count in the filter: no map waits for later frames.

    A `push` or `close` that raises, whatever it is, leaves the stream as it was. So who waited for a server in vain may
    push the same frame again, or leave it out and push the next one.

    Attributes:
      takes_flow: whether each frame's flow is to be pushed with it, because the model was made with flow from files.
    """

    def __init__(self, model: MapModel, temporal_filter: float | None = None, alternate_mirror: bool = True) -> None:
        """Begins a video.

        Args:
          model: a `stream.SaliencyModel`, or a `serving.client.RemoteModel` on a server.
          temporal_filter: see `open_filter`.
          alternate_mirror: see `open_maps`.

        Raises:
          ValueError: see `open_filter`.
        """
        self._motion, self._filter = MotionStream(model.motion), open_filter(model, temporal_filter)
        self._maps = open_maps(model, self._filter, alternate_mirror)
        self.takes_flow = self._motion.takes_flow

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None, time: float | None = None) -> list[np.ndarray]:
        """Takes the next frame and returns the maps that are ready, in order, float32 (H, W) in 0..1.

        Without motion, with given or with backward flow that is this frame's map (backward: none for the first frame
        and two for the second); with forward flow that of the frame `stride` before.

        Args:
          frame: uint8 (H, W, 3) RGB.
          flow: float32 (h, w, 2) at the model's motion size, for a model of flow from files alone (`takes_flow`).
          time: of the frame, counted in frames, for a live video that misses some: flow is divided by the time that it
            spans. None for a video whose frames are all pushed.

        Raises:
          ValueError: the frame is no uint8 RGB image or of another size than those before it; flow is missing, or given
            to a model that computes it; the time is not later than that of the frame before.
        """
        return self._add_maps(lambda motion: motion.push(frame, flow, time))

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come, in order."""
        return self._add_maps(MotionStream.close) + self._filter.close()

    def _add_maps(self, move: Callable[[MotionStream], list[MovingFrame]]) -> list[np.ndarray]:
        # The work is done on copies, which are kept when all maps are there: a frame may bring two, and then the second
        # may fail. The filter comes behind, for it asks nobody.
        motion, maps = copy.copy(self._motion), copy.copy(self._maps)
        made = [(moving, maps.push(moving)) for moving in move(motion)]
        self._motion, self._maps = motion, maps
        return [filtered for moving, saliency in made for filtered in self._filter.push(moving, saliency)]


def open_filter(
    model: MapModel, share: float | None = None, look_ahead: int = 0, first: int = 0
) -> TemporalFilter | NoFilter:
    """The temporal filter of one video of a model.

    Args:
      model: whose motion and settings it needs.
      share: see `temporal_filter`; None for what the model's settings say. 0 leaves the maps as they are.
      look_ahead, first: see `TemporalFilter`.

    Raises:
      ValueError: a share above 0 for a model that sees no motion, or settings that say no share.
    """
    share = read_share(model.settings) if share is None else share
    if not share:
        return NoFilter()
    if model.motion is None:
        raise ValueError("this model sees no motion, along which maps could be carried; set --temporal_filter=0")
    return TemporalFilter(share, model.motion.flow_settings, look_ahead, first)


def open_maps(
    model: MapModel, filtering: TemporalFilter | NoFilter, alternate_mirror: bool = True, first: int = 0
) -> MapSource:
    """The maps of one video of a model, before they are filtered.

    Args:
      model: what makes the maps.
      filtering: what filters them.
      alternate_mirror: whether the model sees every second frame mirrored. It does not if nothing filters the maps, or
        if the model looks at several frames at once (T above 1), which have to show one view.
      first: the number of the first frame in its video.
    """
    maps = model.open_maps()
    averages = isinstance(filtering, TemporalFilter) and model.settings["num_frames"] == 1
    return AlternatingMaps(maps, first) if alternate_mirror and averages else maps


class AlternatingMaps:
    """The maps of a video whose odd frames the model sees mirrored.

    A network makes other mistakes on a mirror image. The temporal filter averages the maps of neighbouring frames, and
    with them the mistakes of both views, in no more time than those of one view.
    """

    def __init__(self, maps: MapSource, first: int = 0):
        """Takes the maps of one view, and the number of the first frame in its video."""
        self._maps, self._number = maps, first

    def __copy__(self) -> AlternatingMaps:
        return AlternatingMaps(copy.copy(self._maps), self._number)

    def push(self, moving: MovingFrame) -> np.ndarray:
        """Takes the next frame with its motion and returns its map, float32 (H, W) in 0..1."""
        if self._number % 2:
            saliency = mirror_image(self._maps.push(moving.mirror()))
        else:
            saliency = self._maps.push(moving)
        self._number += 1  # last, so that a frame whose map fails is not counted
        return saliency
