"""A still image with its mask becomes a clip: camera and object move on smooth paths of their own, with exact flow.

So datasets of stills (DUTS, MSRA) train all three parts of the network: spatial stream, temporal stream, ConvLSTM.

    still ── mask ──▶ object with soft edges ── own path ──┐
          another still's object ── own slower path ───────┤
      └── object painted over ▶ background ── camera path ─┴─▶ frames, masks, flow

Everything is a function of the seed and the image's name alone. Points are x, y; an affine map is (2, 3).

Where the object leaves, the background is painted in from the hole's rim (Telea's method), as in Lucid Data Dreaming
(Khoreva et al. 2017). The original object cannot stay there, because it would be an object without a label. Another
image's background would give the object away by its light and sharpness. Paths are short, so that little of the
painting is seen, and in the middle of the clip they pass through the still's own arrangement.

The flow is exact. An estimator's flow, which the network sees in use, is blurred at outlines and wrong where there is
little texture. `MovingStill.exact_flow` chooses between the two.

A still's object fills more of the frame than a video's, its background is one plane, and nothing else moves. So a share
of the clips can be shrunk, have parallax (`relief`), a second thing in motion (`distractors`) or a crowd at rest
(`crowds`). Each of these is drawn from random numbers of its own, so that the share of one does not change clips
without it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from msst_keras.data import flow_files, images
from msst_keras.data.masks import read_mask
from msst_keras.data.sequences import FileSequence, hash_labels, number_names
from msst_keras.files import hash_file
from msst_keras.synthetic import crowds, distractors
from msst_keras.synthetic.affine import compose
from msst_keras.synthetic.relief import Relief
from msst_keras.synthetic.still_motion import camera_places, draw_motion, draw_shrinking
from msst_keras.synthetic.still_options import StillMotionOptions
from msst_keras.synthetic.still_scene import Cutout, Scene, blur, paint_over

# What the seeds of their random numbers end in; that of motion does not.
_SHRINKING, _PARALLAX, _DISTRACTOR, _CROWD = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class MovingStill:
    """A generated sequence, a `data.sequences.Sequence`. Only the one used last is in memory.

    Attributes:
      name: the name of the sequence, and of the image.
      image_path, mask_path: the still.
      num_frames: 2 or more.
      seed: the seed of all motion.
      exact_flow: if True, the default, the flow that is stored, and that the prior sees, is that of the motion. If
        False, it is estimated from the generated frames as from any video, with an estimator's errors, as in use.
      mask_rule: how the mask is read, one of `masks.MASK_RULES`.
      options: how it moves.
      others: (image, mask) of stills whose objects may be its distractor, of which the first that is suitable is taken,
        and its crowd, for which all that are suitable are. See `set_in_motion`.
    """

    name: str
    image_path: Path
    mask_path: Path
    num_frames: int
    seed: int = 0
    exact_flow: bool = True
    mask_rule: str = "half"
    options: StillMotionOptions = StillMotionOptions()
    others: tuple[tuple[Path, Path], ...] = ()

    def __post_init__(self) -> None:
        if self.num_frames < 2:
            raise ValueError(f"a moving still has 2 frames or more, not {self.num_frames}; 1 is the still itself")

    @classmethod
    def from_sequence(cls, still: FileSequence, num_frames: int, seed: int = 0, exact_flow: bool = True) -> MovingStill:
        """A still of `datasets.find_sequences("stills", ...)`, set in motion."""
        (image_path,), (mask_path,) = still.frame_paths, still.mask_paths[0]
        return cls(still.name, image_path, mask_path, num_frames, seed, exact_flow, still.mask_rule)

    def draw(self, *purpose: int) -> np.random.Generator:
        """The random numbers of one purpose, which depend on seed and name alone."""
        digest = hashlib.sha256(self.name.encode()).digest()
        return np.random.default_rng([self.seed, *np.frombuffer(digest, np.uint32), *purpose])

    def __len__(self) -> int:
        return self.num_frames

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The names of the frames: 00000, 00001, ..."""
        return number_names(self.num_frames)

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame): JPEG of quality 95, as a video's frames, and uint8 (H, W, 3) RGB.

        Raises:
          FileNotFoundError, ValueError: see `images.read_frame` and `masks.read_mask`; a mask of another size.
        """
        scene = _load(self)
        for index, name in enumerate(self.frame_names):
            encoded = images.encode_jpeg(scene.render(index))
            yield name, encoded, images.decode_frame(encoded, f"{self.image_path}, frame {name}")

    def read_mask(self, index: int) -> np.ndarray:
        """The mask of frame `index`, bool (H, W): where the object covers more than half a pixel.

        Raises:
          FileNotFoundError, ValueError: see `read_frames`.
        """
        return _load(self).mask(index)

    def read_coarse_label(self, index: int) -> None:
        """None: every frame has a mask."""

    def read_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> Iterator[np.ndarray] | None:
        """Yields the exact flow of each frame, where and as `motion.flow.FlowEstimator.flows` gives estimated flow.

        Returns:
          None if not `exact_flow`; else (h, w, 2) float32, x then y, pixels of `motion_size` per frame, rounded as all
          flow.
        """
        return self._exact_flows(motion_size, direction, stride) if self.exact_flow else None

    def describe_content(self) -> list:
        """The hashes of image and mask. Its distractors are other stills, each hashed in its turn."""
        return [[hash_file(self.image_path)], [hash_labels({0: (self.mask_path,)})]]

    def _exact_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> Iterator[np.ndarray]:
        scene = _load(self)
        for index in range(self.num_frames):
            end, sign = (self.num_frames - 1, 1) if direction == "forward" else (0, -1)
            steps = min(stride, abs(end - index))
            # From the frame at the end flow leads nowhere, so it is the negated flow to its neighbour.
            other, divisor = (index + sign * steps, steps) if steps else (index - sign, -1)
            yield flow_files.round_flow(scene.flow(index, other, motion_size) / np.float32(divisor))


def set_in_motion(
    stills: Iterable[FileSequence], num_frames: int, seed: int = 0, exact_flow: bool = True,
    options: StillMotionOptions | None = None,
) -> list[MovingStill]:  # fmt: skip
    """Makes a `MovingStill` of each still, and says which other stills its distractor and its crowd may come from.

    The choice depends on the seed and on the names and order of the stills alone. Files are read when a clip is made.
    """
    options = options or StillMotionOptions()
    moving = [
        dataclasses.replace(MovingStill.from_sequence(still, num_frames, seed, exact_flow), options=options)
        for still in stills
    ]
    if not options.distractor_share and not options.crowd_share:
        return moving
    paths = [(still.image_path, still.mask_path) for still in moving]
    candidates = distractors.choose_candidates([still.name for still in moving], seed)
    return [
        dataclasses.replace(still, others=tuple(paths[index] for index in indices))
        for still, indices in zip(moving, candidates, strict=True)
    ]


@functools.lru_cache(maxsize=1)  # a still's frames, masks and flow are read in turn
def _load(still: MovingStill) -> Scene:
    image, mask = images.read_frame(still.image_path), read_mask(still.mask_path, still.mask_rule)
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"{still.mask_path}: this mask is {mask.shape[0]}x{mask.shape[1]}, but {still.image_path} is "
            f"{image.shape[0]}x{image.shape[1]}; bring them to one size"
        )
    options, shrunk = still.options, draw_shrinking(still.draw(_SHRINKING), mask, still.options)
    relief_rng, parallax = still.draw(_PARALLAX), 0.0
    if relief_rng.random() < options.parallax_share:
        parallax = relief_rng.uniform(*options.parallax)
        options = dataclasses.replace(options, camera_speed=options.parallax_camera_speed)
    camera, motion = draw_motion(still.draw(), mask, still.num_frames, options, shrunk, parallax)
    relief = Relief.draw(relief_rng, parallax, mask.shape, camera_places(camera, mask.shape)) if parallax else None
    # From farther away a camera sees less detail. Without this blur, a shrunk still would be sampled with gaps.
    deviation = np.sqrt(1 / shrunk.zoom**2 - 1) / 2 if shrunk else 0.0

    def cut(image: np.ndarray, cover: np.ndarray, motion: np.ndarray) -> Cutout:
        """Cuts a thing out of an image, as the camera sees it."""
        maps = np.stack([compose(*pair) for pair in zip(camera, motion, strict=True)])
        return Cutout.with_soft_edge(image, cover, maps, deviation)

    things = [cut(image, mask, motion)]
    distractor = _draw_distractor(still, mask, camera, motion)
    if distractor:
        things.insert(0, cut(*distractor))
    things[:0] = [cut(*member) for member in _draw_crowd(still, image, mask, camera, motion)]
    return Scene(blur(paint_over(image, mask), deviation), camera, things, relief)


def _draw_distractor(
    still: MovingStill, mask: np.ndarray, camera: np.ndarray, motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Draws a distractor, see `distractors.draw`. The other stills are read only if this still gets one."""
    rng = still.draw(_DISTRACTOR)
    if rng.random() >= still.options.distractor_share or not 0 < mask.sum() < mask.size:
        return None
    other = distractors.read_first(still.others, still.mask_rule)
    return other and distractors.draw(rng, *other, mask, camera, motion, still.options)


def _draw_crowd(
    still: MovingStill, image: np.ndarray, mask: np.ndarray, camera: np.ndarray, motion: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Draws a crowd, see `crowds.draw`. The other stills are read only if this still gets one."""
    rng = still.draw(_CROWD)
    if rng.random() >= still.options.crowd_share or not 0 < mask.sum() < mask.size:
        return []
    others = list(distractors.read_suitable(still.others, still.mask_rule))
    return crowds.draw(rng, image, mask, others, camera, motion, still.options)
