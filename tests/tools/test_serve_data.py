"""`msst serve_data`: a dispatcher's address is taken as it is printed, and what is none is refused at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from msst_keras.jobs import serve_data as serve_data_job
from msst_keras.pipeline.options import ServeDataOptions


def start(*flags):
    """`msst serve_data` on a free port."""
    command = [sys.executable, "-m", "msst_keras", "serve_data", "--port=0", *flags]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stop(*processes):
    """Ends those that still run."""
    for process in processes:
        process.kill()
        process.communicate()


def test_a_worker_takes_the_address_that_the_dispatcher_prints(request):
    dispatcher = start()
    request.addfinalizer(lambda: stop(dispatcher))
    address = dispatcher.stdout.readline().strip().removeprefix("dispatcher at ")
    assert address.startswith("grpc://")
    worker = start(f"--dispatcher={address}", "--host=localhost")
    request.addfinalizer(lambda: stop(worker))
    assert worker.stdout.readline().startswith(f"worker of {address} at localhost:")
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=60)
    assert (worker.returncode, output) == (0, "stopped by SIGTERM\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_its_dispatcher_can_be_stopped(number, request):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = start(f"--dispatcher=127.0.0.1:{silent.getsockname()[1]}")
        request.addfinalizer(lambda: stop(process))
        silent.settimeout(120)
        silent.accept()[0].close()  # it asks, so its start has begun
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -number, errors


@pytest.mark.parametrize(
    "address",
    ["localhost", ":5050", "localhost:", "localhost:x", "localhost:5\u00b2", "grpc://", "grpc://:5050",
     "http://localhost:5050", "grpc://grpc://localhost:5050", "localhost/data:5050"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(address):
    class Service:
        """Is not asked for anything."""

    with pytest.raises(ValueError, match=f"--dispatcher must be HOST:PORT or grpc://HOST:PORT, not '{address}'"):
        serve_data_job._start(Service, ServeDataOptions(dispatcher=address))


def test_an_address_of_another_kind_is_one_sentence():
    process = start("--dispatcher=http://localhost:5050")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in errors
    assert errors.splitlines()[-1].endswith("not 'http://localhost:5050'")
