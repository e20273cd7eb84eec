"""The server of the live page: the overlay as a stream of JPEGs that every browser shows in an <img>, and numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from msst_keras.live.view import LiveView
from msst_keras.web.server import make_app

_BOUNDARY = "picture"
_WAIT_SECONDS = 0.5


class LivePage:
    """The routes of the page.

    Args:
      view: what is shown.
      title: the source's name, to be shown.
    """

    def __init__(self, view: LiveView, title: str):
        self._view, self._title = view, title

    def make_app(self) -> Starlette:
        """The application, to be served by `web.server.serve`."""
        routes = [Route("/api/state", self._describe), Route("/overlay.mjpeg", self._stream)]
        return make_app("msst_keras.live", routes)

    async def _describe(self, request: Request) -> Response:
        return JSONResponse({"title": self._title, **self._view.state()})

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._pictures(), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def _pictures(self) -> AsyncIterator[bytes]:
        """Each picture as it comes. A browser that is slow gets fewer of them: what waits here is the newest."""
        number = 0
        self._view.watchers += 1
        try:
            while not self._view.is_over.is_set():
                found = await run_in_threadpool(self._view.picture, number, _WAIT_SECONDS)
                if found is None:
                    continue
                number, picture = found
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                yield head.encode() + picture + b"\r\n"
        finally:
            self._view.watchers -= 1
