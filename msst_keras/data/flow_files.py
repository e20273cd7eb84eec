"""Flow from files in place of a flow method: FLOW_DIR/SEQUENCE/FRAME.flo or .png, named after the frames they start
from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import images


def read_flows(
    flow_dir: str | Path, sequence: str, frame_names: Sequence[str], motion_size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yields the flow of each frame of a sequence, at `motion_size` and rounded as computed flow is.

    Flow of another size is resized, its vectors with it. A sequence of N frames has N - 1 flows: a first or a last
    frame without a file takes its neighbour's flow.

    Args:
      flow_dir: holds a folder for each sequence.
      sequence: its name.
      frame_names: in order.
      motion_size: (h, w) of what is yielded.

    Yields:
      (h, w, 2) float32, x then y, pixels of `motion_size` per frame, multiples of `images.FLOW_STEP`.

    Raises:
      FileNotFoundError: no folder for the sequence, or no file for a frame in its middle.
      ValueError: a file that cannot be read, or one with vectors that are unknown or too long for a flow PNG.
    """
    folder = Path(flow_dir) / sequence
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
        yield _fit(images.read_flow(path), motion_size, path)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.flo", folder / f"{name}.png") if path.is_file()), None)


def _fit(flow: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    if np.isnan(flow).any():
        raise ValueError(f"{path}: {np.isnan(flow).any(axis=2).sum()} vectors are unknown; fill them in")
    height, width = flow.shape[:2]
    if (height, width) != size:
        shrinks = size[0] <= height and size[1] <= width
        flow = cv2.resize(flow, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        flow = flow * np.float32([size[1] / width, size[0] / height])
    longest = np.abs(flow).max()
    if longest >= images.MAX_FLOW:
        raise ValueError(f"{path}: flow of {longest:g} px, expected less than {images.MAX_FLOW:g}; make it again")
    return images.round_flow(flow)
