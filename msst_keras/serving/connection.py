"""Connections to a server with TensorFlow Serving's API, gRPC or REST: one row of strings there and back.

gRPC goes by method names and our own few messages, REST by the standard library: neither needs TensorFlow. grpcs and
https are the same with encryption, for a server behind a proxy; the variable SSL_CERT_FILE names a file of the
authorities that are trusted in place of the usual ones. What goes wrong is an exception of Python's own: ValueError for
a request that the model refuses, with the model's sentence; FileNotFoundError for a model, version or label that is not
there; TimeoutError; `Unavailable` where the server cannot take a request now, and may later; OSError for the rest.
"""

from __future__ import annotations

import base64
import collections
import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_MESSAGE = 64 * 2**20  # gRPC's own limit for answers is 4 MB
_PREDICT = "/tensorflow.serving.PredictionService/Predict"
# What TensorFlow puts around the sentence of an assertion.
_ASSERTION = re.compile(r"assertion failed: \[[\"']?(.*?)[\"']?\](?:\s|\\|$)", re.DOTALL)
_CORRUPT = re.compile(r"Invalid (JPEG|PNG) data")
_NO_LABEL = re.compile(r"Unrecognized servable version label")  # which a server calls an invalid argument
# In gRPC's message that a server is unavailable; no later attempt would end otherwise.
_NO_TRUST = re.compile(r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|Hostname Verification Check failed")
_FORMS = "grpc://HOST:PORT or http://HOST:PORT, or with encryption grpcs://HOST or https://HOST"


class Unavailable(ConnectionError):
    """The server is not there, or has too much to do."""


def connect(address: str) -> GrpcConnection | RestConnection:
    """A connection to a server; nothing is sent yet.

    Args:
      address: grpc://HOST:PORT or http://HOST:PORT; with encryption grpcs:// or https://, whose port may be left away.

    Raises:
      ValueError: another address, or one with a user or a password, which would not be sent.
      FileNotFoundError: SSL_CERT_FILE names no file.
    """
    if "@" in address:  # said without the address, which may hold a password
        raise ValueError("the address of a server must have no user and no password, because the client sends none")
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is none, for example
        host = port = None
    else:
        encrypted = parts.scheme in ("grpcs", "https")
        port = 443 if encrypted and port is None else port
        rest = parts.path.removeprefix("/") + parts.query + parts.fragment
    if not host or not port or rest or parts.scheme not in ("grpc", "http", "grpcs", "https"):
        raise ValueError(f"a server is given as {_FORMS}, not '{address}'")
    return (GrpcConnection if parts.scheme.startswith("grpc") else RestConnection)(host, port, encrypted)


class GrpcConnection:
    """By gRPC; several threads may use it at once."""

    def __init__(self, host: str, port: int, encrypted: bool = False):
        # Here, because these take longer than all else in this module, and REST does without.
        import grpc

        from msst_keras.serving import messages

        self.address = f"grpc{'s' * encrypted}://{host}:{port}"
        self._errors, self._messages = grpc, messages
        limits = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE) for way in ("send", "receive")]
        # The client retries by itself, see `client`, and a new connection is to reach a restarted server at once.
        limits += [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 1000)]
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if encrypted:
            trusted = os.environ.get("SSL_CERT_FILE")  # as Python's `ssl` has it
            credentials = grpc.ssl_channel_credentials(Path(trusted).read_bytes() if trusted else None)
            self._channel = grpc.secure_channel(target, credentials, limits)
        else:
            self._channel = grpc.insecure_channel(target, limits)
        self._predict = self._channel.unary_unary(
            _PREDICT,
            request_serializer=messages.PredictRequest.SerializeToString,
            response_deserializer=messages.PredictResponse.FromString,
        )

    def predict(
        self, name: str, version: int | str | None, signature: str, inputs: Mapping[str, bytes], timeout: float
    ) -> tuple[dict[str, bytes], int]:
        """The outputs of a signature, and the version that gave them.

        Args:
          name: of the model.
          version: a number, a label, or None for the newest.
          signature: its name.
          inputs: the string of each.
          timeout: in seconds.
        """
        request = self._messages.write_request(name, version, signature, inputs)
        try:
            response = self._predict(request, timeout=timeout)
        except self._errors.RpcError as error:
            raise self._translate(error) from None
        return self._messages.read_response(response), response.model_spec.version.value

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _translate(self, error: Any) -> Exception:
        codes, code, text = self._errors.StatusCode, error.code(), f"{self.address}: {_find_sentence(error.details())}"
        if code is codes.INVALID_ARGUMENT and _NO_LABEL.search(text):
            return FileNotFoundError(text)
        if code is codes.UNAVAILABLE and _NO_TRUST.search(error.details() or ""):
            return OSError(text)
        kinds = {
            codes.UNAVAILABLE: Unavailable, codes.INVALID_ARGUMENT: ValueError, codes.NOT_FOUND: FileNotFoundError,
            codes.FAILED_PRECONDITION: ValueError, codes.DEADLINE_EXCEEDED: TimeoutError,
        }  # fmt: skip
        return kinds.get(code, OSError)(text if code in kinds else f"{text} ({code.name})")


class _Deadline:
    """For a socket: what is read must be there at `end`, however small the pieces that it comes in."""

    end = 0.0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        """Reads, but waits no longer than until `end`."""
        self.settimeout(_time_left(self.end))  # type: ignore[attr-defined]
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]


class _Socket(_Deadline, socket.socket):
    pass


class RestConnection:
    """By REST, version 1; several threads may use it at once: each request takes an idle connection, or a new one."""

    def __init__(self, host: str, port: int, encrypted: bool = False):
        import http.client  # here, because gRPC does without it, and without the encryption that it imports
        import ssl

        self._http, self._ssl, self._context = http.client, ssl, None
        if encrypted:
            self._context = ssl.create_default_context()
            self._context.sslsocket_class = type("_EncryptedSocket", (_Deadline, ssl.SSLSocket), {})
        self._host, self._port = host, port
        self.address = f"http{'s' * encrypted}://{host}:{port}"
        self._idle: collections.deque[Any] = collections.deque()  # which threads may share

    def predict(
        self, name: str, version: int | str | None, signature: str, inputs: Mapping[str, bytes], timeout: float
    ) -> tuple[dict[str, bytes], int]:
        """See `GrpcConnection.predict`."""
        end = time.monotonic() + timeout
        path = _model_path(name, version)
        if not isinstance(version, int):  # an answer by REST does not say which version gave it
            metadata = self._ask("GET", f"{path}/metadata", None, timeout, end)
            try:
                version = int(str(metadata["model_spec"]["version"]))
            except (KeyError, TypeError, ValueError):
                raise self._refuse(metadata) from None
            path = _model_path(name, version)
        row = {key: {"b64": base64.b64encode(value).decode()} for key, value in inputs.items()}
        body = json.dumps({"signature_name": signature, "instances": [row]})
        answer = self._ask("POST", f"{path}:predict", body, timeout, end)
        try:
            (found,) = answer["predictions"]
            # Of one output a server leaves the name away.
            outputs = {"": found} if "b64" in found else found
            return {key: base64.b64decode(value["b64"]) for key, value in outputs.items()}, version
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._refuse(answer) from None

    def close(self) -> None:
        """Ends the connections."""
        while self._idle:
            self._idle.pop().close()

    def _refuse(self, answer: Any) -> ValueError:
        """What is raised in place of an answer that says something else than expected, or is of another server."""
        return ValueError(f"{self.address}: no answer of a model of `msst export`: {_show(answer)[:80]}")

    def _ask(self, method: str, path: str, body: str | None, timeout: float, end: float) -> Any:
        """The JSON value that a request is answered with until `end`; `timeout`, for an error, says how long that was.

        What is no JSON is the value {"error": its beginning}.
        """
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._http.HTTPConnection(self._host, self._port)
        try:
            if not connection.sock:  # it is new, or the server has closed it
                connection.timeout = _time_left(end)
                connection.connect()
                connection.sock = _Socket(fileno=connection.sock.detach())
                if self._context:
                    connection.sock.settimeout(_time_left(end))
                    connection.sock = self._context.wrap_socket(connection.sock, server_hostname=self._host)
            connection.sock.end = end
            connection.sock.settimeout(_time_left(end))
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            status, content = response.status, response.read()
        except TimeoutError:
            connection.close()
            raise TimeoutError(f"{self.address}: no answer within {timeout:.3g} s") from None
        except (OSError, self._http.HTTPException) as error:
            connection.close()
            # A certificate that is not trusted, or no encryption there at all, is the same at every attempt.
            lasting = isinstance(error, self._ssl.SSLError) and not isinstance(error, self._ssl.SSLEOFError)
            kind: type[OSError] = OSError if lasting else Unavailable
            raise kind(f"{self.address}: {error or type(error).__name__}") from None
        self._idle.append(connection)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):  # the latter where it is nested too deeply
            answer = {"error": content[:200].decode(errors="replace")}
        if status != 200:
            sentence = _show(answer.get("error", answer) if isinstance(answer, dict) else answer)
            status = 404 if status == 400 and _NO_LABEL.search(sentence) else status
            kinds = {400: ValueError, 404: FileNotFoundError, 503: Unavailable, 504: TimeoutError}
            text = f"{self.address}: {_find_sentence(sentence)}" + f" (status {status})" * (status not in kinds)
            raise kinds.get(status, OSError)(text)
        return answer


def _time_left(end: float) -> float:
    """Seconds until a time of `time.monotonic`, and a little where it has passed, because 0 would mean no waiting."""
    return max(end - time.monotonic(), 1e-3)


def _show(value: Any) -> str:
    """A value of JSON as text."""
    try:
        return str(value)
    except RecursionError:
        return "JSON that is nested too deeply"


def _model_path(name: str, version: int | str | None) -> str:
    kind = "" if version is None else f"/versions/{version}" if isinstance(version, int) else f"/labels/{version}"
    return f"/v1/models/{urllib.parse.quote(name)}{kind}"


def _find_sentence(text: str | None) -> str:
    """Our sentence in a message of TensorFlow's, else the message on one line."""
    text = text or "no reason given"
    if found := _ASSERTION.search(text):
        return " ".join(found[1].split())
    if found := _CORRUPT.search(text):
        return f"a file of the request is a {found[1]} that is damaged"
    return " ".join(text.split())[:300]
