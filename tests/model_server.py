"""Servers of TensorFlow Serving's two APIs, for tests: official messages in front, TensorFlow's C++ loader behind.

A real `tensorflow_model_server` is used in their place where one is on PATH or at MSST_TF_SERVING. As a program this
file takes that server's flags: `python model_server.py --port=8500 --rest_api_port=8501 --model_base_path=FOLDER`.
"""

from __future__ import annotations

import argparse
import base64
import concurrent.futures
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from cpp_model import CppModel, ModelError
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from msst_keras.serving import warm_up

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_HTTP = {grpc.StatusCode.INVALID_ARGUMENT: 400, grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.UNAVAILABLE: 503}
_PATH = re.compile(r"/v1/models/([^/:]+)(?:/(versions|labels)/([^/:]+))?(/metadata|:predict)?$")


class NotFound(Exception):
    """A model or version that is not there."""


class ModelServer:
    """Models behind a gRPC and an HTTP port.

    Attributes:
      grpc_address, rest_address: for clients.
      models: name -> version -> loaded model; may be changed while the server runs.
      labels: (name, label) -> version.
      requests: how many requests to predict came.
      refuse: how many of the next requests are answered with UNAVAILABLE.
    """

    def __init__(self, models, labels=None, port=0, rest_port=0):
        self.models, self.labels = models, labels or {}
        self.requests = self.refuse = 0
        self._lock = threading.Lock()
        limits = [("grpc.max_receive_message_length", 2**31 - 1), ("grpc.max_send_message_length", 2**31 - 1)]
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(8), options=limits)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Prediction(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Status(self), self._grpc)
        self.grpc_address = f"grpc://127.0.0.1:{self._grpc.add_insecure_port(f'127.0.0.1:{port}')}"
        self._grpc.start()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", rest_port), handler)
        self._http.daemon_threads = True
        self.rest_address = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def find(self, name, version=None, label=None):
        """(version, model).

        Raises:
          NotFound: none such.
          ModelError: no such label.
        """
        versions = self.models.get(name, {})
        if label is not None:
            if (name, label) not in self.labels:  # as TensorFlow Serving answers: an argument that is wrong
                raise ModelError(3, f"Unrecognized servable version label: {label}")
            version = self.labels[name, label]
        version = version or max(versions, default=-1)
        if version not in versions:
            raise NotFound(f"Servable not found for request: Specific({name}, {version})")
        return version, versions[version]

    def predict(self, name, version, label, signature, inputs):
        """(version, outputs); the work of both APIs."""
        with self._lock:
            self.requests += 1
            if self.refuse:
                self.refuse -= 1
                raise ModelError(14, "Batch scheduling queue is full")
        version, model = self.find(name, version, label)
        signature = signature or "serving_default"
        if signature not in model.signatures or inputs.keys() != model.signatures[signature]["inputs"].keys():
            raise ModelError(3, f"wrong signature or inputs: {signature}, {', '.join(inputs)}")
        return version, model.run(signature, inputs)

    def close(self):
        self._grpc.stop(0).wait()
        self._http.shutdown()
        self._http.server_close()


@contextlib.contextmanager
def serve(folders, labels=None, loaded=None):
    """A server of saved_models folders, name -> folder of versions: the real one, or one of ours.

    Args:
      folders: what to serve.
      labels: (name, label) -> version, for ours.
      loaded: name -> version -> CppModel, where ours need not load them again.
    """
    binary = os.environ.get("MSST_TF_SERVING") or shutil.which("tensorflow_model_server")
    if binary:
        with _real_server(binary, folders) as server:
            yield server
        return
    models = loaded or {name: _load_versions(folder) for name, folder in folders.items()}
    server = ModelServer(models, labels)
    try:
        yield server
    finally:
        server.close()


def _load_versions(folder):
    """Version -> model, of a folder of versions."""
    libraries = Path(tf.__file__).parent
    return {int(path.name): CppModel(path, libraries) for path in Path(folder).iterdir() if path.name.isdecimal()}


class _RealServer:
    def __init__(self, ports):
        self.grpc_address, self.rest_address = f"grpc://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"


@contextlib.contextmanager
def _real_server(binary, folders):
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    ((name, folder),) = folders.items()
    process = subprocess.Popen(
        [binary, f"--port={ports[0]}", f"--rest_api_port={ports[1]}", f"--model_name={name}",
         f"--model_base_path={Path(folder).resolve()}"]
    )  # fmt: skip
    server = _RealServer(ports)
    try:
        _wait_until_it_serves(process, f"{server.rest_address}/v1/models/{name}/metadata")
        yield server
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_it_serves(process, address):
    """The metadata of a model are there when its version is, which is after its warm-up requests."""
    for _ in range(1200):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address).read()
            return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with status {process.returncode}")
        time.sleep(0.1)
    raise RuntimeError(f"{process.args[0]} does not serve {address} after two minutes")


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, server):
        self._server = server

    def Predict(self, request, context):  # noqa: N802  the API's name
        spec = request.model_spec
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        try:
            version, outputs = self._server.predict(*_read_spec(spec), spec.signature_name, inputs)
        except NotFound as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except ModelError as error:
            context.abort(_CODES[error.code], str(error))
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.version.value = spec.name, version
        response.model_spec.signature_name = spec.signature_name
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    def GetModelMetadata(self, request, context):  # noqa: N802
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        version, _ = self._server.find(*_read_spec(request.model_spec))
        response.model_spec.name, response.model_spec.version.value = request.model_spec.name, version
        return response


class _Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, server):
        self._server = server

    def GetModelStatus(self, request, context):  # noqa: N802
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in self._server.models.get(request.model_spec.name, {}):
            response.model_version_status.add(version=version, state=30)  # AVAILABLE
        return response


def _read_spec(spec):
    choice = spec.WhichOneof("version_choice")
    return spec.name, spec.version.value if choice == "version" else None, spec.version_label or None


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: ModelServer

    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        self._answer(None)

    def do_POST(self):  # noqa: N802
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, body):
        try:
            status, answer = 200, self._find_answer(body)
        except NotFound as error:
            status, answer = 404, {"error": str(error)}
        except ModelError as error:
            status, answer = _HTTP.get(_CODES[error.code], 500), {"error": str(error)}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _find_answer(self, body):
        found = _PATH.match(self.path)
        if not found:
            raise NotFound(self.path)
        name, kind, value, verb = found.groups()
        spec = name, int(value) if kind == "versions" else None, value if kind == "labels" else None
        if body is None:
            version, model = self.owner.find(*spec)
            if verb != "/metadata":
                return {"model_version_status": [{"version": str(version), "state": "AVAILABLE"}]}
            return {"model_spec": {"name": name, "signature_name": "", "version": str(version)}, "metadata": {}}
        request = json.loads(body)
        signature = request.get("signature_name") or "serving_default"
        dtypes = self.owner.find(*spec)[1].dtypes.get(signature, {})
        if "inputs" in request:  # by column
            inputs = {
                key: np.array(_decode(value), dtypes.get(key, object)) for key, value in request["inputs"].items()
            }
            _, outputs = self.owner.predict(*spec, signature, inputs)
            lists = {name: [_encode(name, value) for value in outputs[name].tolist()] for name in outputs}
            return {"outputs": next(iter(lists.values())) if len(lists) == 1 else lists}
        rows = [row if isinstance(row, dict) and "b64" not in row else {"": row} for row in request["instances"]]
        inputs = {}
        for key in rows[0]:
            name_of_input = key or next(iter(dtypes))
            values = [_decode(row[key]) for row in rows]
            inputs[name_of_input] = np.array(values, dtypes.get(name_of_input, object))
        _, outputs = self.owner.predict(*spec, signature, inputs)
        lists = {name: [_encode(name, value) for value in outputs[name].tolist()] for name in outputs}
        rows = [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]
        return {"predictions": [next(iter(row.values())) for row in rows] if len(lists) == 1 else rows}


def _decode(value):
    if isinstance(value, dict):
        return base64.b64decode(value["b64"])
    return [_decode(part) for part in value] if isinstance(value, list) else value


def _encode(name, value):
    if not isinstance(value, bytes):
        return value
    return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8500)
    parser.add_argument("--rest_api_port", type=int, default=8501)
    parser.add_argument("--model_name", default="msst")
    parser.add_argument("--model_base_path", required=True)
    flags = parser.parse_args()
    models = {flags.model_name: _load_versions(flags.model_base_path)}
    for model in models[flags.model_name].values():
        for signature, inputs in warm_up.read(model.path):
            model.run(signature, inputs)
    with contextlib.closing(ModelServer(models, port=flags.port, rest_port=flags.rest_api_port)):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
