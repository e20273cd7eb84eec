"""Finds the sequences of a dataset: frames in order, masks paired to frames by number.

The trees are drawn in `layouts`.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from msst_keras.data import file_names, frame_numbers, layouts, videos
from msst_keras.data.sequences import FileSequence
from msst_keras.progress import say

DATASETS = tuple(layouts.LAYOUTS)
_MAX_NAMES = 60  # in an error: all of DAVIS, but not the thousands of stills


def find_sequences(
    dataset: str,
    root: str | Path,
    split: str = "all",
    sequences: Iterable[str] | None = None,
    needs_frames: bool = True,
) -> list[FileSequence]:
    """Finds the sequences of a dataset, sorted by name. File names are read and videos opened, images are not.

    Args:
      dataset: one of DATASETS.
      root: the folder that holds the tree (see `layouts`); for "video" also a video file.
      split: "train" or "val", which davis and fbms have, or "all".
      sequences: names to find, whose accents may be spelled otherwise; None finds all.
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
        raise FileNotFoundError(f"{root}: no such {'file or ' if dataset in ('video', 'folder') else ''}folder")
    found = _list_sequences(dataset, root, split, needs_frames)
    names = [name for name, _ in found]
    twice = [name for name, count in collections.Counter(map(file_names.compose, names)).items() if count > 1]
    if twice:
        spelled = "" if names.count(twice[0]) > 1 else ", with accents that are spelled otherwise"
        raise ValueError(f"{root}: two sequences are called {twice[0]}{spelled}; rename one or convert them one by one")
    if nameless := [name for name in names if not name.strip(".")]:
        raise ValueError(f"{root}: a sequence would be called '{nameless[0]}', which is no name of a folder; rename it")
    wanted = {file_names.compose(name): name for name in (names if sequences is None else sequences)}
    if not names:
        videos_here = file_names.list_videos(root) if dataset == "folder" else []
        if videos_here:
            raise ValueError(
                f"{root}: holds videos, not frames ({videos_here[0].name}, {len(videos_here)} in all); give the video "
                "files themselves, or the dataset 'video'"
            )
        if split != "all" and (others := [name for name, _ in _list_sequences(dataset, root, "all", needs_frames)]):
            raise ValueError(
                f"{root}: none of the {len(others)} sequences here ({', '.join(others[:3])}"
                f"{', ...' if others[3:] else ''}) is in the split {split} of {dataset}; leave --split out to take all"
            )
        raise ValueError(f"{root}: no sequence here; expected {layout.expected}")
    unknown = sorted(wanted[name] for name in wanted.keys() - set(map(file_names.compose, names)))
    if unknown:
        known = ", ".join(sorted(names)[:_MAX_NAMES]) + ", ..." * (len(names) > _MAX_NAMES)
        raise ValueError(f"{root}: no sequence {', '.join(unknown)} in split {split}; there are {known}")
    return [make() for name, make in sorted(found, key=lambda pair: pair[0]) if file_names.compose(name) in wanted]


def find_flat_masks(root: str | Path) -> FileSequence:
    """A folder of masks and nothing else as one sequence, for scoring maps by name: the masks stand for the frames too.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: no image in it.
    """
    root = Path(root)
    masks = tuple(file_names.list_images(root))
    if not masks:
        raise ValueError(f"{root}: no masks here; expected image files")
    return FileSequence(root.resolve().name, masks, {i: (path,) for i, path in enumerate(masks)}, "half")


def _list_sequences(
    dataset: str, root: Path, split: str, needs_frames: bool
) -> list[tuple[str, Callable[[], FileSequence]]]:
    """The name of each sequence and a function that makes it, so that those not asked for are not looked into."""
    if dataset == "video":
        if root.is_dir() and (left_out := file_names.describe_left_out(root, file_names.VIDEO_SUFFIXES)):
            say(left_out)
        return [(path.stem, functools.partial(_probe_video, path)) for path in file_names.list_videos(root)]
    if dataset == "stills":
        return [(image.stem, functools.partial(_still, image, mask)) for image, mask in layouts.pair_stills(root)]
    find = layouts.LAYOUTS[dataset].find
    assert find is not None, f"{dataset} is no folder of frames and was found above"
    places = find(root, split)
    if dataset == "folder" and places and places[0].frames_dir != root:
        _say_what_is_passed_over(root, {place.frames_dir for place in places})
    return [(place.name, functools.partial(_folders, place, needs_frames)) for place in places]


def _say_what_is_passed_over(root: Path, found: Collection[Path]) -> None:
    """Says which files and folders beside the folders of frames are no sequences."""
    if left_out := file_names.describe_left_out(root, ()):
        say(left_out)
    empty = [path for path in file_names.subfolders(root) if path not in found]
    if empty:
        where, first = map(file_names.printable, (root, empty[0]))
        say(f"{where}: {len(empty)} folders without frames are left out, such as {first}")


def _folders(place: layouts.Place, needs_frames: bool) -> FileSequence:
    frames, masks = layouts.pair_masks(place, needs_frames)
    has_frames = place.frames_dir.is_dir()
    left_out = file_names.describe_left_out(place.frames_dir, file_names.IMAGE_SUFFIXES) if has_frames else ""
    for sentence in (left_out, frame_numbers.describe_gaps(frames)):
        if sentence:
            say(sentence)
    return FileSequence(place.name, frames, masks, place.mask_rule)


def _still(image: Path, mask: Path) -> FileSequence:
    return FileSequence(image.stem, (image,), {0: (mask,)}, "half")


def _probe_video(path: Path) -> FileSequence:
    facts = videos.probe_video(path)
    rate, aspect = float(facts.frame_rate), facts.sample_aspect
    return FileSequence(
        path.stem, video_path=path, video_length=facts.num_frames, frame_rate=rate, sample_aspect=aspect
    )
