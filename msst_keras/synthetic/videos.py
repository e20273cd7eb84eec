"""Generated sequences with exact masks and exact flow, and the same on disk as a DAVIS tree.

Photographs move over one another: a background under a moving camera, objects with paths of their own, patches that
catch the eye but stay on the background, and a foreground that hides them at times (see `scenes`). Nothing is
estimated: the mask is True where an object's shape holds the pixel's centre, and the flow leads to the place where the
next frame has the same point.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import flow_files, images
from msst_keras.data.sequences import number_names
from msst_keras.files import publish
from msst_keras.synthetic.affine import compose, invert
from msst_keras.synthetic.scene_options import SceneOptions
from msst_keras.synthetic.scenes import Layer, Shape, make_scene
from msst_keras.synthetic.textures import TEXTURE_SCALE


@dataclasses.dataclass(frozen=True)
class GeneratedSequence:
    """A generated sequence, a `data.sequences.Sequence` that is held in memory.

    Attributes:
      frames: uint8 (T, H, W, 3), RGB.
      masks: bool (T, H, W), where an object is visible.
      flow: float32 (T, H, W, 2), pixels per frame, x then y, from frame t to t + 1, exact; the last leads to the frame
        that would follow. It leads to where the point is, even if the point is hidden or out of view there.
      visible: int8 (T, H, W), the index in `kinds` of the layer that is seen.
      kinds: the kind of each layer, from back to front: "background", "distractor", "object" or "occluder".
      name: the name of the sequence.
    """

    frames: np.ndarray
    masks: np.ndarray
    flow: np.ndarray
    visible: np.ndarray
    kinds: tuple[str, ...]
    name: str = "generated"

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The names of the frames: 00000, 00001, ..."""
        return number_names(len(self))

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame): JPEG of quality 95, and what that decodes to, uint8 (H, W, 3) RGB."""
        for name, frame in zip(self.frame_names, self.frames, strict=True):
            encoded = images.encode_jpeg(frame)
            yield name, encoded, images.decode_frame(encoded, f"{self.name}, frame {name}")

    def read_mask(self, index: int) -> np.ndarray:
        """The mask of frame `index`, bool (H, W)."""
        return self.masks[index]

    def read_coarse_label(self, index: int) -> None:
        """None: every frame has a mask."""

    def read_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> Iterator[np.ndarray] | None:
        """Yields the exact flow of each frame; the last one leads to the frame that would follow.

        Returns:
          None where it is not known, which is backward or over several frames; else (h, w, 2) float32, x then y, pixels
          of `motion_size` per frame, rounded as all flow.
        """
        known = direction == "forward" and stride == 1
        return (flow_files.fit_flow(flow, motion_size) for flow in self.flow) if known else None

    def describe_content(self) -> list:
        """The hashes of its arrays."""
        arrays = (self.frames, self.masks, self.flow)
        return [hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in arrays]


def generate_sequence(
    seed: int | Sequence[int],
    num_frames: int,
    image_size: tuple[int, int],
    options: SceneOptions | None = None,
    name: str = "generated",
) -> GeneratedSequence:
    """Generates a sequence; the same arguments give the same sequence in any process.

    Args:
      seed: a whole number from 0 up, or a list of such numbers.
      num_frames: at least 1.
      image_size: (height, width), at least 32x32, because nothing can be seen on less.
      options: what the scene is like; None for the defaults.
      name: the sequence's name.

    Raises:
      ValueError: an argument is out of range.
    """
    if num_frames < 1 or min(image_size) < 32:
        raise ValueError(f"expected frames of 32x32 or more, 1 or more of them, not {num_frames} of {image_size}")
    layers = make_scene(np.random.default_rng(seed), num_frames, image_size, options or SceneOptions())
    frames = np.empty((num_frames, *image_size, 3), np.uint8)
    visible = np.empty((num_frames, *image_size), np.int8)
    flow = np.empty((num_frames, *image_size, 2), np.float32)
    for t in range(num_frames):
        frames[t], visible[t] = _render(layers, t, image_size)
        flow[t] = _compute_flow(layers, t, visible[t])
    kinds = tuple(layer.kind for layer in layers)
    masks = np.array([kind == "object" for kind in kinds])[visible]
    return GeneratedSequence(frames, masks, flow, visible, kinds, name)


def write_davis(
    root: str | Path,
    num_sequences: int,
    num_frames: int,
    image_size: tuple[int, int],
    seed: int,
    options: SceneOptions | None = None,
    num_val: int = 0,
    prefix: str = "generated",
) -> None:
    """Writes sequences as a DAVIS tree: PREFIX_000 and so on, frames as JPEG, quality 95, masks as PNG, 0 and 255.

    A sequence's folders appear when they are whole; ImageSets/480p/train.txt and val.txt, which come last, make the
    last `num_val` sequences the split val. Sequence i depends on (seed, i), not on how many there are.

    Raises:
      ValueError: an argument is out of range, or `root` holds sequences already.
    """
    if not 0 <= num_val <= num_sequences or num_sequences < 1:
        raise ValueError(f"expected 0 <= num_val <= num_sequences >= 1, not {num_val} and {num_sequences}")
    frames_dir, masks_dir = (Path(root) / folder / "480p" for folder in ("JPEGImages", "Annotations"))
    if frames_dir.is_dir() and any(frames_dir.iterdir()):
        raise ValueError(f"{frames_dir} holds sequences already; choose another folder or remove it")
    names = [f"{prefix}_{i:03d}" for i in range(num_sequences)]
    for i, name in enumerate(names):
        sequence = generate_sequence([seed, i], num_frames, image_size, options)
        with publish(frames_dir / name) as frames_part, publish(masks_dir / name) as masks_part:
            frames_part.mkdir()
            masks_part.mkdir()
            for t, (frame, mask) in enumerate(zip(sequence.frames, sequence.masks, strict=True)):
                (frames_part / f"{t:05d}.jpg").write_bytes(images.encode_jpeg(frame))
                (masks_part / f"{t:05d}.png").write_bytes(images.encode_png(mask * np.uint8(255)))
    for split, members in (("train", names[: num_sequences - num_val]), ("val", names[num_sequences - num_val :])):
        with publish(Path(root) / "ImageSets" / "480p" / f"{split}.txt") as part:
            part.write_text("".join(f"{name}\n" for name in members))


def _render(layers: list[Layer], t: int, image_size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Frame t, uint8 (H, W, 3), and the index of the layer seen at each pixel's centre, int8 (H, W).

    Outlines are blended over a pixel's width. The layer seen at a pixel is still the one that holds its centre.
    """
    canvas = _sample(layers[0], t, slice(0, image_size[0]), slice(0, image_size[1])).astype(np.float32)
    visible = np.zeros(image_size, np.int8)
    for index, layer in enumerate(layers[1:], start=1):
        shape = layer.shape
        assert shape is not None, "only the background has no shape"
        rows, columns = _find_box(shape, layer.maps[t], image_size)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        # One pixel more on each side, for the gradient.
        y, x = np.mgrid[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1].astype(np.float64)
        to_plane = invert(layer.maps[t])
        depth = shape.depth(*(to_plane[i, 0] * x + to_plane[i, 1] * y + to_plane[i, 2] for i in range(2)))
        slope = np.hypot(*np.gradient(depth))[1:-1, 1:-1]
        depth = depth[1:-1, 1:-1]
        coverage = np.clip(depth / np.maximum(slope, 1e-9) + 0.5, 0, 1).astype(np.float32)[..., None]
        box = canvas[rows, columns]
        box += coverage * (_sample(layer, t, rows, columns) - box)
        visible[rows, columns][depth > 0] = index
    return np.rint(canvas).astype(np.uint8), visible


def _find_box(shape: Shape, to_image: np.ndarray, image_size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the image that a shape can touch; `to_image` (2, 3) takes its plane to the image."""
    reach = shape.reach * np.sqrt(np.abs(np.linalg.det(to_image[:, :2]))) + 1
    middle = to_image[::-1, 2]
    low = np.clip(np.floor(middle - reach), 0, image_size).astype(int)
    high = np.clip(np.ceil(middle + reach) + 1, 0, image_size).astype(int)
    return slice(low[0], high[0]), slice(low[1], high[1])


def _sample(layer: Layer, t: int, rows: slice, columns: slice) -> np.ndarray:
    """The layer's texture as frame t sees it in a box of the image, uint8 (h, w, 3), regardless of the shape."""
    to_texture = invert(layer.maps[t]) * TEXTURE_SCALE
    to_texture[:, 2] += layer.origin + to_texture[:, :2] @ [columns.start, rows.start]
    return cv2.warpAffine(
        layer.texture, to_texture, (columns.stop - columns.start, rows.stop - rows.start),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip


def _compute_flow(layers: list[Layer], t: int, visible: np.ndarray) -> np.ndarray:
    """Flow of frame t, float32 (H, W, 2): where frame t + 1 has the point that frame t has at a pixel."""
    steps = np.stack([compose(layer.maps[t + 1], invert(layer.maps[t])) for layer in layers])
    steps[:, :, :2] -= np.eye(2)
    y, x = np.mgrid[: visible.shape[0], : visible.shape[1]]
    a, b, c = np.moveaxis(steps[visible], -1, 0)
    return (a * x[..., None] + b * y[..., None] + c).astype(np.float32)
