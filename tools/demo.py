"""Does the whole job on generated videos: records, prior, training, evaluation, export, prediction, overlay.

  msst demo --output_dir=demo

Every command that it runs is printed, and the same commands do the job on your own data. Started again, it goes on
where it was.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.jobs.options import DemoOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(DemoOptions)


def main() -> int:
    """Runs the demo that the flags say."""
    options = _read_options()
    from msst_keras.jobs.demo import demo

    return demo(options)


if __name__ == "__main__":
    cli.run(main)
