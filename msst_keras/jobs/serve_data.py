"""Prepares batches for trainings on other machines; `msst serve_data`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from msst_keras.pipeline.loopback import keep_to_this_machine
from msst_keras.pipeline.options import ServeDataOptions

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def serve_data(options: ServeDataOptions) -> None:
    """Serves until SIGTERM or SIGINT. Does not return: the process ends with status 0.

    A signal that comes while a worker waits for its dispatcher kills it.

    Raises:
      ValueError: the dispatcher's address is none.
      OSError: the port cannot be served on.
    """
    # A signal that is kept from all threads waits for `sigwait`; TensorFlow, imported after this, starts some of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    import tensorflow as tf

    try:
        server, port = _start(tf.data.experimental.service, options)  # it serves as long as it is held
    except tf.errors.OpError as error:
        raise OSError(f"cannot serve on port {options.port}: {error.message.splitlines()[0]}") from error
    _say(options, port)
    print(f"stopped by {signal.Signals(signal.sigwait(_SIGNALS)).name}", flush=True)
    # Not by Python's end: TensorFlow 2.21's servers may crash when they are taken down (tensorflow#113163).
    os._exit(0)


def _say(options: ServeDataOptions, port: int) -> None:
    """Prints where it really listens, and what that means."""
    is_open = options.listen == "all"
    if is_open:
        print(
            f"msst serve_data: port {port} is open on every address of this machine; whoever reaches it can run "
            "computations here, and read and write every file of this user",
            file=sys.stderr,
        )
    address = f"{_name(options)}:{port}"
    print(f"worker of {options.dispatcher} at {address}" if options.dispatcher else f"dispatcher at grpc://{address}",
          flush=True)  # fmt: skip


def _name(options: ServeDataOptions) -> str:
    """The name by which clients reach this process."""
    return options.host or (socket.gethostname() if options.listen == "all" else "127.0.0.1")


@contextlib.contextmanager
def _killed_by_signals() -> Iterator[None]:
    """Lets a signal end the process at once, as a worker waits in its start until its dispatcher answers.

    TensorFlow keeps Python's lock meanwhile, so that no line of Python runs, and the threads that it starts must not
    take the signals from `sigwait`. So a thread that does nothing else takes them, as the kernel does by default.
    """
    over = threading.Event()

    def take_signals() -> None:
        """Is where signals arrive until the start is over."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        over.wait()

    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    thread = threading.Thread(target=take_signals, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _start(service: Any, options: ServeDataOptions) -> tuple[Any, int]:
    """(the dispatcher, or a worker; its port). `service` is `tf.data.experimental.service`."""
    if options.dispatcher:
        dispatcher = _read_address(options.dispatcher)
        # Only the C++ server knows which port it was given; a free one is chosen here, so that it can be named.
        port = options.port or _find_free_port()
        server = service.WorkerServer(service.WorkerConfig(dispatcher, f"{_name(options)}:%port%", port), start=False)
    else:
        port = options.port
        server = service.DispatchServer(service.DispatcherConfig(port=port), start=False)
    with _killed_by_signals() if options.dispatcher else contextlib.nullcontext():
        server.start()
    port = port or int(server.target.rpartition(":")[2])
    if options.listen == "loopback":
        try:
            keep_to_this_machine(port)
        except OSError as error:
            raise OSError(
                f"port {port} cannot be kept to this machine ({error}); --listen=all opens it to every machine"
            ) from error
    return server, port


def _read_address(given: str) -> str:
    """HOST:PORT of a dispatcher, which may be given as it prints it, with grpc:// in front.

    TensorFlow would wait for ever, and for no signal, for a host that is none.
    """
    address = given.removeprefix("grpc://")
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdecimal()):
        raise ValueError(f"--dispatcher must be HOST:PORT or grpc://HOST:PORT, not '{given}'")
    return address


def _find_free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
