"""Trains the motion prior: the classifier of superpixels of the flow map (section 3.1).

  msst train_prior --records=records/davis_flow --folds=5 --output=prior.keras

The records need flow (`msst make_records --store_flow`) and masks; the prior takes over their flow settings. vgg16 is
the paper's backbone; mobilenetv2 is the light one, which keeps up with a live video on a CPU.

With --folds the file also holds classifiers that each were trained without a fold of the sequences: `msst make_records`
then gives each sequence of --records the prior of the one that did not see it, and all others that of all.

OUTPUT.json, beside the .keras file, says how good the prior is: the share of superpixels classified right, and on
--val_records, and on --records by the folds, the prior as a saliency map (MAE, max F, S at the size of the flow),
beside flow magnitude and all black.
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.motion.options import TrainPriorOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(TrainPriorOptions)


def main() -> None:
    """Trains the prior that the flags say."""
    options = _read_options()
    from msst_keras.jobs.train_prior import train_prior

    train_prior(options)


if __name__ == "__main__":
    cli.run(main)
