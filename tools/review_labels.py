"""A local page to look through coarse labels and erase what is wrong in them (paper, section 3.3).

  msst review_labels --frames=FBMS/Trainingset --labels=coarse/labels

Opens where the last review stopped, the most doubtful labels first. Every change is saved at once to --labels; the
originals, rejected labels and the journal are in its folder .review. The labels in --labels are those to train on:
`msst make_records --coarse_labels`. Needs the extra: pip install "msst-keras[labels]".
"""

from __future__ import annotations

from absl import flags

from msst_keras import cli

_FRAMES = flags.DEFINE_string(
    "frames", None, "Folder of the frames: FRAMES/SEQUENCE/FRAME.jpg, or one folder of frames. Of a video file "
    "`msst fuse_labels` has written them to OUTPUT_DIR/frames."
)  # fmt: skip
_LABELS = flags.DEFINE_string("labels", None, "Folder of the labels: LABELS/SEQUENCE/FRAME.png, of 0 and 255.")
_ORDER = flags.DEFINE_enum(
    "order", "doubt", ["doubt", "sequence"], "Most doubtful first, as LABELS/frames.csv lists them, or by name."
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on. On any but this machine's own the page asks for a token."
)
_PORT = flags.DEFINE_integer("port", 8765, "Port to listen on; 0 takes a free one.", 0, 65535)
flags.mark_flags_as_required(["frames", "labels"])


def main() -> None:
    """Opens the review and serves its page until it is stopped."""
    from msst_keras.data import datasets
    from msst_keras.labels.review import Review

    try:
        from msst_keras.labels.review_server import ReviewPage
        from msst_keras.web.server import serve
    except ModuleNotFoundError as error:
        raise ValueError(f"the page needs '{error.name}': pip install 'msst-keras[labels]'") from None
    review = Review(_LABELS.value, datasets.find_sequences("folder", _FRAMES.value), _ORDER.value)
    try:
        serve(ReviewPage(review, _LABELS.value).make_app(), _HOST.value, _PORT.value, "review of the labels")
    finally:
        review.close()


if __name__ == "__main__":
    cli.run(main)
