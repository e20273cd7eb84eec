"""Decides which requests are answered, so that no other site's page can read or write anything here.

Any page that is open in a browser can send requests to 127.0.0.1. Four rules keep such pages out:

- Host must be this server's own address. A foreign name that resolves to it (DNS rebinding) is refused.
- A request that changes something (any method but GET and HEAD) must have the Origin of a page of this server.
- A request that reads is refused if the browser says that another site sends it (Sec-Fetch-Site), except to open the
  page.
- If the server listens beyond this machine, every request needs the token, in a cookie that is set when the page is
  opened with ?token=.
"""

from __future__ import annotations

import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """ASGI middleware that applies these rules and sets the headers that keep pages apart.

    Args:
      app: the application.
      port: the port that the server listens on.
      token: the token that requests must have; None if the server listens only on this machine's own address.
    """

    def __init__(self, app: ASGIApp, port: int, token: str | None = None):
        self._app, self._token = app, token
        self._cookie = f"msst_{port}"  # cookies do not tell ports apart
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = {f"{name}:{port}" for name in names} | {name for name in names if port == 80}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or hands it on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            """Sends a part of the answer; its start with the headers that every answer has."""
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refuse(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        """The response to a request that is not handed on; None for one that is."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and host not in self._hosts:
            return _error(f"this server does not answer to the name {host!r}; open http://127.0.0.1 and its port")
        if scope["method"] not in ("GET", "HEAD"):
            if headers.get("origin") != f"http://{host}":
                return _error(f"a page of {headers.get('origin', 'unknown origin')} may not change anything here")
        elif headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            if headers.get("sec-fetch-dest") != "document":
                return _error("another site's page may not read anything here")
        return self._ask_token(scope, headers)

    def _ask_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if given and _equal(given, self._token):
            response = RedirectResponse(scope["path"], 303)  # so that the token leaves the address bar
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict")
            return response
        try:
            known = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            known = None
        if known is None or not _equal(known.value, self._token):
            return _error("open the address that the program printed, with its token")
        return None


def _equal(first: str, second: str) -> bool:
    return secrets.compare_digest(first.encode(), second.encode())


def _error(sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, 403)
