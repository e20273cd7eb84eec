"""A local page to look through coarse labels and erase what is wrong in them; `msst review_labels`."""

from __future__ import annotations

from msst_keras.data import datasets
from msst_keras.labels.options import ReviewLabelsOptions
from msst_keras.labels.review import Review
from msst_keras.web.extra import import_page


def review_labels(options: ReviewLabelsOptions) -> None:
    """Opens the review and serves its page until it is stopped.

    Raises:
      FileNotFoundError, ValueError: frames or labels at fault, or the extra `labels` is not installed.
    """
    with import_page():
        from msst_keras.labels.review_server import ReviewPage
        from msst_keras.web.server import serve
    review = Review(options.labels, datasets.find_sequences("folder", options.frames), options.order)
    try:
        serve(ReviewPage(review, options.labels).make_app(), options.host, options.port, "review of the labels")
    finally:
        review.close()
