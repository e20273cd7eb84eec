"""Optical flow in files: .flo, 16-bit PNG and its number format, and flow from files in place of a flow method.

The latter lies at FLOW_DIR/SEQUENCE/FRAME.flo or .png, named after the frame that it starts from. OpenCV reads and
writes the PNG, since Pillow knows no 16-bit RGB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import image_files
from msst_keras.data.file_names import find_named
from msst_keras.files import publish

FLOW_STEP = 1 / 16  # pixels; half the bytes of 1/64 px, and far below what any flow method errs by
FLOW_OFFSET = 2**15  # what a flow PNG holds where flow is 0
MAX_FLOW = FLOW_OFFSET * FLOW_STEP  # pixels; a flow PNG holds what is below
# Third channel of a flow PNG: steps per pixel. KITTI's files look the same but have 1/64 px, and 1 there.
FLOW_KNOWN = round(1 / FLOW_STEP)
_FLO_MAGIC = b"PIEH"
_FLO_UNKNOWN = 1e9  # Middlebury: flow above this is unknown


def round_flow(flow: np.ndarray) -> np.ndarray:
    """Rounds flow, (H, W, 2) pixels, to multiples of FLOW_STEP, as a flow PNG holds it; float32."""
    return np.rint(flow / FLOW_STEP).astype(np.float32) * np.float32(FLOW_STEP)


def encode_flow_png(flow: np.ndarray, png_options: Sequence[int] = ()) -> bytes:
    """Encodes flow, float (H, W, 2), pixels, x then y, as 16-bit RGB PNG: R, G = round(flow / FLOW_STEP) + 2**15.

    B is 16, the steps per pixel, where flow is known; where it is NaN all three are 0.

    Args:
      flow: what to encode.
      png_options: of `cv2.imencode`, for other compression.

    Raises:
      ValueError: another shape, or flow outside [-2048, 2048).
    """
    _check_flow(flow)
    known = ~np.isnan(flow).any(axis=2, keepdims=True)
    steps = np.where(known, np.rint(flow / FLOW_STEP) + FLOW_OFFSET, 0)
    if steps.min() < 0 or steps.max() > 2**16 - 1:
        found = f"{np.nanmin(flow)} to {np.nanmax(flow)}"
        raise ValueError(f"flow must lie in [{-MAX_FLOW:g}, {MAX_FLOW:g}) px, found {found}")
    channels = np.concatenate([known * FLOW_KNOWN, steps[..., ::-1]], axis=2)  # OpenCV's order is B, G, R
    return cv2.imencode(".png", channels.astype(np.uint16), png_options)[1].tobytes()


def decode_flow_png(encoded: bytes, name: str) -> np.ndarray:
    """Decodes a flow PNG of `encode_flow_png`: float32 (H, W, 2), pixels, x then y, NaN where flow is unknown.

    Raises:
      ValueError: truncated, damaged, or not such a file; names `name`.
    """
    if encoded[:8] != image_files.PNG_SIGNATURE or encoded[24:26] != b"\x10\x02":
        raise ValueError(f"{name}: a flow PNG has 16 bits and three channels; this file is none")
    width, height = struct.unpack(">II", encoded[16:24])
    image_files.check_size(width, height, name)
    image_files.check_png(encoded, name)
    channels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if channels is None:
        raise ValueError(f"{name}: cut off or damaged; make the file again")
    known = channels[..., :1]
    if not np.isin(known, (0, FLOW_KNOWN)).all():
        raise ValueError(
            f"{name}: the third channel of a flow PNG must be {FLOW_KNOWN} (steps per pixel) or 0 (unknown), found "
            f"{known.max()}; KITTI's files have other steps: write the flow as .flo"
        )
    steps = channels[..., :0:-1].astype(np.float32) - FLOW_OFFSET
    return np.where(known, steps * np.float32(FLOW_STEP), np.float32(np.nan))


def read_flow(path: str | Path) -> np.ndarray:
    """Reads flow from .flo (Middlebury) or .png (`encode_flow_png`): float32 (H, W, 2), pixels, x then y; NaN: unknown.

    Raises:
      FileNotFoundError: no such file.
      ValueError: another suffix, or a file that is damaged or of another format.
    """
    encoded = image_files.read_file(path)
    if _flow_suffix(path) == ".png":
        return decode_flow_png(encoded, str(path))
    width, height = struct.unpack("<ii", encoded[4:12]) if len(encoded) >= 12 else (0, 0)
    if encoded[:4] != _FLO_MAGIC or min(width, height) < 1 or len(encoded) != 12 + 8 * width * height:
        raise ValueError(f"{path}: expected 'PIEH', width, height and 8 bytes a pixel; this .flo file is damaged")
    flow = np.frombuffer(encoded, "<f4", offset=12).reshape(height, width, 2).astype(np.float32)
    flow[(np.abs(flow) > _FLO_UNKNOWN).any(axis=2)] = np.nan
    return flow


def write_flow(path: str | Path, flow: np.ndarray) -> None:
    """Writes flow, float (H, W, 2), pixels, as .flo (exact) or .png (rounded to FLOW_STEP). NaN is unknown flow.

    Raises:
      ValueError: another suffix or shape, or flow out of the PNG's range.
    """
    if _flow_suffix(path) == ".png":
        encoded = encode_flow_png(flow)
    else:
        _check_flow(flow)
        header = _FLO_MAGIC + struct.pack("<ii", flow.shape[1], flow.shape[0])
        encoded = header + np.nan_to_num(flow, nan=10 * _FLO_UNKNOWN).astype("<f4").tobytes()
    with publish(path, durable=False) as temporary:
        temporary.write_bytes(encoded)


def read_flows(
    flow_dir: str | Path, sequence: str, frame_names: Sequence[str], motion_size: tuple[int, int], stride: int = 1
) -> Iterator[np.ndarray]:
    """Yields the flow of each frame of a sequence, at `motion_size` and rounded as computed flow is.

    Flow of another size is resized, its vectors with it. A sequence of N frames has N - 1 flows: a first or a last
    frame without a file takes its neighbour's flow.

    Args:
      flow_dir: holds a folder for each sequence; accents may be spelled otherwise in the names in it.
      sequence: its name.
      frame_names: in order.
      motion_size: (h, w) of what is yielded.
      stride: frames that the files' flow spans; it is divided by that, as computed flow is.

    Yields:
      (h, w, 2) float32, x then y, pixels of `motion_size` per frame, multiples of FLOW_STEP.

    Raises:
      FileNotFoundError: no folder for the sequence, or no file for a frame in its middle.
      ValueError: a file that cannot be read, or one with vectors that are unknown or too long for a flow PNG.
    """
    folder = find_named(Path(flow_dir), sequence)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; the flow of '{sequence}' is expected in it")
    paths = [_find(folder, name) for name in frame_names]
    if len(paths) > 1:
        paths[0], paths[-1] = paths[0] or paths[1], paths[-1] or paths[-2]
    for name, path in zip(frame_names, paths, strict=True):
        if path is None:
            raise FileNotFoundError(
                f"{folder}: no {name}.flo or {name}.png; every frame but one at the end needs its flow"
            )
        yield _fit(read_flow(path) / np.float32(stride), motion_size, path)


def _check_flow(flow: np.ndarray) -> None:
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"flow must be (H, W, 2), x then y, not {flow.shape}")


def _flow_suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".flo", ".png"):
        raise ValueError(f"{path}: flow files are .flo or .png, not '{suffix}'")
    return suffix


def _find(folder: Path, name: str) -> Path | None:
    paths = (find_named(folder, f"{name}{suffix}") for suffix in (".flo", ".png"))
    return next((path for path in paths if path.is_file()), None)


def fit_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Flow of another size: (H, W, 2) float32, x then y, pixels -> (h, w, 2), in pixels of that size, rounded."""
    height, width = flow.shape[:2]
    if (height, width) != size:
        shrinks = size[0] <= height and size[1] <= width
        flow = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        flow = flow * np.array([size[1] / width, size[0] / height], np.float32)
    return round_flow(flow)


def _fit(flow: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    if np.isnan(flow).any():
        raise ValueError(f"{path}: {np.isnan(flow).any(axis=2).sum()} vectors are unknown; fill them in")
    flow = fit_flow(flow, size)
    longest = np.abs(flow).max()
    if longest >= MAX_FLOW:
        raise ValueError(f"{path}: flow of {longest:g} px, expected less than {MAX_FLOW:g}; make it again")
    return flow
