"""The job of one video: `msst predict` as a child process, its folder, its progress and its end.

WORK_DIR/upload.SUFFIX                 the video
WORK_DIR/frames/00000.jpg              its frames for the page, because not every browser plays every video
WORK_DIR/maps/upload/00000.png         the maps; they are in maps/.partial-upload until all are made
WORK_DIR/overlay.mp4, maps.zip         to download
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import signal
import subprocess
import threading
import zipfile
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import datasets, file_names, images
from msst_keras.data.sequences import FileSequence
from msst_keras.processes import start_python

# The child's standard input ends when this process dies, however it dies. The child waits for that and then dies too.
_CHILD = """
import os, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
from msst_keras import cli
cli.main(["msst", *sys.argv[1:]])
"""
NAME = "upload"
SHOWN_WIDTH = 960
_SPEAKER = "msst predict: "


@dataclasses.dataclass(frozen=True)
class Limits:
    """The largest video that is taken: bytes of the file, frames of the video, pixels of a frame."""

    num_bytes: int = 500 * 2**20
    num_frames: int = 3000
    num_pixels: int = 4096 * 2304


class Job:
    """The work on one video.

    Attributes:
      title: the file's name, as the page shows it.
      state: "receiving", "working", "done", "failed" or "cancelled".
      error: why the job failed.
      frame_rate: frames per second.
      num_frames: how many frames the video has; 0 if its file does not say.
    """

    def __init__(self, work_dir: Path, title: str, model: str, limits: Limits, refine: bool):
        """Makes the job's folder.

        Raises:
          ValueError: the name is not that of a video.
        """
        suffix = Path(title).suffix.lower()
        if suffix not in file_names.VIDEO_SUFFIXES:
            raise ValueError(f"expected a video ({', '.join(file_names.VIDEO_SUFFIXES)}), got '{Path(title).name}'")
        self.title, self.state, self.error = Path(title).name, "receiving", ""
        self.frame_rate, self.num_frames = 0.0, 0
        self._model, self._limits, self._refine = model, limits, refine
        self._folder = work_dir
        self.video_path = work_dir / f"{NAME}{suffix}"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        work_dir.mkdir(parents=True)

    @property
    def is_active(self) -> bool:
        """Whether the job still receives its video or works on it."""
        return self.state in ("receiving", "working")

    def start(self) -> None:
        """Begins to work on the received video, in a thread."""
        self.state = "working"
        threading.Thread(target=self._run, daemon=True).start()

    def cancel(self) -> None:
        """Ends the work; what was made of the video is removed."""
        with self._lock:
            if self.is_active:
                self.state = "cancelled"
            if self._process is not None:
                _kill(self._process)

    def remove(self) -> None:
        """Removes everything that was made."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def num_done(self) -> int:
        """How many complete maps there are."""
        return sum(path.name[0] != "." for path in self._maps_dir().glob("*.png"))

    def frame_path(self, index: int) -> Path:
        """The file of a frame."""
        return self._folder / "frames" / f"{index:05d}.jpg"

    def map_path(self, index: int) -> Path:
        """The file of a map."""
        return self._maps_dir() / f"{index:05d}.png"

    def overlay_path(self) -> Path:
        """The file of the overlay video."""
        return self._folder / "overlay.mp4"

    def zip_maps(self) -> Path:
        """Packs the maps into a ZIP file, once, and returns its path."""
        path = self._folder / "maps.zip"
        # A folder ".." would be unpacked elsewhere.
        folder = re.sub(r"[^\w. -]", "_", Path(self.title).stem).strip(". ") or NAME
        with self._lock:
            if not path.exists():
                partial = path.with_suffix(".partial")
                with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # PNG is packed already
                    for each in sorted(self._maps_dir().glob("*.png")):
                        archive.write(each, f"{folder}/{each.name}")
                partial.rename(path)
        return path

    def _maps_dir(self) -> Path:
        whole = self._folder / "maps" / NAME
        return whole if whole.is_dir() else whole.with_name(f".partial-{NAME}")

    def _run(self) -> None:
        try:
            sequence = datasets.find_sequences("video", self.video_path)[0]
            self.frame_rate, self.num_frames = sequence.frame_rate, len(sequence)
            self._check(len(sequence))
            child = self._start_child()
            self._extract(sequence, child)
            if child.wait() and self.state == "working":
                raise ValueError(_last_sentence((self._folder / "errors.txt").read_text(errors="replace")))
            self._end("done")
        except (ValueError, OSError) as error:
            # The person knows the video by its title, not by the name of the file here.
            self._end("failed", str(error).replace(str(self.video_path), self.title))
        if self._process and self._process.stdin:
            self._process.stdin.close()
        if self.state != "done":
            self.remove()

    def _check(self, num_frames: int) -> None:
        if num_frames > self._limits.num_frames:
            raise ValueError(
                f"this video has {num_frames} frames or more; the limit is {self._limits.num_frames} (--max_frames)"
            )

    def _start_child(self) -> subprocess.Popen[bytes]:
        arguments = [f"--model={self._model}", f"--input={self.video_path}", f"--output_dir={self._folder / 'maps'}"]
        arguments += [f"--overlay={self.overlay_path()}", *["--crf"] * self._refine]
        with self._lock, open(self._folder / "errors.txt", "wb") as errors:
            if self.state != "working":
                raise ValueError("cancelled")
            self._process = start_python(
                _CHILD, "predict", *arguments, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            return self._process

    def _extract(self, sequence: FileSequence, child: subprocess.Popen[bytes]) -> None:
        """Writes the frames while the child works. A frame that is too large, or one too many, ends both."""
        self.frame_path(0).parent.mkdir()
        try:
            for index, (_, encoded, frame) in enumerate(sequence.read_frames()):
                if self.state != "working":
                    return
                self._check(index + 1)
                if frame.shape[0] * frame.shape[1] > self._limits.num_pixels:
                    raise ValueError(
                        f"frames of {frame.shape[0]}x{frame.shape[1]} have more than {self._limits.num_pixels} pixels; "
                        "reduce the video"
                    )
                partial = self.frame_path(index).with_suffix(".partial")
                partial.write_bytes(_reduce(frame, encoded))
                partial.rename(self.frame_path(index))
            self.num_frames = index + 1
        except (ValueError, OSError):
            _kill(child)
            child.wait()
            raise

    def _end(self, state: str, error: str = "") -> None:
        with self._lock:
            if self.state == "working":
                self.state, self.error = state, error


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Ends a child and its processes, unless it has ended: its number may then be that of somebody else's process."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _reduce(frame: np.ndarray, encoded: bytes) -> bytes:
    """A frame as the page shows it, at most SHOWN_WIDTH wide, so that a long video does not fill the disk."""
    height, width = frame.shape[:2]
    if width <= SHOWN_WIDTH:
        return encoded
    size = SHOWN_WIDTH, max(1, round(height * SHOWN_WIDTH / width))
    return images.encode_jpeg(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), 90)


def frame_size(job: Job) -> tuple[int, int] | None:
    """(height, width) of a job's frames as the page shows them; None before there is one."""
    path = job.frame_path(0)
    return images.read_image_size(path) if path.exists() else None


def _last_sentence(errors: str) -> str:
    """What `msst predict` says is wrong, or else the last line that was written before it died."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    own = [line.removeprefix(_SPEAKER) for line in lines if line.startswith(_SPEAKER)]
    return (own or lines or ["the prediction died without a word"])[-1]
