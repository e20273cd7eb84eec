"""Saliency made visible: maps drawn over their frames, videos of them, and contact sheets."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from msst_keras.files import publish

# The frame shows through the most salient pixels, and what is not salient is dimmed so that these stand out.
_HEAT_OPACITY = 0.55
_BACKGROUND_BRIGHTNESS = 0.6

_LABEL_HEIGHT = 24
_GAP = 4
_PAPER = 255
_INK = 0

_TIME_BASE = Fraction(1, 90_000)  # s: of MPEG; 24, 25 and 29.97 frames a second are whole numbers of it
_BT709, _LIMITED_RANGE = 1, 1  # FFmpeg's numbers of colour primaries, transfer and matrix, and of the range 16 to 235
# x264's own quality; veryfast takes half the time of its default, for 10 % larger files at the same quality (36.8 dB).
_X264 = {"crf": "23", "preset": "veryfast"}


def overlay(frame: np.ndarray, saliency: np.ndarray, mask_threshold: float | None = 0.5) -> np.ndarray:
    """Draws a saliency map over its frame.

    The colours are cividis (dark blue to yellow), made to read the same with and without colour blindness; their
    opacity follows the saliency, and what is not salient is dimmed.

    Args:
      frame: (H, W, 3) uint8, RGB.
      saliency: (H, W) float32 in [0, 1].
      mask_threshold: draws the outline of saliency >= mask_threshold; None draws none.

    Returns:
      (H, W, 3) uint8, RGB.

    Raises:
      ValueError: when an array has another shape or type, or a value is not in [0, 1] (NaN included).
    """
    _check_image(frame, "the frame", channels=(3,))
    if not isinstance(saliency, np.ndarray) or saliency.shape != frame.shape[:2] or saliency.dtype != np.float32:
        raise ValueError(
            f"the saliency map must be a float32 array of its frame's size {frame.shape[:2]}, got {_describe(saliency)}"
        )
    lowest, highest = float(saliency.min()), float(saliency.max())
    if not (lowest >= 0 and highest <= 1):  # also true for NaN
        raise ValueError(f"the saliency map must lie in [0, 1], its values go from {lowest} to {highest}")
    if mask_threshold is not None and not 0 <= mask_threshold <= 1:
        raise ValueError(f"mask_threshold must lie in [0, 1], got {mask_threshold}")
    # Saliency has 256 levels here, as in the map's PNG. To look up their colours and opacities takes a third of the
    # time of computing those of each pixel.
    levels = cv2.merge([np.rint(saliency * 255).astype(np.uint8)] * 3)
    dimming, heat = _blending_tables()
    dimmed = cv2.multiply(frame, cv2.LUT(levels, dimming), dtype=cv2.CV_32F)
    blended = cv2.convertScaleAbs(cv2.add(dimmed, cv2.LUT(levels, heat)))
    if mask_threshold is not None:
        _draw_outline(blended, saliency >= mask_threshold)
    return blended


@functools.cache
def _blending_tables() -> tuple[np.ndarray, np.ndarray]:
    """What each level of saliency multiplies the frame by, and what it adds: (256, 1, 3) float32 each."""
    levels = np.arange(256, dtype=np.uint8)[:, None]
    saliency = levels[..., None] / 255
    opacity = _HEAT_OPACITY * saliency
    brightness = _BACKGROUND_BRIGHTNESS + (1 - _BACKGROUND_BRIGHTNESS) * saliency
    heat = opacity * cv2.applyColorMap(levels, cv2.COLORMAP_CIVIDIS)[..., ::-1]
    return np.repeat((1 - opacity) * brightness, 3, axis=2).astype(np.float32), heat.astype(np.float32)


def _draw_outline(image: np.ndarray, mask: np.ndarray) -> None:
    """Draws the mask's outline into the image: white within black, so that it shows on any ground."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(min(mask.shape) / 500))
    cv2.drawContours(image, contours, -1, (0, 0, 0), thickness + 2)
    cv2.drawContours(image, contours, -1, (255, 255, 255), thickness)


class OverlayWriter:
    """Writes frames to an MP4 video, as a context manager; the file appears under its name only when it is whole.

    H.264, which every player and browser knows, at the times of the frames, with its colours tagged (BT.709). The codec
    stores chroma at half size and wants even sizes: an odd frame is padded by repeating its last row or column.

    Args:
      path: the video, NAME.mp4.
      frame_rate: frames per second, of frames that are written without a time.
      size: (height, width) of every frame.
      sample_aspect: width / height of a pixel, so that players show the video as the one that it was made of.
      before_publishing: called with the path of the whole video just before it gets its name.

    Raises:
      ValueError: for another suffix, a frame rate, size or aspect that is not positive, and on leaving the context when
        no frame was given.
      OSError: when the video cannot be written; a full disk, say.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        frame_rate: float,
        size: tuple[int, int],
        sample_aspect: Fraction | int = 1,
        before_publishing: Callable[[Path], None] | None = None,
    ):
        self._path = Path(path)
        if self._path.suffix.lower() != ".mp4":
            raise ValueError(f"{self._path}: a video's name must end with .mp4")
        if not (math.isfinite(frame_rate) and frame_rate > 0):
            raise ValueError(f"{self._path}: the frame rate must be a positive number, got {frame_rate}")
        if min(size) < 1:
            raise ValueError(f"{self._path}: the frame size must be positive, got {tuple(size)}")
        if not sample_aspect > 0:
            raise ValueError(f"{self._path}: the sample aspect ratio must be positive, got {sample_aspect}")
        self._frame_rate, self._size, self._sample_aspect = frame_rate, tuple(size), Fraction(sample_aspect)
        self._num_frames, self._last_time = 0, -1
        self._before_publishing = before_publishing

    def __enter__(self) -> OverlayWriter:
        self._stack = contextlib.ExitStack()
        self._unfinished_path = self._stack.enter_context(publish(self._path))
        try:
            with self._sentences():
                self._start()
        except BaseException:
            self._stack.close()  # a context that was not entered is not left
            raise
        return self

    def _start(self) -> None:
        # The suffix of the temporary name is the format's, and "file:" keeps a colon in a name from being a protocol.
        self._container = av.open(
            "file:" + os.path.abspath(self._unfinished_path), "w", options={"movflags": "+faststart"}
        )
        rate = Fraction(self._frame_rate).limit_denominator(1001) or 1
        self._stream = self._container.add_stream("libx264", rate=rate, options=_X264)
        self._stream.height, self._stream.width = (length + length % 2 for length in self._size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TIME_BASE
        context = self._stream.codec_context
        context.sample_aspect_ratio = self._sample_aspect
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE

    def write(self, frame: np.ndarray, seconds: float | None = None) -> None:
        """Appends a frame: (H, W, 3) uint8, RGB; shown from `seconds` on, counted from the first frame.

        Raises:
          ValueError: when the frame is not such an array or has another size than the video.
          OSError: when it cannot be written.
        """
        _check_image(frame, "a frame of the video", channels=(3,))
        if frame.shape[:2] != self._size:
            raise ValueError(f"{self._path}: frames must be of the video's size {self._size}, got {frame.shape[:2]}")
        height, width = self._size
        even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG", threads=1)
        seconds = self._num_frames / self._frame_rate if seconds is None else seconds
        self._last_time = max(self._last_time + 1, round(seconds / _TIME_BASE))
        picture.pts, picture.time_base = self._last_time, _TIME_BASE
        with self._sentences():
            self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(av.FFmpegError):
                self._container.close()
            self._stack.__exit__(kind, error, traceback)  # removes the unfinished file
            return
        with self._stack:
            if not self._num_frames:
                with contextlib.suppress(av.FFmpegError):
                    self._container.close()
                raise ValueError(f"{self._path}: a video needs at least one frame, and none was given")
            with self._sentences():
                self._container.mux(self._stream.encode(None))
                self._container.close()
                self._check_complete()
            if self._before_publishing is not None:
                self._before_publishing(self._unfinished_path)

    def _check_complete(self) -> None:
        with av.open("file:" + os.path.abspath(self._unfinished_path)) as container:
            written = sum(1 for packet in container.demux(video=0) if packet.size)
        if written != self._num_frames:
            raise OSError(
                f"{self._path}: {self._num_frames} frames were given and {written} are in the video; is the disk full?"
            )

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turns FFmpeg's errors into one sentence each."""
        try:
            yield
        except av.FFmpegError as error:
            raise OSError(f"{self._path}: the video cannot be written ({error.strerror}); is the disk full?") from None


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str] | None = None, cell_height: int = 120
) -> np.ndarray:
    """Arranges images in a table, such as one row per frame with its frame, prior, map and mask.

    Args:
      rows: images (H, W, 3) uint8 RGB or (H, W) uint8 grey, of any sizes; every row has as many.
      labels: a heading for each column, or None.
      cell_height: every image is resized to this many pixels of height, its aspect ratio kept.

    Returns:
      (height, width, 3) uint8, RGB.

    Raises:
      ValueError: when there is no image, rows differ in length, the labels are not one per column, `cell_height` is not
        positive, or an image is not such an array.
    """
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"rows must be equally long and not empty, their lengths are {[len(row) for row in rows]}")
    if labels is not None and len(labels) != len(rows[0]):
        raise ValueError(f"labels must be one for each of the {len(rows[0])} columns, got {list(labels)}")
    if cell_height < 1:
        raise ValueError(f"cell_height must be at least 1 pixel, got {cell_height}")
    cells = [[_cell(image, cell_height) for image in row] for row in rows]
    widths = [max(cell.width for cell in column) for column in zip(*cells, strict=True)]
    lefts = [_GAP + sum(widths[:column]) + _GAP * column for column in range(len(widths))]
    top = _LABEL_HEIGHT if labels is not None else _GAP
    sheet = Image.new("RGB", (lefts[-1] + widths[-1] + _GAP, top + len(rows) * (cell_height + _GAP)), (_PAPER,) * 3)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_LABEL_HEIGHT // 2)
    for label, left, width in zip(labels or (), lefts, widths, strict=False):
        draw.text((left + width / 2, top / 2), label, fill=(_INK,) * 3, font=font, anchor="mm")
    for row, row_cells in enumerate(cells):
        for cell, left, width in zip(row_cells, lefts, widths, strict=True):
            sheet.paste(cell, (left + (width - cell.width) // 2, top + row * (cell_height + _GAP)))
    return np.array(sheet)


def _cell(image: np.ndarray, height: int) -> Image.Image:
    _check_image(image, "an image of the sheet", channels=(1, 3))
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    # Pillow's resampling averages when it shrinks; OpenCV's does so in one of its modes only.
    return Image.fromarray(image).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)


def _check_image(image: np.ndarray, what: str, channels: tuple[int, ...]) -> None:
    is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size
    if not is_array or (image.shape[2:] != (3,) and not (image.ndim == 2 and 1 in channels)):
        expected = "(H, W, 3)" if 1 not in channels else "(H, W, 3) or (H, W)"
        raise ValueError(f"{what} must be a {expected} uint8 array, got {_describe(image)}")


def _describe(value: object) -> str:
    """Shape and type of a wrong argument, for messages."""
    return f"shape {value.shape} of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
