"""Dataset trees to sequences: frames in order, masks paired to frames by number, read one at a time.

The trees are drawn in `layouts`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from msst_keras.data import images, layouts, videos
from msst_keras.progress import say

DATASETS = tuple(layouts.LAYOUTS)
_MAX_NAMES = 60  # in an error: all of DAVIS, but not the thousands of stills


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A video: its frames in order and the masks of some or all of them.

    Attributes:
      name: of the sequence.
      frame_paths: image files, in order; empty for a video.
      mask_paths: frame index (0 to N - 1) -> mask files of that frame, to be united; no entry where there is no mask.
      mask_rule: how the masks are read, one of `images.MASK_RULES`.
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
            return tuple(f"{index:05d}" for index in range(self.video_length))
        return tuple(path.stem for path in self.frame_paths)

    def read_frames(self) -> Iterator[tuple[str, bytes, np.ndarray]]:
        """Yields (name, encoded, frame) in order, one frame in memory at a time.

        `frame` is uint8 (H, W, 3) RGB; `encoded` decodes to the same pixels: the file's own bytes where it is a JPEG or
        an 8-bit RGB or grey PNG, else a PNG. A video's frames are encoded as JPEG, quality 95, and `frame` is what that
        decodes to; see `videos` for what else is done to them.

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

    def read_images(self) -> Iterator[tuple[str, np.ndarray, float]]:
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

    def _read_united(self, paths: tuple[Path, ...], rule: str, index: int) -> np.ndarray | None:
        if not paths:
            return None
        masks = [images.read_mask(path, rule) for path in paths]
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
            encoded = images.read_file(path)
            frame = images.decode_frame(encoded, str(path))
            first = first or (path.stem, frame.shape)
            if frame.shape != first[1]:
                raise ValueError(
                    f"{path.parent}: frame {path.stem} is {_size(frame.shape)}, but {first[0]} is {_size(first[1])}; "
                    "the frames of a sequence must be of one size"
                )
            yield path.stem, encoded if not keep or images.is_plain(encoded) else images.encode_png(frame), frame


def find_sequences(
    dataset: str,
    root: str | Path,
    split: str = "all",
    sequences: Iterable[str] | None = None,
    needs_frames: bool = True,
) -> list[Sequence]:
    """Finds the sequences of a dataset, sorted by name. File names are read and videos opened, images are not.

    Args:
      dataset: one of DATASETS.
      root: the folder that holds the tree (see `layouts`); for "video" also a video file.
      split: "train" or "val", which davis and fbms have, or "all".
      sequences: names to find; None finds all.
      needs_frames: if not, masks stand for the frames of a sequence that has none (`evaluate` can do without).

    Raises:
      FileNotFoundError: a folder that the tree should have is missing.
      ValueError: an unknown dataset, split or sequence; nothing found; frames whose order is not clear; a mask without
        its frame; an unreadable video.
    """
    root = Path(root)
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, not '{dataset}'")
    layout = layouts.LAYOUTS[dataset]
    splits = layouts.SPLITS if layout.has_splits else ("all",)
    if split not in splits:
        choice = "train, val or all" if layout.has_splits else "all"
        raise ValueError(f"{dataset} has no split '{split}'; take {choice}")
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such {'file or ' if dataset == 'video' else ''}folder")
    found = _list_sequences(dataset, root, split, needs_frames)
    names = [name for name, _ in found]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{root}: two sequences are called {twice[0]}; rename one or convert them one by one")
    if nameless := [name for name in names if not name.strip(".")]:
        raise ValueError(f"{root}: a sequence would be called '{nameless[0]}', which is no name of a folder; rename it")
    wanted = set(names if sequences is None else sequences)
    if not names:
        videos_here = layouts.list_videos(root) if dataset == "folder" else []
        if videos_here:
            raise ValueError(
                f"{root}: holds videos, not frames ({videos_here[0].name}, {len(videos_here)} in all); give the video "
                "files themselves, or the dataset 'video'"
            )
        raise ValueError(f"{root}: no sequence in split {split}; expected {layout.expected}")
    unknown = sorted(wanted - set(names))
    if unknown:
        known = ", ".join(sorted(names)[:_MAX_NAMES]) + ", ..." * (len(names) > _MAX_NAMES)
        raise ValueError(f"{root}: no sequence {', '.join(unknown)} in split {split}; there are {known}")
    return [make() for name, make in sorted(found, key=lambda pair: pair[0]) if name in wanted]


def find_flat_masks(root: str | Path) -> Sequence:
    """A folder of masks and nothing else as one sequence, for scoring maps by name: the masks stand for the frames too.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no image in it.
    """
    root = Path(root)
    masks = tuple(layouts.list_images(root))
    if not masks:
        raise ValueError(f"{root}: no masks here; expected image files")
    return Sequence(root.resolve().name, masks, {i: (path,) for i, path in enumerate(masks)}, "half")


def _list_sequences(
    dataset: str, root: Path, split: str, needs_frames: bool
) -> list[tuple[str, Callable[[], Sequence]]]:
    """The name of each sequence and a function that makes it, so that those not asked for are not looked into."""
    if dataset == "video":
        if root.is_dir() and (left_out := layouts.describe_left_out(root, layouts.VIDEO_SUFFIXES)):
            say(left_out)
        return [(path.stem, functools.partial(_probe_video, path)) for path in layouts.list_videos(root)]
    if dataset == "stills":
        return [(image.stem, functools.partial(_still, image, mask)) for image, mask in layouts.pair_stills(root)]
    places = layouts.LAYOUTS[dataset].find(root, split)
    return [(place.name, functools.partial(_folders, place, needs_frames)) for place in places]


def _folders(place: layouts.Place, needs_frames: bool) -> Sequence:
    frames, masks = layouts.pair_masks(place, needs_frames)
    left_out = layouts.describe_left_out(place.frames_dir, layouts.IMAGE_SUFFIXES) if place.frames_dir.is_dir() else ""
    for sentence in (left_out, layouts.describe_gaps(frames)):
        if sentence:
            say(sentence)
    return Sequence(place.name, frames, masks, place.mask_rule)


def _still(image: Path, mask: Path) -> Sequence:
    return Sequence(image.stem, (image,), {0: (mask,)}, "half")


def _probe_video(path: Path) -> Sequence:
    facts = videos.probe_video(path)
    rate, aspect = float(facts.frame_rate), facts.sample_aspect
    return Sequence(path.stem, video_path=path, video_length=facts.num_frames, frame_rate=rate, sample_aspect=aspect)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
