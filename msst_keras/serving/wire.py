"""What travels between a client and the signature `step`: frames, flow, superpixels and maps as files.

It needs neither TensorFlow nor Keras.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from msst_keras.data import flow_files, images

LOSSLESS = 100  # the quality of a frame that is sent as PNG
# Of 16-bit PNGs: every row with the filter that suits it. That makes a flow a fifth smaller than OpenCV's own choice,
# and what takes longer than run lengths (3 ms of 12) gains little.
_SMALL = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]


def encode_frame(frame: np.ndarray, size: tuple[int, int] | None, quality: int) -> bytes:
    """Encodes a frame, uint8 (H, W, 3) RGB, in as few bytes as the model's view of it needs.

    A frame larger than the network is reduced here as the graph would do it: the pixels that the network sees are sent,
    and fewer bytes of them harm less than a stronger compression of the whole would. But they are rounded to whole
    levels, which the graph's own are not, so what is to lose nothing goes as it is.

    Args:
      frame: of any size.
      size: (height, width) that the network sees; None to send the frame as it is.
      quality: of a JPEG, with full colour resolution; LOSSLESS for a PNG of the whole frame.
    """
    if quality == LOSSLESS:
        return images.encode_png(frame)
    if size and frame.shape[0] >= size[0] and frame.shape[1] >= size[1] and frame.shape[:2] != tuple(size):
        channels = [resize(frame[..., channel].astype(np.float32), size) for channel in range(3)]
        frame = np.rint(np.stack(channels, axis=-1)).clip(0, 255).astype(np.uint8)
    options = [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    ]  # fmt: skip
    return cv2.imencode(".jpg", frame[..., ::-1], options)[1].tobytes()


def encode_flow(flow: np.ndarray) -> bytes:
    """Encodes flow as `flow_files.encode_flow_png` does, in fewer bytes."""
    return flow_files.encode_flow_png(flow, _SMALL)


def encode_superpixels(superpixels: np.ndarray) -> bytes:
    """Encodes labels, int32 (h, w, M) of 0 to 65535, as a grey 16-bit PNG, (M * h, w): one level below the other.

    Raises:
      ValueError: other labels.
    """
    if superpixels.min() < 0 or superpixels.max() > 2**16 - 1:
        raise ValueError(f"labels must be 0 to 65535, found {superpixels.min()} to {superpixels.max()}")
    height, width, num_levels = superpixels.shape
    stacked = superpixels.transpose(2, 0, 1).reshape(num_levels * height, width)
    return cv2.imencode(".png", stacked.astype(np.uint16), _SMALL)[1].tobytes()


def decode_saliency(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """A map of `step`, an 8-bit grey PNG, at the frame's size: float32 (H, W) in 0..1.

    Raises:
      ValueError: no such PNG.
    """
    # OpenCV itself raises on no bytes at all.
    levels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED) if encoded else None
    if levels is None or levels.dtype != np.uint8 or levels.ndim != 2:
        raise ValueError("the server's map is no 8-bit grey PNG; is this a model of `msst export`?")
    return np.clip(resize(levels.astype(np.float32) / np.float32(255), size), 0, 1)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes float32 (H, W) as the graph does: bilinear, with antialiasing where a side shrinks."""
    if image.shape == tuple(size):
        return image
    if image.shape[0] <= size[0] and image.shape[1] <= size[1]:
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
