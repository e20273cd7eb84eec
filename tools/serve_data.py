"""Prepares batches for `msst train --data_service` on other machines: one dispatcher, any number of workers.

  msst serve_data --listen=all --port=5050                           on one machine: the dispatcher
  msst serve_data --listen=all --dispatcher=HOST:5050 --port=5051    on each machine that works
  msst train --data_service=grpc://HOST:5050 ...                     reads from them

Workers read the records by the paths that `msst train` was given. The program runs until it gets SIGTERM or SIGINT.
TensorFlow's service knows no passwords and runs what it is sent, so to whoever reaches its port it is a shell of your
user. Without --listen=all it takes connections of this machine alone.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.pipeline.options import ServeDataOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(ServeDataOptions)


def main() -> None:
    """Serves what the flags say."""
    options = _read_options()
    from msst_keras.jobs.serve_data import serve_data

    serve_data(options)


if __name__ == "__main__":
    cli.run(main)
