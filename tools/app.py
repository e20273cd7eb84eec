"""Serves a local page: drop a video, see its saliency maps laid over it, download them.

  msst app
  msst app --model=saved_models/msst --port=8080

It works on one video at a time, by `msst predict`. Nothing leaves this machine, and what was made is removed when the
program ends. The page needs the extra: pip install "msst-keras[labels]".
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.app.options import AppOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(AppOptions)


def main() -> None:
    """Serves the page as the flags say."""
    options = _read_options()
    from msst_keras.jobs.app import app

    app(options)


if __name__ == "__main__":
    cli.run(main)
