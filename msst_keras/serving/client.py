"""The client: saliency maps of a video from a server with TensorFlow Serving's API, frame by frame.

    model = RemoteModel("grpc://localhost:8500", "msst")
    stream = RemoteStream(model)          # the interface of inference.stream.SaliencyStream
    maps = stream.push(frame)

Flow and superpixels are made here, the networks run there; what a stream remembers, the maps of its last frames, goes
back and forth with each frame (`state`). TensorFlow is not needed and not imported.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Mapping

import numpy as np

from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.inference.saliency_stream import SaliencyStream
from msst_keras.inference.temporal_filter import read_share
from msst_keras.motion.settings import MotionSettings
from msst_keras.serving import wire
from msst_keras.serving.connection import Unavailable, connect

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds before a request is sent again; doubled each time


class RemoteModel:
    """A model of `msst export` on a server: its settings, and requests to it.

    The version that answers first is kept: the state of one version is of no use to another, so a stream must not move
    to one that a server loads meanwhile. Several threads may use one model; at most `max_in_flight` of their requests
    are on the way at once, the others wait.

    Attributes:
      settings: the asset `msst.json`.
      motion: how the motion of its frames is to be made; None for a model that sees none.
      version: the number of the version that answers.
      bytes_sent, bytes_received: of all requests so far, without what HTTP and REST's base64 add.
    """

    def __init__(
        self,
        address: str,
        name: str = "msst",
        timeout: float = 30.0,
        max_in_flight: int = 4,
        frame_quality: int = 95,
    ):
        """Asks the server for the model's settings.

        Args:
          address: grpc://HOST:PORT or http://HOST:PORT; with encryption grpcs://HOST or https://HOST, :PORT if not 443.
          name: of the model on the server; NAME/VERSION or NAME/LABEL for another version than the newest.
          timeout: for a request in seconds, all attempts together.
          max_in_flight: requests at once.
          frame_quality: JPEG quality of the frames that are sent, reduced to what the network sees; 100 sends whole
            frames as PNGs, without loss.

        Raises:
          ValueError: a wrong address, or a server with another kind of model.
          FileNotFoundError: no such model, version or label there.
          TimeoutError, ConnectionError: no server, or none that answers in time.
        """
        self._connection = connect(address)
        self._end = weakref.finalize(self, self._connection.close)
        self._name, _, version = name.partition("/")
        self.version = int(version) if version.isdecimal() else version or None
        self._timeout, self.frame_quality = timeout, frame_quality
        self._slots = threading.BoundedSemaphore(max_in_flight)
        self._counting = threading.Lock()
        self.bytes_sent = self.bytes_received = 0
        answer = self.ask("describe", {"client_bytes": b"msst_keras"})
        try:
            (text,) = answer.values()
            self.settings = json.loads(text)
            self.motion = MotionSettings.from_dict(self.settings["motion"]) if self.settings["motion"] else None
            read_share(self.settings)
            self.inputs, size = self.settings["step"]["inputs"], self.settings["step"]["frame_size"]
            self.frame_size = tuple(size) if size else None
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{address}: '{name}' is no model of `msst export` that this program knows") from error

    def ask(self, signature: str, inputs: Mapping[str, bytes]) -> dict[str, bytes]:
        """The outputs of a signature of strings.

        Every signature is a function of its inputs alone, so a request that the server could not take, or whose
        connection broke, is safe to send again: that is done until the timeout. One that it refused is not sent again,
        nor one that ran out of time: a server with too much to do would get still more.

        Raises:
          ValueError: the model refuses the request, with its sentence.
          FileNotFoundError: the server no longer has this version.
          TimeoutError, ConnectionError, OSError: no answer.
        """
        end, pause = time.monotonic() + self._timeout, _FIRST_PAUSE
        if not self._slots.acquire(timeout=self._timeout):
            raise TimeoutError(f"{self._connection.address}: the requests before this one took {self._timeout:g} s")
        try:
            while True:
                left = max(end - time.monotonic(), 1e-3)
                try:
                    outputs, version = self._connection.predict(self._name, self.version, signature, inputs, left)
                    break
                except Unavailable:
                    if time.monotonic() + pause >= end:
                        raise
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._slots.release()
        self.version = version
        with self._counting:
            self.bytes_sent += sum(map(len, inputs.values()))
            self.bytes_received += sum(map(len, outputs.values()))
        return outputs

    def identify(self) -> str:
        """What tells this model from every other one: its fingerprint."""
        return self.settings["fingerprint"]

    def open_maps(self) -> RemoteMaps:
        """The maps of one video, whose motion is made elsewhere."""
        return RemoteMaps(self)

    def close(self) -> None:
        """Ends the connection, which also ends when nobody has the model any more."""
        self._end()


class RemoteMaps:
    """The saliency maps of one video's frames, whose motion is known."""

    def __init__(self, model: RemoteModel):
        self._model, self._state = model, b""

    def push(self, moving: MovingFrame) -> np.ndarray:
        """Takes the next frame and returns its map, float32 (H, W) in 0..1, in steps of 1/255 at the network's size.

        A request that fails leaves the stream as it was.

        Raises:
          ValueError, OSError: see `RemoteModel.ask`.
        """
        files = {
            "frame_bytes": wire.encode_frame(moving.frame, self._model.frame_size, self._model.frame_quality),
            "state_bytes": self._state,
        }
        if moving.flow is not None:
            files["flow_bytes"] = wire.encode_flow(moving.flow)
        if moving.superpixels is not None:
            files["superpixels_bytes"] = wire.encode_superpixels(moving.superpixels)
        answer = self._model.ask("step", {name: files[name] for name in self._model.inputs})
        saliency = wire.decode_saliency(answer["saliency_bytes"], moving.frame.shape[:2])
        self._state = answer["state_bytes"]
        return saliency


class RemoteStream(SaliencyStream):
    """The saliency maps of one video from a `RemoteModel`, pushed frame by frame.

    `push` and `close` raise what `RemoteModel.ask` raises, too.
    """
