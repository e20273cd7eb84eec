"""Trains the motion prior: the classifier of superpixels of the flow map (section 3.1).

  msst train_prior --records=records/davis_flow --folds=5 --output=prior.keras

The records need masks and flow (`msst make_records --store_flow`), and the prior takes over their flow settings. The
paper's backbone is vgg16; mobilenetv2 is a light one, which keeps up with a live video on a CPU.

With --folds the file also holds classifiers of which each was trained without one fold of the sequences. `msst
make_records` then gives each sequence of --records the prior of the classifier that did not see it. All other sequences
get the prior of the classifier that saw all.

OUTPUT.json, beside the .keras file, says how good the prior is. It has the share of superpixels that are classified
right. On --val_records, and with --folds also on --records, it has the scores of the prior as a saliency map (MAE, max
F, S at the size of the flow), beside those of flow magnitude and of an all-black map.
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
