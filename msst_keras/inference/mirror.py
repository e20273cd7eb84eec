"""Maps that are the mean of a video's and of its mirror image's: better ones, in twice the time."""

from __future__ import annotations

import numpy as np

from msst_keras.inference.stream import SaliencyModel, SaliencyStream


class MirroredStream:
    """A `SaliencyStream` whose maps are averaged with those of the mirrored video.

    The network, and the optical flow above all, make other mistakes on the mirror image; a part is averaged away.

    Attributes:
      takes_flow: see `SaliencyStream`.
    """

    def __init__(self, model: SaliencyModel):
        self._streams = SaliencyStream(model), SaliencyStream(model)
        self.takes_flow = self._streams[0].takes_flow

    def push(self, frame: np.ndarray, flow: np.ndarray | None = None) -> list[np.ndarray]:
        """Takes the next frame and returns the maps that are ready; see `SaliencyStream.push`."""
        mirrored = None if flow is None else np.ascontiguousarray(flow[:, ::-1] * np.float32([-1, 1]))
        plain = self._streams[0].push(frame, flow)
        return _average(plain, self._streams[1].push(np.ascontiguousarray(frame[:, ::-1]), mirrored))

    def close(self) -> list[np.ndarray]:
        """Ends the video and returns the maps that were still to come; see `SaliencyStream.close`."""
        plain, mirrored = (stream.close() for stream in self._streams)
        return _average(plain, mirrored)


def _average(plain: list[np.ndarray], mirrored: list[np.ndarray]) -> list[np.ndarray]:
    return [(first + second[:, ::-1]) / 2 for first, second in zip(plain, mirrored, strict=True)]
