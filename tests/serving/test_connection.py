"""Connections by themselves: addresses, encryption, deadlines, retries. The models behind them tell what they are."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time

import grpc
import model_server
import numpy as np
import pytest
from cpp_model import ModelError
from tensorflow_serving.apis import prediction_service_pb2_grpc

from msst_keras.serving import client, connection
from msst_keras.serving.client import RemoteModel

SETTINGS = {"num_frames": 1, "motion": None, "step": {"inputs": ["frame_bytes"], "frame_size": None}}


class Described:
    """A model that describes itself after some time, or refuses to."""

    signatures = {"describe": {"inputs": {"client_bytes": None}}}
    dtypes = {}
    seconds, error = 0.0, None

    def run(self, signature, inputs):
        time.sleep(self.seconds)
        if self.error:
            raise self.error
        return {"settings_bytes": np.array([json.dumps(SETTINGS).encode()], object)}


@pytest.fixture
def model():
    return Described()


@pytest.fixture
def server(model):
    with contextlib.closing(model_server.ModelServer({"msst": {1: model}})) as running:
        yield running


@contextlib.contextmanager
def listener(answer=lambda client: None):
    """The port of one that accepts a connection and does with it what it is told; it keeps it until the end."""

    def accept():
        with contextlib.suppress(OSError):
            with listening.accept()[0] as accepted:
                answer(accepted)
                ended.wait(60)

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        ended.set()
        thread.join(60)


@pytest.mark.parametrize("address", ["http://me:secret@host:8501", "grpc://me@host:8500", "https://me:secret/@host"])
def test_an_address_with_a_password_is_refused_and_not_shown(address):
    with pytest.raises(ValueError, match="must have no user and no password, because the client sends none") as error:
        connection.connect(address)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "address", ["http://host", "grpcs://host:0", "http://h:1#x", "https://h/v1", "http://[::1", "https://"]
)
def test_what_is_no_address_is_refused_by_one_sentence(address):
    with pytest.raises(ValueError, match="or with encryption grpcs://HOST or https://HOST, not '"):
        connection.connect(address)


def test_encrypted_addresses_need_no_port():
    for scheme in ("grpcs", "https"):
        for address, expected in ((f"{scheme}://host", 443), (f"{scheme}://host:8443/", 8443)):
            with contextlib.closing(connection.connect(address)) as connected:
                assert connected.address == f"{scheme}://host:{expected}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The files of a certificate for localhost, signed by itself, and of its key."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not on the PATH: it makes the certificate of this test")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {folder}/key.pem -out {folder}/certificate.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture
def context(certificate):
    """Encryption of a server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*certificate)
    return made


@pytest.fixture
def encrypted(server, certificate, context):
    """scheme -> port of that server behind encryption."""
    server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
    secure = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(model_server._Prediction(server), secure)
    files = [path.read_bytes() for path in certificate]
    port = secure.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(files[1], files[0])]))
    secure.start()
    yield {"https": server._http.server_address[1], "grpcs": port}
    secure.stop(0).wait()


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_an_encrypted_server_answers_who_trusts_it(encrypted, scheme, certificate, monkeypatch):
    address = f"{scheme}://localhost:{encrypted[scheme]}"
    start = time.monotonic()
    with pytest.raises(OSError, match=f"{address}: .*CERTIFICATE_VERIFY_FAILED") as error:
        RemoteModel(address, timeout=60)
    # It will not be trusted later either, so nothing is sent again.
    assert not isinstance(error.value, connection.Unavailable) and time.monotonic() - start < 20
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with contextlib.closing(RemoteModel(address, timeout=60)) as model:
        assert model.settings == SETTINGS and model.version == 1
        assert model.ask("describe", {"client_bytes": b""})  # through the same connection
    # The certificate is for another name.
    with pytest.raises(OSError, match="IP address mismatch|Hostname Verification Check failed") as error:
        RemoteModel(address.replace("localhost", "127.0.0.1"), timeout=60)
    assert not isinstance(error.value, connection.Unavailable) and time.monotonic() - start < 20
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file")
    with pytest.raises(OSError, match="/no/such/file" if scheme == "grpcs" else "CERTIFICATE_VERIFY_FAILED"):
        RemoteModel(address, timeout=60)


def test_a_server_without_encryption_is_not_asked_for_it_again(server):
    for address in (server.rest_address.replace("http", "https"), server.grpc_address.replace("grpc", "grpcs")):
        start = time.monotonic()
        with pytest.raises(OSError, match=f"{address}: .*WRONG_VERSION_NUMBER") as error:
            RemoteModel(address, timeout=60)
        assert not isinstance(error.value, connection.Unavailable) and time.monotonic() - start < 20


def test_encryption_and_what_comes_through_it_have_a_deadline(certificate, context, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))

    def drip(accepted):
        with context.wrap_socket(accepted, server_side=True) as secured:
            secured.recv(65536)
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
                secured.send(bytes([byte]))
                time.sleep(0.1)

    for answer in (lambda accepted: None, drip):
        with listener(answer) as port:
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="no answer within 0.5 s"):
                connection.connect(f"https://localhost:{port}").predict("msst", None, "describe", {}, timeout=0.5)
            assert time.monotonic() - start < 2


def test_grpc_has_a_deadline(server, model):
    with contextlib.closing(connection.connect(server.grpc_address)) as connected:
        connected.predict("msst", None, "describe", {"client_bytes": b""}, timeout=60)
        model.seconds, start = 3, time.monotonic()
        with pytest.raises(TimeoutError, match=f"{server.grpc_address}: .*Deadline Exceeded"):
            connected.predict("msst", None, "describe", {"client_bytes": b""}, timeout=0.3)
        assert time.monotonic() - start < 2


def test_connecting_has_a_deadline():
    """Of a server that takes no more connections: Linux then leaves those that ask for one without an answer."""
    with contextlib.ExitStack() as stack:
        stack.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
        socket.setdefaulttimeout(20)  # only so that the test ends if there is no deadline
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer within 0.3 s"):
            address = f"http://127.0.0.1:{full.getsockname()[1]}"
            connection.connect(address).predict("msst", None, "describe", {}, timeout=0.3)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_a_request_that_failed_makes_room_for_the_next(server, model, api):
    remote = RemoteModel(getattr(server, f"{api}_address"), max_in_flight=1, timeout=5)
    model.error = ModelError(3, "refused")
    for _ in range(2):  # a second that waits for the first would end with a TimeoutError
        with pytest.raises(ValueError, match="refused"):
            remote.ask("describe", {"client_bytes": b""})
    model.error = None
    assert remote.ask("describe", {"client_bytes": b""})
    remote.close()


class Clock:
    """A time that passes while somebody sleeps, and what they slept."""

    def __init__(self):
        self.now, self.slept = 1000.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)


def test_a_request_is_sent_again_until_the_timeout(server, monkeypatch):
    remote = RemoteModel(server.rest_address, timeout=40)
    clock, first = Clock(), server.requests
    monkeypatch.setattr(client, "time", clock)
    server.refuse = 1000
    with pytest.raises(connection.Unavailable, match="queue is full"):
        remote.ask("describe", {"client_bytes": b""})
    assert 37 < sum(clock.slept) < 40 and server.requests - first == len(clock.slept) + 1
    assert clock.slept[:5] == [0.1, 0.2, 0.4, 0.8, 1.6] and set(clock.slept[5:]) == {2.0}
    server.refuse = 15  # a server that is away for half a minute
    assert remote.ask("describe", {"client_bytes": b""})
    remote.close()


def test_an_unknown_label_is_not_found(model):
    with contextlib.closing(model_server.ModelServer({"msst": {1: model}}, {("msst", "stable"): 1})) as server:
        for address in (server.grpc_address, server.rest_address):
            assert RemoteModel(address, "msst/stable").version == 1
            with pytest.raises(FileNotFoundError, match=f"{address}: Unrecognized servable version label: canary$"):
                RemoteModel(address, "msst/canary")


def test_json_that_is_nested_too_deeply_is_shown_as_such():
    value = []
    for _ in range(100_000):
        value = [value]
    assert connection._show(value) == "JSON that is nested too deeply" and connection._show([1]) == "[1]"
