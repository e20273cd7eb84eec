"""What a sequence is: frames, masks and, where it is known, flow, read one frame at a time.

Three kinds have the interface of `Sequence`: files on disk (`FileSequence`), a still image that is set in motion
(`synthetic.stills.MovingStill`), and a generated scene (`synthetic.videos.GeneratedSequence`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from msst_keras.data import image_files, images, videos
from msst_keras.data.masks import read_mask
from msst_keras.files import hash_file


class Sequence(Protocol):
    """A video of any kind, as a conversion takes it. All of it can be pickled."""

    @property
    def name(self) -> str:
        """The name of the sequence, which is also that of a folder."""

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The name of each frame, in order."""

    def __len__(self) -> int:
        """The number of frames; of a video file a good guess."""

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame) in order, one frame in memory at a time.

        `frame` is uint8 (H, W, 3) RGB; `encoded` is a JPEG or PNG that decodes to the same pixels.

        Raises:
          FileNotFoundError: a file has gone.
          ValueError: an unreadable frame, frames of two sizes, or a video that is cut off or damaged.
        """

    def read_mask(self, index: int) -> np.ndarray | None:
        """Reads the mask of frame `index`, all its objects united: bool (H, W), or None if that frame has none.

        Raises:
          FileNotFoundError: a file has gone.
          ValueError: an unreadable mask, or one of another size than its frame.
        """

    def read_coarse_label(self, index: int) -> np.ndarray | None:
        """Reads the coarse label (section 3.3) of frame `index`, as `read_mask` reads a mask."""

    def read_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> Iterator[np.ndarray] | None:
        """Yields the flow of each frame if it is known; see `motion.flow.FlowSettings` for the arguments.

        Returns:
          None if it is not known and has to be estimated from the frames; else (h, w, 2) float32, x then y, pixels of
          `motion_size` per frame, rounded as all flow.
        """

    def describe_content(self) -> list:
        """What frames and labels are made of, as JSON values: two sequences of one content give the same records."""


@dataclasses.dataclass(frozen=True)
class FileSequence:
    """A sequence of files: the frames in order, or a video, and the masks of some or all frames.

    Attributes:
      name: of the sequence.
      frame_paths: image files, in order; empty for a video.
      mask_paths: frame index (0 to N - 1) -> mask files of that frame, to be united; no entry where there is no mask.
      mask_rule: how the masks are read, one of `masks.MASK_RULES`.
      coarse_paths: frame index -> files of a coarse label (section 3.3), of frames without mask.
      video_path: a video file in place of `frame_paths`.
      video_length: the frames that the video file is likely to give, by its packets: a good guess.
      frame_rate: frames per second, the mean where it varies. Folders of frames do not say; DAVIS plays at 24.
      sample_aspect: width / height of a pixel; 1 but for some videos.
    """

    name: str
    frame_paths: tuple[Path, ...] = ()
    mask_paths: Mapping[int, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    mask_rule: str = "nonzero"
    coarse_paths: Mapping[int, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    video_path: Path | None = None
    video_length: int = 0
    frame_rate: float = 24.0
    sample_aspect: Fraction = Fraction(1)

    def __len__(self) -> int:
        """The number of frames; for a video `video_length`."""
        return self.video_length if self.video_path else len(self.frame_paths)

    @property
    def frame_names(self) -> tuple[str, ...]:
        """The name of each frame: its file's stem, or for a video "00000" and so on."""
        if self.video_path:
            return number_names(self.video_length)
        return tuple(path.stem for path in self.frame_paths)

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame) in order, see `Sequence.read_frames`.

        `encoded` holds the file's own bytes where it is a JPEG or an 8-bit RGB or grey PNG, else a PNG. A video's
        frames are encoded as JPEG, quality 95, and `frame` is what that decodes to; see `videos` for what else is done
        to them.

        Raises:
          FileNotFoundError: a file has gone.
          ValueError: an unreadable frame, frames of two sizes, or a video that is cut off or damaged.
        """
        if self.video_path is None:
            yield from self._decode_files()
            return
        for name, image, _ in self.read_images():
            encoded = images.encode_jpeg(image)
            yield name, encoded, images.decode_frame(encoded, f"{self.video_path}, frame {name}")

    def read_images(self) -> Generator[tuple[str, np.ndarray, float], None, None]:
        """Yields (name, frame, seconds since the first frame) in order: the frames as they are, not encoded.

        Raises:
          FileNotFoundError, ValueError: see `read_frames`.
        """
        if self.video_path is None:
            for index, (name, _, frame) in enumerate(self._decode_files(keep=False)):
                yield name, frame, index / self.frame_rate
            return
        for index, (image, seconds) in enumerate(videos.read_video(self.video_path)):
            yield f"{index:05d}", image, seconds

    def read_mask(self, index: int) -> np.ndarray | None:
        """Reads the mask of frame `index`, all its objects united: bool (H, W), or None when that frame has none.

        Raises:
          FileNotFoundError: a file has gone.
          ValueError: an unreadable mask, or one of another size than its frame.
        """
        return self._read_united(self.mask_paths.get(index, ()), self.mask_rule, index)

    def read_coarse_label(self, index: int) -> np.ndarray | None:
        """Reads the coarse label of frame `index`, as `read_mask` does a mask."""
        return self._read_united(self.coarse_paths.get(index, ()), "half", index)

    def read_flows(self, motion_size: tuple[int, int], direction: str, stride: int) -> None:
        """None: the flow of files is not known, but has to be computed."""

    def describe_content(self) -> list:
        """The hash of each file of its frames, and of its masks and coarse labels by frame, each with its name."""
        files = [self.video_path] if self.video_path else self.frame_paths
        return [[hash_file(path) for path in files], [hash_labels(self.mask_paths), hash_labels(self.coarse_paths)]]

    def _read_united(self, paths: tuple[Path, ...], rule: str, index: int) -> np.ndarray | None:
        if not paths:
            return None
        masks = [read_mask(path, rule) for path in paths]
        size = images.read_image_size(self.frame_paths[index])
        for path, mask in zip(paths, masks, strict=True):
            if mask.shape != size:
                raise ValueError(
                    f"{path}: this mask is {_size(mask.shape)}, but {self.frame_paths[index]} is {_size(size)}; "
                    "bring them to one size"
                )
        return np.logical_or.reduce(masks)

    def _decode_files(self, keep: bool = True) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame); `encoded` is to be stored if `keep`."""
        first = None
        for path in self.frame_paths:
            encoded = image_files.read_file(path)
            frame = images.decode_frame(encoded, str(path))
            first = first or (path.stem, frame.shape)
            if frame.shape != first[1]:
                raise ValueError(
                    f"{path.parent}: frame {path.stem} is {_size(frame.shape)}, but {first[0]} is {_size(first[1])}; "
                    "the frames of a sequence must be of one size"
                )
            yield path.stem, encoded if not keep or images.is_plain(encoded) else images.encode_png(frame), frame


def number_names(num_frames: int) -> tuple[str, ...]:
    """The names of frames that have none of their own: 00000, 00001 and so on."""
    return tuple(f"{index:05d}" for index in range(num_frames))


def hash_labels(paths: Mapping[int, tuple[Path, ...]]) -> dict[int, list[list[str]]]:
    """Frame index -> name and hash of each file of its label, in the order of the frames."""
    return {index: [[path.name, hash_file(path)] for path in paths[index]] for index in sorted(paths)}


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
