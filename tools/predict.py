"""Makes saliency maps of videos or folders of frames: an 8-bit grey PNG for each frame, of its size and its name.

  msst predict --input=video.mp4
  msst predict --model=saved_models/msst --input=video.mp4,frames/ --output_dir=maps --crf --overlay=overlay.mp4
  msst predict --live --input=0                               a camera, shown on a page
  msst predict --live --input=rtsp://192.168.1.5/stream       a camera in the network; also http://, or a named pipe

The maps of an input go to OUTPUT_DIR/NAME, where NAME is its file or folder name. Each folder in a folder of folders of
frames is an input of its own. Maps that are there already are not made again, so the same command goes on after an
interruption.
"""

from __future__ import annotations

from absl import flags

from msst_keras import cli
from msst_keras.inference.options import PredictOptions
from msst_keras.options import list_options
from msst_keras.tools._flags import define_flags

_read_options = define_flags(PredictOptions)


def main() -> None:
    """Predicts what the flags say."""
    _check_crf_flags()
    options = _read_options()
    if options.live:
        from msst_keras.jobs.live import live

        live(options)
    else:
        from msst_keras.jobs.predict import predict

        predict(options)


def _check_crf_flags() -> None:
    """Refuses settings of a CRF that is off, be they the defaults."""
    names = [name for name, *_ in list_options(PredictOptions) if name.startswith("crf_")]
    given = [name for name in names if not flags.FLAGS[name].using_default_value]
    if given and not flags.FLAGS.crf:
        raise ValueError(f"--{given[0]} is for the CRF, which is off: give --crf too")


if __name__ == "__main__":
    cli.run(main)
