"""Makes coarse labels of videos from the maps of several methods (paper, section 3.3).

  msst fuse_labels --dataset=fbms --root=FBMS --split=train --maps=dcl:DCL,rfcn:RFCN,dsmt:DSMT --output_dir=coarse
  msst fuse_labels --dataset=video --root=videos/ --model=saved_models/msst --output_dir=coarse

The maps are combined with weights that fit the masks of those frames that have one, and thresholded by Otsu's method.
Where no frame has a mask, the weights are equal. Without --maps the built-in methods are fused. OUTPUT_DIR/labels gets
a label for every frame without a mask, frames.csv with the most doubtful frames first, and weights.csv. `msst
review_labels` shows the labels, and `msst make_records --coarse_labels` puts them into records to train on.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.labels.options import FuseLabelsOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(FuseLabelsOptions)


def main() -> None:
    """Makes and fuses the maps that the flags say."""
    options = _read_options()
    from msst_keras.jobs.fuse_labels import fuse_labels

    fuse_labels(options)


if __name__ == "__main__":
    cli.run(main)
