"""Serves a local page to look through coarse labels and erase what is wrong in them (paper, section 3.3).

  msst review_labels --frames=FBMS/Trainingset --labels=coarse/labels

The page opens where the last review stopped, and shows the most doubtful labels first. Every change is saved at once to
--labels, whose folder .review has the originals, the rejected labels and the journal. `msst make_records
--coarse_labels` then takes what is in --labels. The page needs the extra: pip install "msst-keras[labels]".
"""

from __future__ import annotations

from msst_keras import cli
from msst_keras.labels.options import ReviewLabelsOptions
from msst_keras.tools._flags import define_flags

_read_options = define_flags(ReviewLabelsOptions)


def main() -> None:
    """Serves the review of the labels that the flags say."""
    options = _read_options()
    from msst_keras.jobs.review_labels import review_labels

    review_labels(options)


if __name__ == "__main__":
    cli.run(main)
