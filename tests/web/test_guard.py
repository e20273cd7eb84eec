"""Who is answered: Host, Origin, Sec-Fetch-Site and the token."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("starlette")

from starlette.responses import PlainTextResponse  # noqa: E402

from msst_keras.web.guard import Guard  # noqa: E402


def ask(guard, method="GET", path="/", query="", **headers):
    """(status, headers, body) of a request; headers with "_" for "-"."""
    sent = []
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": raw,
        "scheme": "http", "server": ("127.0.0.1", 8000), "root_path": "",
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, receive, send))
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, sent[1]["body"].decode()


LOCAL = "127.0.0.1:8000"


@pytest.fixture
def guard():
    return Guard(PlainTextResponse("the page"), 8000)


@pytest.fixture
def guard_with_token():
    return Guard(PlainTextResponse("the page"), 8000, "secret")


@pytest.mark.parametrize("host", [LOCAL, "localhost:8000", "[::1]:8000"])
def test_its_own_page_is_answered(guard, host):
    status, headers, body = ask(guard, host=host)
    assert (status, body) == (200, "the page")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert ask(guard, "POST", host=host, origin=f"http://{host}", sec_fetch_site="same-origin")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil:8000", ""]
)
def test_another_name_is_not(guard, host):
    status, headers, body = ask(guard, host=host)
    assert status == 403 and "this server does not answer to the name" in body
    assert "content-security-policy" in headers


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1:9000", "https://127.0.0.1:8000", "http://localhost:8000"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_another_origin_changes_nothing(guard, method, origin):
    status, _, body = ask(guard, method, host=LOCAL, origin=origin)
    assert status == 403 and f"a page of {origin} may not change anything here" in body


def test_without_an_origin_nothing_is_changed(guard):
    assert ask(guard, "POST", host=LOCAL)[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_reads_nothing_but_may_link_to_the_page(guard, site):
    status, _, body = ask(guard, host=LOCAL, sec_fetch_site=site, sec_fetch_dest="image")
    assert status == 403 and "another site's page may not read anything here" in body
    assert ask(guard, host=LOCAL, sec_fetch_site=site, sec_fetch_dest="document")[0] == 200
    assert ask(guard, host=LOCAL, sec_fetch_site="none", sec_fetch_dest="document")[0] == 200


def test_beyond_this_machine_a_token_is_needed(guard_with_token):
    host = "192.168.1.5:8000"
    status, _, body = ask(guard_with_token, host=host)
    assert status == 403 and "with its token" in body
    assert ask(guard_with_token, query="token=wrong", host=host)[0] == 403
    status, headers, _ = ask(guard_with_token, query="token=secret", host=host)
    assert status == 303 and headers["location"] == "/"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower()
    pair = cookie.partition(";")[0]
    assert ask(guard_with_token, host=host, cookie=pair)[0] == 200
    assert ask(guard_with_token, "PUT", host=host, cookie=pair, origin=f"http://{host}")[0] == 200
    assert ask(guard_with_token, "PUT", host=host, cookie=pair, origin="http://evil.example")[0] == 403
    assert ask(guard_with_token, host=host, cookie=pair.replace("8000", "8001"))[0] == 403
    assert ask(guard_with_token, host=host, cookie="msst_8000=wr\u00f6ng")[0] == 403
    assert ask(guard_with_token, host=host, cookie="[;;=")[0] == 403
