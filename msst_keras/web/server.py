"""A local server for one page: it serves the page's files, answers errors in one sentence, and prints its address."""

from __future__ import annotations

import contextlib
import errno
import importlib.resources
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from msst_keras.web.guard import Guard

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCAL = ("127.0.0.1", "localhost", "::1")
_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


class Refused(Exception):
    """Raised for a request that cannot be done now; the page is told why.

    Attributes:
      kind: a word for the reason, by which the page decides what to do.
      status: the HTTP status of the answer.
    """

    def __init__(self, sentence: str, kind: str = "refused", status: int = 409):
        super().__init__(sentence)
        self.kind, self.status = kind, status


def make_app(package: str, routes: Sequence[Route], lifespan: Callable | None = None) -> Starlette:
    """Makes an application of the page in PACKAGE/page (page.html, style.css, scripts), the common files, and `routes`.

    page.html is the title and the body; the head before it is common to all pages. ValueError and OSError in a route
    are answered with their sentence as {"error": ...} and status 400, a full disk with 507, since the same request may
    succeed later, and `Refused` with its own status and kind.
    """
    files = _read_files("msst_keras.web") | _read_files(package)
    files[""] = files.pop("head.html") + files.pop("page.html")
    pages = [Route(f"/{name}", _serve_file(content, name or "page.html")) for name, content in files.items()]
    handlers = {
        Refused: _answer_refused,
        HTTPException: _answer_http,
        ValueError: _answer_input,
        OSError: _answer_system,
    }
    return Starlette(routes=[*pages, *routes], exception_handlers=handlers, lifespan=lifespan)


def _read_files(package: str) -> dict[str, bytes]:
    """The files that a browser asks for in a package's folder `page`, by their names."""
    folder = importlib.resources.files(package) / "page"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}


def _serve_file(content: bytes, name: str) -> Callable[[Request], Awaitable[Response]]:
    media_type = _TYPES[name.rpartition(".")[2]]

    async def serve(request: Request) -> Response:
        """Answers with the file."""
        return Response(content, media_type=media_type)

    return serve


async def _answer_refused(request: Request, error: Refused) -> Response:
    return JSONResponse({"error": str(error), "kind": error.kind}, error.status)


async def _answer_input(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": " ".join(str(error).split()), "kind": "input"}, 400)


async def _answer_system(request: Request, error: OSError) -> Response:
    if error.errno in _NO_ROOM:
        return JSONResponse({"error": error.strerror, "kind": "room"}, 507)
    return await _answer_input(request, error)


async def _answer_http(request: Request, error: HTTPException) -> Response:
    sentence = "there is nothing at this address" if error.status_code == 404 else error.detail
    return JSONResponse({"error": sentence, "kind": "http"}, error.status_code)


async def read_body(request: Request, limit: int) -> bytes:
    """Reads a request's body.

    Raises:
      Refused: the body has more than `limit` bytes.
    """
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise Refused(f"expected at most {limit} bytes, got more", "size", 413)
        chunks.append(chunk)
    return b"".join(chunks)


def serve(app: Starlette, host: str, port: int, what: str, until: threading.Event | None = None) -> None:
    """Serves until it is stopped (Ctrl-C), and prints the address.

    Args:
      app: the application.
      host: the address to listen on. On any address but 127.0.0.1, localhost and ::1, requests need a token.
      port: the port to listen on; 0 takes a free one.
      what: what the page shows, for the line that is printed.
      until: ends it too, when it is set.

    Raises:
      OSError: the address is taken, or is not this machine's.
    """
    token = None if host in _LOCAL else secrets.token_urlsafe(24)
    with _listen(host, port) as listener:
        port = listener.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::"):
            name = socket.gethostname()
        print(f"{what}: http://{name}:{port}/{f'?token={token}' if token else ''} (Ctrl-C ends it)", flush=True)
        config = uvicorn.Config(
            Guard(app, port, token), log_level="warning", server_header=False, timeout_graceful_shutdown=2,
            proxy_headers=False, ws="none",
        )  # fmt: skip
        # uvicorn raises the signal that stopped it again when it is done. As SystemExit it closes what is open here.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        server = uvicorn.Server(config)
        if until is not None:
            threading.Thread(target=_stop_when_set, args=(server, until), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _stop_when_set(server: uvicorn.Server, until: threading.Event) -> None:
    until.wait()
    server.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    listener = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)  # before the address is printed, because whoever reads it may connect at once
        return listener
    except OSError as error:
        raise OSError(
            f"cannot listen on {host}, port {port} ({error.strerror}); choose another --port or --host"
        ) from None
