"""Refines folders of saliency maps, of any method, with the dense CRF.

  msst refine --maps=maps --frames=DAVIS/JPEGImages/480p --output_dir=maps_crf

MAPS/SEQUENCE/FRAME.png goes with FRAMES/SEQUENCE/FRAME.jpg (or another image file of that name) and becomes
OUTPUT_DIR/SEQUENCE/FRAME.png; folders without the level SEQUENCE work too. Only frames that have a map are looked at.
Started again, it goes on where it was.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.inference.options import RefineOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(RefineOptions)


def main() -> None:
    """Refines what the flags say."""
    options = _read_options()
    from msst_keras.jobs.refine import refine

    refine(options)


if __name__ == "__main__":
    cli.run(main)
