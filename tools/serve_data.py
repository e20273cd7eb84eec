"""Prepares batches for `msst train --data_service` on other machines: one dispatcher, any number of workers.

  msst serve_data --port=5050                                on one machine: the dispatcher
  msst serve_data --dispatcher=HOST:5050 --port=5051         on each machine that works
  msst train --data_service=grpc://HOST:5050 ...             reads from them

Workers read the records by the paths that `msst train` was given. Runs until it gets SIGTERM or SIGINT. TensorFlow's
service knows no passwords: keep its ports inside your network.
"""

from __future__ import annotations

import os
import signal
import socket

from absl import flags

from msst_keras import cli

_PORT = flags.DEFINE_integer("port", 5050, "To listen on; 0 takes a free one.", 0, 65535)
_DISPATCHER = flags.DEFINE_string("dispatcher", None, "HOST:PORT of the dispatcher; without it this is the dispatcher.")
_HOST = flags.DEFINE_string("host", None, "Name by which others reach this worker; by default the machine's own.")


def main() -> None:
    """Serves until a signal."""
    # A signal kept from all threads, TensorFlow's too, waits for `sigwait`.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    import tensorflow as tf

    service = tf.data.experimental.service
    try:
        if not _DISPATCHER.value:
            server = service.DispatchServer(service.DispatcherConfig(port=_PORT.value))
            print(f"dispatcher at {server.target}", flush=True)
        else:
            _check(_DISPATCHER.value)
            address = f"{_HOST.value or socket.gethostname()}:%port%"
            server = service.WorkerServer(service.WorkerConfig(_DISPATCHER.value, address, _PORT.value))
            print(f"worker of {_DISPATCHER.value}", flush=True)
    except tf.errors.OpError as error:
        raise OSError(f"cannot serve on port {_PORT.value}: {error.message.splitlines()[0]}") from error
    print(f"stopped by {signal.Signals(signal.sigwait(signals)).name}", flush=True)
    # Not by Python's end: TensorFlow 2.21's servers may crash when they are taken down (tensorflow#113163).
    os._exit(0)


def _check(dispatcher):
    host, _, port = dispatcher.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--dispatcher must be HOST:PORT, not '{dispatcher}'")


if __name__ == "__main__":
    cli.run(main)
