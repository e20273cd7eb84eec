"""The server of the app's page: it takes a video, tells of its progress, and gives what was made of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from msst_keras.app.job import Job, Limits, frame_size
from msst_keras.data import file_names
from msst_keras.web.server import Refused, make_app


class AppPage:
    """The routes of the page; at most one job works at a time.

    Args:
      work_dir: folder for the video and what is made of it; its content is removed when the next video comes.
      model: folder of a SavedModel.
      limits: the largest video that is taken.
    """

    def __init__(self, work_dir: Path, model: str, limits: Limits):
        self._work_dir, self._model, self._limits = work_dir, model, limits
        self._job: Job | None = None
        self._number = 0

    def make_app(self) -> Starlette:
        """The application, to be served by `web.server.serve`."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            """Cancels the job when the server ends."""
            yield
            if self._job:
                self._job.cancel()

        routes = [
            Route("/api/job", self._describe),
            Route("/api/video", self._take, methods=["POST"]),
            Route("/api/cancel", self._cancel, methods=["POST"]),
            Route("/api/frames/{number:int}/{index:int}", self._send_frame),
            Route("/api/maps/{number:int}/{index:int}", self._send_map),
            Route("/overlay.mp4", self._send_overlay),
            Route("/maps.zip", self._send_zip),
        ]
        return make_app("msst_keras.app", routes, lifespan)

    async def _describe(self, request: Request) -> Response:
        def describe() -> dict[str, Any]:
            """What the page shows, as JSON values."""
            job, limits = self._job, self._limits
            answer: dict[str, Any] = {"state": "idle", "model": Path(self._model).name, "number": self._number}
            answer |= {"max_megabytes": limits.num_bytes >> 20, "max_frames": limits.num_frames}
            answer |= {"suffixes": ",".join(file_names.VIDEO_SUFFIXES)}
            if job is None:
                return answer
            answer |= {"state": job.state, "title": job.title, "error": job.error, "num_done": job.num_done()}
            return answer | {"num_frames": job.num_frames, "frame_rate": job.frame_rate, "size": frame_size(job)}

        return JSONResponse(await run_in_threadpool(describe))

    async def _take(self, request: Request) -> Response:
        try:
            job = self._begin(request)
        except (Refused, ValueError):
            async for _ in request.stream():  # a browser reads no answer before it has sent everything
                pass
            raise
        try:
            await self._receive(request, job)
        except BaseException:  # the browser has gone, too
            job.cancel()
            job.remove()
            raise
        job.start()
        return JSONResponse({"number": self._number})

    def _begin(self, request: Request) -> Job:
        if self._job and self._job.is_active:
            raise Refused("another video is being worked on; wait for it or cancel it", "busy")
        folder = self._work_dir / str(self._number + 1)
        name, refine = request.query_params.get("name", ""), "refine" in request.query_params
        job = Job(folder, name, self._model, self._limits, refine)
        if self._job:
            self._job.remove()
        self._job, self._number = job, self._number + 1
        return job

    async def _receive(self, request: Request, job: Job) -> None:
        size = 0
        with open(job.video_path, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._limits.num_bytes:
                    raise Refused(self._too_large(), "size", 413)
                if not job.is_active:
                    raise Refused("cancelled", "cancelled")
                await run_in_threadpool(file.write, chunk)
        if not size:
            raise ValueError(f"'{job.title}' is empty")

    def _too_large(self) -> str:
        return f"a video may have {self._limits.num_bytes >> 20} MB at most (--max_megabytes); this one is larger"

    async def _cancel(self, request: Request) -> Response:
        if self._job:
            await run_in_threadpool(self._job.cancel)
        return Response(status_code=204)

    async def _send_frame(self, request: Request) -> Response:
        return self._send(self._current(request).frame_path(request.path_params["index"]), "image/jpeg")

    async def _send_map(self, request: Request) -> Response:
        return self._send(self._current(request).map_path(request.path_params["index"]), "image/png")

    def _current(self, request: Request) -> Job:
        """The job that a page asks about, if it is still the current one."""
        if self._job is None or request.path_params["number"] != self._number:
            raise Refused("this video has been replaced by another", "gone", 404)
        return self._job

    @staticmethod
    def _send(path: Path, media_type: str) -> Response:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise Refused("this frame is not there yet", "missing", 404) from None
        return Response(content, media_type=media_type, headers={"Cache-Control": "private, max-age=3600"})

    async def _send_overlay(self, request: Request) -> Response:
        job = self._done()
        return FileResponse(job.overlay_path(), media_type="video/mp4", headers=_attachment(job, "_saliency.mp4"))

    async def _send_zip(self, request: Request) -> Response:
        job = self._done()
        path = await run_in_threadpool(job.zip_maps)
        return FileResponse(path, media_type="application/zip", headers=_attachment(job, "_maps.zip"))

    def _done(self) -> Job:
        if self._job is None or self._job.state != "done":
            raise Refused("there is nothing to download yet", "missing", 404)
        return self._job


def _attachment(job: Job, suffix: str) -> dict[str, str]:
    return {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(Path(job.title).stem + suffix, safe='')}"}
