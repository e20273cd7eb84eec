"""The server of the review page: it gives a review's frames and labels to one browser at a time.

Labels travel as bits, row by row, the first pixel in the highest bit. The answer to a GET of a label is the label and
then its original. Frames are named by their number, so no path comes from outside.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msst_keras.labels.review import LabelChanged, Review, version_of
from msst_keras.web.server import Refused, make_app, read_body

# The page sends a sign of life every 5 s. A browser that has sent none for so long has gone.
SEAT_SECONDS = 20


class Seat:
    """Says which browser reviews: the first that came, until it leaves, falls silent, or another takes over."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        self._holder: str | None = None
        self._heard, self._now = 0.0, now

    def take(self, previous: str, by_force: bool) -> str:
        """Gives the seat to a browser and returns a new name for it.

        Args:
          previous: the name it had before it loaded the page again, or "".
          by_force: whether to take the seat from another browser.

        Raises:
          Refused: another browser holds it.
        """
        is_free = self._holder is None or self._now() - self._heard > SEAT_SECONDS
        if not (is_free or by_force or self._is_holder(previous)):
            raise Refused("another browser is reviewing these labels", "seat")
        self._holder = secrets.token_urlsafe(12)
        self._heard = self._now()
        return self._holder

    def check(self, name: str) -> None:
        """Notes a sign of life of the browser of this name.

        Raises:
          Refused: another browser holds the seat.
        """
        if not self._is_holder(name):
            raise Refused("the review went on in another browser", "seat")
        self._heard = self._now()

    def leave(self, name: str) -> None:
        """Frees the seat, if this browser holds it."""
        if self._is_holder(name):
            self._holder = None

    def _is_holder(self, name: str) -> bool:
        return self._holder is not None and secrets.compare_digest(name.encode(), self._holder.encode())


class ReviewPage:
    """The routes of a review's page."""

    def __init__(self, review: Review, title: str):
        self._review, self._title, self._seat = review, title, Seat()
        self._lock = threading.Lock()  # one request at a time touches the review

    def make_app(self) -> Starlette:
        """The application, to be served by `web.server.serve`."""
        return make_app(
            "msst_keras.labels",
            [
                Route("/api/review", self._list),
                Route("/api/seat", self._take_seat, methods=["POST"]),
                Route("/api/seat/alive", self._stay, methods=["POST"]),
                Route("/api/seat/leave", self._leave, methods=["POST"]),
                Route("/api/frames/{index:int}/image", self._send_image),
                Route("/api/frames/{index:int}/label", self._send_label),
                Route("/api/frames/{index:int}/label", self._save, methods=["PUT"]),
                Route("/api/frames/{index:int}/decision", self._decide, methods=["PUT"]),
            ],
        )

    async def _list(self, request: Request) -> Response:
        def describe() -> dict[str, Any]:
            """What the page lists: title, (sequence, frame, decision) of each label, and where the review goes on."""
            with self._lock:
                items = self._review.items
                frames = [[item.sequence, item.frame, item.decision] for item in items]
                return {"title": self._title, "frames": frames, "position": self._review.find_position()}

        return JSONResponse(await run_in_threadpool(describe))

    async def _take_seat(self, request: Request) -> Response:
        previous = (await read_body(request, 100)).decode("utf-8", "replace")
        return JSONResponse({"seat": self._seat.take(previous, "force" in request.query_params)})

    async def _stay(self, request: Request) -> Response:
        self._seat.check(request.headers.get("x-seat", ""))
        return Response(status_code=204)

    async def _leave(self, request: Request) -> Response:
        self._seat.leave((await read_body(request, 100)).decode("utf-8", "replace"))
        return Response(status_code=204)

    async def _send_image(self, request: Request) -> Response:
        index = self._index(request)
        encoded, media_type = await run_in_threadpool(self._review.read_frame, index)
        # Frames do not change while they are reviewed; a step back should not wait for one.
        return Response(encoded, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})

    async def _send_label(self, request: Request) -> Response:
        index = self._index(request)

        def read() -> tuple[np.ndarray, np.ndarray]:
            """The label as it is and as it was, bool (H, W) each."""
            with self._lock:
                return self._review.read_labels(index)

        label, original = await run_in_threadpool(read)
        height, width = label.shape
        headers = {"X-Size": f"{height}x{width}", "X-Version": version_of(label)}
        content = np.packbits(label).tobytes() + np.packbits(original).tobytes()
        return Response(content, media_type="application/octet-stream", headers=headers)

    async def _save(self, request: Request) -> Response:
        self._seat.check(request.headers.get("x-seat", ""))
        index = self._index(request)

        def size() -> tuple[int, ...]:
            """Height and width of the label."""
            with self._lock:
                return self._review.read_labels(index)[0].shape

        height, width = await run_in_threadpool(size)
        num_bytes = (height * width + 7) // 8
        content = await read_body(request, num_bytes)
        if len(content) != num_bytes:
            raise ValueError(
                f"expected a label of {height}x{width} pixels in {num_bytes} bytes, got {len(content)} bytes"
            )
        bits = np.unpackbits(np.frombuffer(content, np.uint8), count=height * width)

        def save() -> str:
            """Saves the label and returns its new version; LabelChanged if another was saved in the meantime."""
            with self._lock:
                label = bits.reshape(height, width).astype(bool)
                return self._review.save(index, label, request.headers.get("x-version"))

        try:
            return JSONResponse({"version": await run_in_threadpool(save)})
        except LabelChanged as error:
            raise Refused(str(error), "changed") from None

    async def _decide(self, request: Request) -> Response:
        self._seat.check(request.headers.get("x-seat", ""))
        index = self._index(request)
        decision = (await read_body(request, 20)).decode("utf-8", "replace")

        def decide() -> None:
            """Notes what was decided of the label."""
            with self._lock:
                self._review.decide(index, decision)

        await run_in_threadpool(decide)
        return Response(status_code=204)

    def _index(self, request: Request) -> int:
        index = request.path_params["index"]
        if index >= len(self._review.items):
            raise ValueError(f"there is no frame {index}; there are {len(self._review.items)}")
        return index
