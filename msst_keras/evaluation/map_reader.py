"""Folders of maps beside a dataset, read by sequence and frame, in any process; see `evaluation.scoring`."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from msst_keras.data import images
from msst_keras.data.file_names import find_named, subfolders
from msst_keras.data.sequences import FileSequence
from msst_keras.evaluation.pairing import pair_maps
from msst_keras.evaluation.scores import ALL_BLACK, FLOW_MAGNITUDE
from msst_keras.evaluation.stability import flicker
from msst_keras.motion.flow import FlowEstimator, FlowSettings
from msst_keras.motion.flow_pictures import magnitude_prior

# Suffixes of image files. Maps are .png; a map of another kind is an error.
_OTHER_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif", ".exr", ".npy")


@dataclass(frozen=True)
class MapReader:
    """Masks of a dataset with the maps of several methods, a `scoring.Reader`.

    Attributes:
      sequences: Name -> sequence.
      folders: Method -> folder of its maps.
      flat: Whether maps are in the folder itself, not in a folder per sequence.
      baselines: Which of ALL_BLACK and FLOW_MAGNITUDE are methods, too. The latter needs the frames: it is
        `magnitude_prior` of the default flow at its default size, resized to the mask.
      has_frames: Whether the sequences have frames; else their masks stand for them.
    """

    sequences: Mapping[str, FileSequence]
    folders: Mapping[str, Path]
    flat: bool = False
    baselines: tuple[str, ...] = ()
    has_frames: bool = True

    @functools.cached_property
    def _indices(self) -> dict[str, dict[str, int]]:
        return {name: {f: i for i, f in enumerate(s.frame_names)} for name, s in self.sequences.items()}

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of all methods, baselines last."""
        return *self.folders, *self.baselines

    def annotated(self) -> dict[str, list[str]]:
        """Sequence -> names of the frames with a mask, in order."""
        return {name: [s.frame_names[i] for i in sorted(s.mask_paths)] for name, s in self.sequences.items()}

    def check_maps(self, known: Iterable[str], scored: Mapping[str, Iterable[str]] | None = None) -> None:
        """Checks that each folder has the maps of the masks, and no others, and that they are maps of 0 to 255.

        Args:
          known: The sequences of the dataset, of which perhaps not all are scored.
          scored: The frames of each sequence whose maps are needed; by default all that have a mask.

        Raises:
          ValueError: it has not, or they are not.
          FileNotFoundError: a folder or a map is missing.
        """
        known = {unicodedata.normalize("NFC", name) for name in known}
        scored = {name: list(frames) for name, frames in (scored or self.annotated()).items()}
        for folder in self.folders.values():
            places = {name: folder if self.flat else find_named(folder, name) for name in self.sequences}
            maps = {name: self._list_maps(place, name) for name, place in places.items()}
            try:
                frames = {name: s.frame_names for name, s in self.sequences.items()}
                pair_maps(self.annotated(), _composed(maps), _composed(frames), _composed(scored))
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from None
            found = [] if self.flat else subfolders(folder)
            if strange := [path.name for path in found if unicodedata.normalize("NFC", path.name) not in known]:
                raise ValueError(
                    f"{folder}: {len(strange)} folders of maps belong to no sequence of the ground truth "
                    f"({', '.join(strange[:5])}); move them away, or name what to score (--sequences)"
                )
        for method, folder in self.folders.items():
            paths = (self.describe(method, name, frame) for name, frames in scored.items() for frame in frames)
            images.check_scale(paths, str(folder))

    def _list_maps(self, folder: Path, sequence: str) -> list[str]:
        if not folder.is_dir():
            return []
        names = []
        for path in sorted(folder.iterdir()):
            if path.name[0] == "." or path.suffix.lower() not in _OTHER_SUFFIXES:
                continue
            if path.suffix != ".png" or not path.is_file():
                kind = "a folder" if path.is_dir() else f"'{path.suffix}'"
                found = kind if path.exists() else "a link to nothing"
                raise ValueError(f"{path}: maps are files FRAME.png, 8-bit grey; this is {found}, convert or remove it")
            if any(path.samefile(mask) for mask in self._masks_of(sequence, path.stem)):
                raise ValueError(f"{path}: this is the mask itself; --predictions and --compare are folders of maps")
            names.append(path.stem)
        return names

    def _masks_of(self, sequence: str, frame: str) -> tuple[Path, ...]:
        index = self._indices[sequence].get(frame)
        return () if index is None else self.sequences[sequence].mask_paths.get(index, ())

    def describe(self, method: str, sequence: str, frame: str) -> str:
        """Names a map, by its file."""
        if method in self.baselines:
            return f"{method}, {sequence}/{frame}"
        folder = self.folders[method]
        return str(find_named(folder if self.flat else find_named(folder, sequence), f"{frame}.png"))

    def read(self, sequence: str, frame: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Returns the mask, bool (H, W), and each method's map, uint8, (h, w) as it was found."""
        mask = self.sequences[sequence].read_mask(self._indices[sequence][frame])
        if mask is None:
            raise ValueError(f"frame {frame} of '{sequence}' has no mask; only annotated frames can be scored")
        size = mask.shape[0], mask.shape[1]
        return mask, {name: self._read_map(name, sequence, frame, size) for name in self.methods}

    def read_frame(self, sequence: str, frame: str) -> np.ndarray | None:
        """Returns the frame, uint8 (H, W, 3) RGB; None if there are only masks."""
        if not self.has_frames:
            return None
        return images.read_frame(self._frame_path(sequence, self._indices[sequence][frame]))

    def flicker(self, sequence: str, frame: str) -> dict[str, float]:
        """Returns `stability.flicker` from this frame to the next, for each method that has both maps."""
        index = self._indices[sequence][frame]
        if index + 1 >= len(self.sequences[sequence]):
            return {}
        paths = self._frame_path(sequence, index), self._frame_path(sequence, index + 1)
        forward, backward = _flow(*paths), _flow(*paths[::-1])
        following = self.sequences[sequence].frame_names[index + 1]
        values = {}
        for name in self.methods:
            if name in self.baselines or all(
                Path(self.describe(name, sequence, f)).is_file() for f in (frame, following)
            ):
                size = images.read_image_size(paths[0])
                first, second = (self._read_map(name, sequence, f, size) for f in (frame, following))
                try:
                    values[name] = flicker(first, second, forward, backward)
                except ValueError as error:
                    raise ValueError(f"{self.describe(name, sequence, following)}: {error}") from None
        return {name: value for name, value in values.items() if value is not None}

    def _read_map(self, method: str, sequence: str, frame: str, size: tuple[int, int]) -> np.ndarray:
        if method == ALL_BLACK and method in self.baselines:
            return np.zeros(size, np.uint8)
        if method == FLOW_MAGNITUDE and method in self.baselines:
            return cv2.resize(self._magnitude(sequence, self._indices[sequence][frame]), size[::-1])
        return _read_levels(self.describe(method, sequence, frame))

    def _magnitude(self, sequence: str, index: int) -> np.ndarray:
        """The map of residual motion, uint8, from the frame to the next one, or from the last to the one before."""
        last = len(self.sequences[sequence]) - 1
        if not last:
            return np.zeros(FlowSettings().motion_size, np.uint8)
        paths = self._frame_path(sequence, index), self._frame_path(sequence, index + (1 if index < last else -1))
        return np.rint(255 * magnitude_prior(_flow(*paths))).astype(np.uint8)

    def _frame_path(self, sequence: str, index: int) -> Path:
        return self.sequences[sequence].frame_paths[index]


def _composed(names: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Names with their letters composed (see `file_names.plain_name`)."""
    return {
        unicodedata.normalize("NFC", name): [unicodedata.normalize("NFC", each) for each in found]
        for name, found in names.items()
    }


# A frame's flow serves its magnitude and its stability. Its pixels and its map are needed with both its neighbours.
@functools.lru_cache(maxsize=2)
def _flow(first: Path, second: Path) -> np.ndarray:
    """The flow between two frames, (h, w, 2), in pixels of the reduced frame. It depends on these frames alone."""
    frames = _read_frame(first), _read_frame(second)
    if frames[0].shape != frames[1].shape:
        raise ValueError(f"{second}: this frame is {frames[1].shape[:2]}, but {first} is {frames[0].shape[:2]}")
    return FlowEstimator(FlowSettings()).between(*frames)


@functools.lru_cache(maxsize=2)
def _read_frame(path: Path) -> np.ndarray:
    return images.read_frame(path)


@functools.lru_cache(maxsize=16)
def _read_levels(path: str) -> np.ndarray:
    return images.read_levels(path)


def forget_files() -> None:
    """Forgets what was read of files, which may have changed between two evaluations in one process."""
    for read in (_flow, _read_frame, _read_levels):
        read.cache_clear()
