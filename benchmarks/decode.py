"""Times the video decoder against OpenCV's, in turn in one run: the same file, each frame as an RGB array.

  python benchmarks/decode.py [--video=VIDEO] [--frames=300] [--repeats=5]

The peer is `cv2.VideoCapture` with a conversion to RGB, with as many threads as OpenCV takes by itself.
Without --video a video of 480x854 is made: a photograph that moves. Prints milliseconds a frame, and the ratios of the
pairs that ran one after the other, which a busy machine disturbs least.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import av
import cv2
import numpy as np
from skimage import data

from msst_keras.data.videos import read_video


def make_video(path: Path, num_frames: int) -> None:
    """Writes H.264 of a photograph, (480, 854), that wanders."""
    picture = cv2.resize(data.coffee(), (1100, 640))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 854, 480, "yuv420p"
        for number in range(num_frames):
            top, left = (round(70 * (1 + np.sin(number / period))) for period in (13, 17))
            view = np.ascontiguousarray(picture[top : top + 480, left : left + 854])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, format="rgb24")))
        container.mux(stream.encode(None))


def time_ours(path: Path) -> tuple[int, float]:
    """The number of frames, and seconds for all."""
    started = time.perf_counter()
    count = sum(1 for _ in read_video(path))
    return count, time.perf_counter() - started


def time_opencv(path: Path) -> tuple[int, float]:
    """The number of frames, and seconds for all."""
    started, count = time.perf_counter(), 0
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while True:
        is_read, frame = capture.read()
        if not is_read:
            break
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        count += 1
    capture.release()
    return count, time.perf_counter() - started


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.video or Path(folder) / "made.mp4"
        if arguments.video is None:
            make_video(path, arguments.frames)
        pairs = [(time_ours(path), time_opencv(path)) for _ in range(arguments.repeats + 1)][1:]  # the first warms up
    for name, runs in zip(("msst_keras", "OpenCV"), zip(*pairs, strict=True), strict=True):
        count = runs[0][0]
        print(f"{name}: {count} frames, {1000 * statistics.median(s for _, s in runs) / count:.2f} ms a frame")
    ratios = [ours / peer for (_, ours), (_, peer) in pairs]
    print(f"time of msst_keras / time of OpenCV: median {statistics.median(ratios):.2f}, "
          f"from {min(ratios):.2f} to {max(ratios):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
