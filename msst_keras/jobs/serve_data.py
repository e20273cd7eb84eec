"""Prepares batches for trainings on other machines; `msst serve_data`."""

from __future__ import annotations

import os
import signal
import socket

from msst_keras.pipeline.options import ServeDataOptions

_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def serve_data(options: ServeDataOptions) -> None:
    """Serves until SIGTERM or SIGINT. Does not return: the process ends with status 0.

    Raises:
      ValueError: the dispatcher's address is none.
      OSError: the port cannot be served on.
    """
    # A signal that is kept from all threads waits for `sigwait`; TensorFlow, imported after this, starts some of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    import tensorflow as tf

    try:
        server = _start(tf.data.experimental.service, options)  # it serves as long as it is held
        role = f"worker of {options.dispatcher}" if options.dispatcher else f"dispatcher at {server.target}"
        print(role, flush=True)
    except tf.errors.OpError as error:
        raise OSError(f"cannot serve on port {options.port}: {error.message.splitlines()[0]}") from error
    print(f"stopped by {signal.Signals(signal.sigwait(_SIGNALS)).name}", flush=True)
    # Not by Python's end: TensorFlow 2.21's servers may crash when they are taken down (tensorflow#113163).
    os._exit(0)


def _start(service, options: ServeDataOptions):
    """The dispatcher, or a worker; `service` is `tf.data.experimental.service`."""
    if not options.dispatcher:
        return service.DispatchServer(service.DispatcherConfig(port=options.port))
    host, _, port = options.dispatcher.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"--dispatcher must be HOST:PORT, not '{options.dispatcher}'")
    address = f"{options.host or socket.gethostname()}:%port%"
    return service.WorkerServer(service.WorkerConfig(options.dispatcher, address, options.port))
