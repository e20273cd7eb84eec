"""The client against servers of both APIs: the maps of a local stream, and what happens when something goes wrong."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import model_server
import numpy as np
import pytest
import tensorflow as tf
from cpp_model import CppModel
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from msst_keras.data.images import encode_png
from msst_keras.inference.motion_stream import MovingFrame
from msst_keras.inference.stream import SaliencyModel, SaliencyStream
from msst_keras.serving import connection, messages, warm_up, wire
from msst_keras.serving.client import RemoteMaps, RemoteModel, RemoteStream


def grey_levels(maps):
    return np.rint(255 * np.stack(maps)).astype(int)


@pytest.fixture(scope="module")
def server(exported_step):
    with model_server.serve({"msst": exported_step.folder}, loaded={"msst": {1: exported_step.cpp}}) as running:
        for _, inputs in filter(lambda request: request[0] == "step", warm_up.read(exported_step.path)):
            exported_step.cpp.run("step", inputs)  # as a server does before it takes requests
        running.exported = exported_step
        yield running


@pytest.fixture
def own_server(exported_step):
    """A server that counts and refuses requests."""
    with contextlib.closing(model_server.ModelServer({"msst": {1: exported_step.cpp}})) as running:
        yield running


@pytest.fixture(scope="module")
def frames(exported_step):
    """A video, smaller than the network in one case and larger in the other."""
    return list(exported_step.inputs(4)["frames"][:, 0])


@pytest.fixture(scope="module")
def local(exported_step, frames):
    """A model here, and its maps of the frames."""
    model = SaliencyModel(exported_step.path)
    stream, maps = SaliencyStream(model), []
    for frame in frames:
        maps += stream.push(frame)
    return model, maps + stream.close()


@pytest.mark.parametrize("api", ["grpc", "rest"])
def test_a_remote_stream_gives_the_maps_of_a_local_one(server, frames, local, api):
    model = RemoteModel(getattr(server, f"{api}_address"), frame_quality=wire.LOSSLESS, timeout=300)
    remote, found = RemoteStream(model), []
    for frame in frames:
        found += remote.push(frame)
    found += remote.close()
    assert len(found) == len(frames) and model.version == 1
    assert model.settings["fingerprint"] == local[0].settings["fingerprint"]
    assert np.abs(grey_levels(found) - grey_levels(local[1])).max() <= 1
    assert grey_levels(found).std() > 3
    assert model.bytes_sent > 0 < model.bytes_received
    model.close()


def test_frames_go_as_small_jpegs_unless_another_quality_is_asked_for(saved_model):
    """For a model that sees frames at its own size alone; the maps are nearly those of whole frames."""
    y, x = np.mgrid[:80, :112]
    frames = [np.stack([2 * x + 5 * t, 3 * y, 200 * (np.hypot(x - 30 - 6 * t, y - 40) < 20)], -1).astype(np.uint8)
              for t in range(5)]  # fmt: skip
    local, expected = SaliencyStream(SaliencyModel(saved_model)), []
    cpp = CppModel(saved_model / "1", Path(tf.__file__).parent)
    with contextlib.closing(model_server.ModelServer({"msst": {1: cpp}})) as server:
        model = RemoteModel(server.grpc_address, timeout=300)
        ask, sent = model.ask, []
        model.ask = lambda signature, inputs: sent.append(inputs["frame_bytes"]) or ask(signature, inputs)
        remote, found = RemoteStream(model), []
        for frame in frames:
            expected += local.push(frame)
            found += remote.push(frame)
        expected, found = grey_levels(expected + local.close()), grey_levels(found + remote.close())
    size = tuple(model.settings["image_size"])
    assert sent == [wire.encode_frame(frame, size, 95) for frame in frames]
    assert all(tf.io.decode_jpeg(file).shape == (*size, 3) for file in sent)
    assert np.abs(found - expected).mean() < 2 and np.abs(found - expected).max() <= 8


# In a process of its own, because it has messages of TensorFlow's names in one registry with TensorFlow's.
FOREIGN = """
import sys, numpy, ovmsclient
with numpy.load(sys.argv[1]) as file:
    inputs = dict(file)
for make, address in zip((ovmsclient.make_grpc_client, ovmsclient.make_http_client), sys.argv[2:4]):
    found = make(address).predict(inputs=inputs, model_name="msst", timeout=60)
    numpy.save(sys.argv[4 + (make is ovmsclient.make_http_client)], found)
"""


@pytest.mark.slow
def test_a_client_that_is_not_ours_gets_the_same_map(server, tmp_path):
    """It has no way to name a signature, so it asks for the default one, whose inputs are arrays."""
    clips = server.exported.inputs(1)
    np.savez(tmp_path / "inputs.npz", **clips)
    addresses = [address.partition("//")[2] for address in (server.grpc_address, server.rest_address)]
    paths = [str(tmp_path / name) for name in ("grpc.npy", "rest.npy")]
    subprocess.run([sys.executable, "-c", FOREIGN, str(tmp_path / "inputs.npz"), *addresses, *paths], check=True)
    for path in paths:
        found = np.load(path)
        assert found.shape == (1, *clips["frames"].shape[2:4], 1)
        np.testing.assert_allclose(found[..., 0], server.exported.live(clips), atol=1e-5)


def test_predict_writes_the_maps_of_a_server(server, frames, tmp_path, capsys):
    from msst_keras.data import images
    from msst_keras.inference.options import PredictOptions
    from msst_keras.jobs.predict import predict

    for index, frame in enumerate(frames):
        path = tmp_path / "frames" / "ball" / f"{index:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(frame))
    given = {"input": (f"{tmp_path}/frames/ball",)}
    predict(PredictOptions(server=server.rest_address, output_dir=f"{tmp_path}/a", frame_quality=100, **given))
    predict(PredictOptions(model=str(server.exported.folder), output_dir=f"{tmp_path}/b", **given))
    for path in sorted((tmp_path / "b" / "ball").glob("*.png")):
        found = images.read_levels(tmp_path / "a" / "ball" / path.name).astype(int)
        assert np.abs(found - images.read_levels(path)).max() <= 1
    assert len(list((tmp_path / "a" / "ball").glob("*.png"))) == len(frames)
    with pytest.raises(ValueError, match="give --model_name in place of --model"):
        PredictOptions(server="grpc://a:1", model="b", input=("c",))


def test_the_servers_sentence_reaches_the_caller(server):
    for address in (server.grpc_address, server.rest_address):
        model = RemoteModel(address)
        with pytest.raises(ValueError, match=rf"{address}: frame_bytes must be a JPEG or PNG file$"):
            model.ask("step", {name: b"" for name in model.inputs})
        with pytest.raises(FileNotFoundError, match="not found"):
            RemoteModel(address, "other")
        with pytest.raises(FileNotFoundError, match="not found"):
            RemoteModel(address, "msst/7")


def test_what_a_server_refuses_is_not_sent_again_and_what_it_cannot_take_now_is(own_server):
    server = own_server
    for address in (server.grpc_address, server.rest_address):
        model = RemoteModel(address)
        before = server.requests
        with pytest.raises(ValueError, match="must be a JPEG or PNG"):
            model.ask("step", {name: b"" for name in model.inputs})
        assert server.requests == before + 1
        server.refuse, before = 2, server.requests
        assert model.ask("describe", {"client_bytes": b""})
        assert server.requests == before + 3
        server.refuse = 100
        short = RemoteModel.__new__(RemoteModel)
        short.__dict__.update(model.__dict__, _timeout=0.5)
        start = time.monotonic()
        with pytest.raises(connection.Unavailable, match="queue is full"):
            short.ask("describe", {"client_bytes": b""})
        server.refuse = 0
        assert time.monotonic() - start < 1.5


@pytest.mark.slow
def test_a_server_of_its_own_process_is_used_where_one_is_named(exported_step, frames, tmp_path, monkeypatch):
    """The tests' own as a program: what a real one would be asked, when there is one."""
    program = tmp_path / "tensorflow_model_server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{model_server.__file__}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("MSST_TF_SERVING", raising=False)
    with model_server.serve({"msst": exported_step.folder}) as server:
        assert not isinstance(server, model_server.ModelServer)
        for address in (server.grpc_address, server.rest_address):
            stream = RemoteStream(RemoteModel(address))
            assert len(stream.push(frames[0]) + stream.push(frames[1])) == 1
    program.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(RuntimeError, match="ended with status 3"), model_server.serve({"msst": exported_step.folder}):
        pass


def test_a_stream_keeps_the_version_that_began_it(exported_step, frames):
    labels = {("msst", "stable"): 1, ("msst", "canary"): 2}
    models = {"msst": dict.fromkeys((1, 2), exported_step.cpp)}
    with contextlib.closing(model_server.ModelServer(models, labels)) as server:
        for address in (server.grpc_address, server.rest_address):
            assert RemoteModel(address).version == 2
            assert RemoteModel(address, "msst/canary").version == 2
            assert RemoteModel(address, "msst/1").version == 1
            server.labels["msst", "stable"] = 1
            model = RemoteModel(address, "msst/stable")
            stream = RemoteStream(model)
            stream.push(frames[0]), stream.push(frames[1])
            server.labels["msst", "stable"] = 2
            stream.push(frames[2])
            assert model.version == 1
        del server.models["msst"][1]
        state = stream._maps._state
        with pytest.raises(FileNotFoundError, match="not found"):
            stream.push(frames[3])
        assert stream._maps._state == state != b""  # it is as it was before


class FakeModel:
    """A server that keeps the states which it is sent, and answers with the next of its answers, or raises it."""

    frame_size, frame_quality, inputs = None, 95, ("frame_bytes", "state_bytes")

    def __init__(self, *answers):
        self.answers, self.states = list(answers), []

    def ask(self, signature, inputs):
        self.states.append(inputs["state_bytes"])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_request_that_fails_leaves_the_maps_as_they_were():
    saliency, moving = encode_png(np.full((4, 6), 51, np.uint8)), MovingFrame(np.zeros((4, 6, 3), np.uint8))
    good, broken = ({"saliency_bytes": file, "state_bytes": name} for file, name in ((saliency, b"1"), (b"", b"2")))
    model = FakeModel(good, connection.Unavailable("away"), broken, good)
    maps = RemoteMaps(model)
    np.testing.assert_allclose(maps.push(moving), 0.2)
    with pytest.raises(connection.Unavailable, match="away"):
        maps.push(moving)
    with pytest.raises(ValueError, match="no 8-bit grey PNG"):
        maps.push(moving)
    maps.push(moving)
    assert model.states == [b"", b"1", b"1", b"1"]


@contextlib.contextmanager
def slow_rest_server(seconds):
    """A server that counts how many requests are on the way at once."""
    counts = {"now": 0, "most": 0}
    lock = threading.Lock()
    motion = {"num_frames": 1, "motion": None, "step": {"inputs": ["frame_bytes"], "frame_size": None}}
    settings = {"settings_bytes": json.dumps(motion).encode()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, value):
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # the client's deadline has passed
                self.wfile.write(content)

        def do_GET(self):  # noqa: N802
            self.answer({"model_spec": {"version": "3"}})

        def do_POST(self):  # noqa: N802
            with lock:
                counts["now"] += 1
                counts["most"] = max(counts["now"], counts["most"])
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(seconds[0])
            with lock:
                counts["now"] -= 1
            self.answer({"predictions": [model_server._encode("_bytes", settings["settings_bytes"])]})

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", counts
    server.shutdown()
    server.server_close()


def test_requests_on_the_way_are_bounded_and_have_a_deadline():
    seconds = [0.0]
    with slow_rest_server(seconds) as (address, counts):
        model = RemoteModel(address, max_in_flight=2, timeout=5)
        seconds[0] = 0.1
        threads = [threading.Thread(target=model.ask, args=("describe", {"client_bytes": b""})) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts["most"] == 2
        seconds[0] = 3
        hasty = RemoteModel.__new__(RemoteModel)
        hasty.__dict__.update(model.__dict__, _timeout=0.3)
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="no answer within 0.3 s"):
            hasty.ask("describe", {"client_bytes": b""})
        assert time.monotonic() - start < 2


@contextlib.contextmanager
def rest_server(get, post=b""):
    """A server that answers with what it is given: bytes, or a function that makes them."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, content):
            content = content() if callable(content) else content
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(content)

        def do_GET(self):  # noqa: N802
            self.answer(get)

        def do_POST(self):  # noqa: N802
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(post)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


VERSION = b'{"model_spec": {"version": "3"}}'


@pytest.mark.parametrize(
    "answers",
    [
        (b"<html>hello</html>",), (b"{}",), (b"[]",), (b"7",), (b"",), (b'{"model_spec": {"version": ""}}',),
        (b'{"model_spec": {"version": null}}',), (b'{"model_spec": {"version": Infinity}}',),
        (VERSION, b"<html>hello</html>"), (VERSION, b"[]"), (VERSION, b'{"predictions": []}'),
        (VERSION, b'{"predictions": [[1, 2]]}'), (VERSION, b'{"predictions": ["text"]}'),
        (VERSION, b'{"predictions": [{"b64": 3}]}'), (b"[" * 100_000,), (VERSION, b'{"a":' * 100_000),
    ],
)  # fmt: skip
def test_what_is_no_model_server_is_one_sentence(answers):
    with rest_server(*answers) as address:
        with pytest.raises(ValueError, match=f"^{address}: no answer of a model of `msst export`: [^\n]+$"):
            RemoteModel(address, timeout=60)


def test_settings_that_are_nested_too_deeply_are_no_models():
    nested = base64.b64encode(b"[" * 100_000).decode()
    with rest_server(VERSION, json.dumps({"predictions": [{"b64": nested}]}).encode()) as address:
        with pytest.raises(ValueError, match="'msst' is no model of `msst export` that this program knows"):
            RemoteModel(address, timeout=60)


def test_both_requests_of_rest_have_one_deadline():
    def slowly(answer, seconds):
        time.sleep(seconds)
        return answer

    described = json.dumps({"predictions": [{"b64": "e30="}]}).encode()
    with rest_server(lambda: slowly(VERSION, 0.6), lambda: slowly(described, 0.8)) as address:
        with pytest.raises(TimeoutError, match=f"{address}: no answer within 1 s"):
            connection.connect(address).predict("msst", None, "describe", {}, timeout=1.0)
        outputs, version = connection.connect(address).predict("msst", None, "describe", {}, timeout=60.0)
        assert (outputs, version) == ({"": b"{}"}, 3)


def test_an_answer_in_drops_has_a_deadline():
    """Each of them comes in time; the whole answer does not."""

    def drip(listening):
        client, _ = listening.accept()
        client.recv(65536)
        with client, contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":
                client.send(bytes([byte]))
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=drip, args=(listening,), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(TimeoutError, match="no answer within 0.5 s"):
            connection.connect(address).predict("msst", None, "describe", {}, timeout=0.5)
        thread.join(60)


def test_no_server_is_one_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for scheme in ("grpc", "http"):
        start = time.monotonic()
        with pytest.raises(ConnectionError, match=f"{scheme}://127.0.0.1:{port}: "):
            RemoteModel(f"{scheme}://127.0.0.1:{port}", timeout=1)
        assert time.monotonic() - start < 3
    for address in ("localhost:8500", "ftp://host:1", "grpc://host", "http://host:port", "http://host:1/v1"):
        with pytest.raises(ValueError, match="a server is given as grpc://HOST:PORT or http://HOST:PORT"):
            connection.connect(address)


def test_our_messages_are_the_official_ones():
    inputs = {"frame_bytes": b"\x00\xff", "state_bytes": b""}
    ours = messages.write_request("msst", 7, "step", inputs)
    official = predict_pb2.PredictRequest.FromString(ours.SerializeToString())
    assert (official.model_spec.name, official.model_spec.version.value) == ("msst", 7)
    assert official.model_spec.signature_name == "step"
    assert {name: tf.make_ndarray(tensor).tolist() for name, tensor in official.inputs.items()} == {
        "frame_bytes": [b"\x00\xff"], "state_bytes": [b""]
    }  # fmt: skip
    labelled = predict_pb2.PredictRequest.FromString(messages.write_request("m", "stable", "s", {}).SerializeToString())
    assert labelled.model_spec.version_label == "stable"
    response = predict_pb2.PredictResponse()
    response.model_spec.version.value = 3
    response.outputs["settings_bytes"].CopyFrom(tf.make_tensor_proto([b"{}"]))
    read = messages.PredictResponse.FromString(response.SerializeToString())
    assert messages.read_response(read) == {"settings_bytes": b"{}"} and read.model_spec.version.value == 3
    log = messages.PredictionLog()
    log.predict_log.request.CopyFrom(ours)
    assert prediction_log_pb2.PredictionLog.FromString(log.SerializeToString()).predict_log.request == official


def import_client():
    """(seconds of the processor, which heavy packages came along) of importing the client, three times."""
    program = (
        "import sys, time; start = time.process_time(); import msst_keras.serving.client; "
        "print(time.process_time() - start, sorted({'tensorflow', 'keras', 'grpc'} & sys.modules.keys()))"
    )
    return [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]


def test_the_client_imports_no_tensorflow():
    assert all(result[1] == "[]" for result in import_client())


@pytest.mark.slow  # seconds differ between machines, so this is no test that every change must pass
def test_importing_the_client_takes_no_time():
    results = import_client()
    assert min(float(result[0]) for result in results) < 0.3, results


def test_superpixels_and_maps_travel_whole():
    labels = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.int32)
    decoded = tf.io.decode_png(wire.encode_superpixels(labels), dtype=tf.uint16).numpy().reshape(3, 6, 5)
    np.testing.assert_array_equal(decoded.transpose(1, 2, 0), labels)
    with pytest.raises(ValueError, match="labels must be 0 to 65535, found -1 to 65535"):
        wire.encode_superpixels(np.array([[[-1, 65535]]]))
    with pytest.raises(ValueError, match="no 8-bit grey PNG"):
        wire.decode_saliency(b"", (3, 3))


@pytest.mark.parametrize("size", [(40, 60), (75, 99), (33, 60), (61, 99), None])
def test_a_frame_becomes_a_jpeg_of_what_the_network_sees(size):
    """A smooth one, which JPEG keeps; its colours differ, so that channels in another order are seen."""
    y, x = np.mgrid[:60, :99] / np.array([60, 99])[:, None, None]
    frame = np.rint(255 * np.stack([x, y, 0.2 * np.sin(9 * x * y) + 0.2], axis=-1)).astype(np.uint8)
    found = tf.io.decode_jpeg(wire.encode_frame(frame, size, 95), dct_method="INTEGER_ACCURATE").numpy().astype(int)
    smaller = size in ((40, 60), (33, 60))  # on both sides; what is not stays as it is
    expected = tf.image.resize(frame, size, antialias=True).numpy() if smaller else frame
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 6 and np.abs(found[..., ::-1] - expected).max() > 100


def test_sizes_change_as_they_do_in_the_graph():
    image = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    for size in ((40, 60), (75, 99), (20, 33), (20, 99), (80, 31)):
        expected = tf.image.resize(image[..., None], size, antialias=True).numpy()[..., 0]
        np.testing.assert_allclose(wire.resize(image, size), expected, atol=1e-5)


def test_a_grpc_server_that_went_away_is_found_again(exported_step):
    models = {"msst": {1: exported_step.cpp}}
    first = model_server.ModelServer(models)
    model, port = RemoteModel(first.grpc_address, timeout=60), first.grpc_address.rpartition(":")[2]
    first.close()
    asking = threading.Thread(target=model.ask, args=("describe", {"client_bytes": b""}))
    asking.start()
    time.sleep(0.3)
    assert asking.is_alive()  # it waits and tries again
    with contextlib.closing(model_server.ModelServer(models, port=port)) as second:
        asking.join(60)
        assert not asking.is_alive() and second.requests == 1
