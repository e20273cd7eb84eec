"""Gets saliency maps from a model server: `msst predict --server` by another name.

  msst query --server=grpc://localhost:8500 --model_name=msst --input=video.mp4
  msst query --server=http://localhost:8501 --input=frames/ --output_dir=maps

The server is a TensorFlow Serving, or one with its API, that has a model of `msst export` (docs/serving.md). Flow and
superpixels are made here, the networks run there.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.inference.options import PredictOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(PredictOptions)


def main() -> None:
    """Asks a server for what the flags say."""
    options = _read_options()
    if not options.server:
        raise ValueError("--server must be given: grpc://HOST:PORT or http://HOST:PORT")
    from msst_keras.jobs.predict import predict

    predict(options)


if __name__ == "__main__":
    cli.run(main)
