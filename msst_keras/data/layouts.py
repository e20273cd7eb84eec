"""Where each dataset keeps frames and masks, and which belong together. The trees:

davis (DAVIS-2016; the level 480p may be missing)
    JPEGImages/480p/SEQUENCE/00000.jpg
    Annotations/480p/SEQUENCE/00000.png
    ImageSets/480p/train.txt, val.txt               the splits, when present
fbms (FBMS-59: Trainingset is the split train, Testset the split val)
    Trainingset/SEQUENCE/SEQUENCE_0001.jpg
    Trainingset/SEQUENCE/GroundTruth/SEQUENCE_0001_gt.ppm   of some frames; .pgm or .png where there is no .ppm
segtrackv2
    JPEGImages/SEQUENCE/*.png
    GroundTruth/SEQUENCE/*.png                      or a folder for each object, GroundTruth/SEQUENCE/1/*.png
stills (DUTS, MSRA and the like; each image is a sequence of one frame)
    image/NAME.jpg, mask/NAME.png                   or Image and Mask, or DUTS-TR-Image and DUTS-TR-Mask, or DUTS-TE-...
folder (no masks)
    *.jpg                                           one sequence, or SEQUENCE/*.jpg
video (no masks)
    NAME.mp4                                        the file itself or a folder of such files

The number of a frame or mask is the last one in its file name (camel01_0020_gt.ppm: 20), or the one that differs where
only one does (frame_1_v2.png, frame_2_v2.png). Masks that are named otherwise than the frames have one number, or one
that differs. Hidden files do not count, nor do folders that systems make by themselves (@eaDir, __MACOSX).

A dataset of videos is added here: its tree above, a function that finds its sequences, a row of LAYOUTS.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from msst_keras.data.file_names import VIDEO_SUFFIXES, by_plain_name, compose, find_named, list_images, subfolders
from msst_keras.data.frame_numbers import by_number, find_column, read_number, shared_column

SPLITS = ("train", "val", "all")

_STILLS_FOLDERS = (
    ("image", "mask"),
    ("Image", "Mask"),
    ("DUTS-TR-Image", "DUTS-TR-Mask"),
    ("DUTS-TE-Image", "DUTS-TE-Mask"),
)

# The official lists of DAVIS-2016, for trees without ImageSets.
DAVIS_SPLITS = {
    "train": """bear bmx-bumps boat breakdance-flare bus car-turn dance-jump dog-agility drift-turn elephant flamingo
        hike hockey horsejump-low kite-walk lucia mallard-fly mallard-water motocross-bumps motorbike paragliding rhino
        rollerblade scooter-gray soccerball stroller surf swing tennis train""",
    "val": """blackswan bmx-trees breakdance camel car-roundabout car-shadow cows dance-twirl dog drift-chicane
        drift-straight goat horsejump-high kite-surf libby motocross-jump paragliding-launch parkour scooter-black
        soapbox""",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one sequence lies: the folder of its frames, the folders of its masks (united), how the masks are read."""

    name: str
    frames_dir: Path
    mask_dirs: tuple[Path, ...]
    mask_rule: str


def davis(root: Path, split: str) -> list[Place]:
    """The sequences of a DAVIS tree. A split's names come from ImageSets when present, else from the official lists.

    A tree without ImageSets may be a part of the dataset: the official names that it lacks are passed over. A name that
    the tree's own list promises must be there.
    """
    frames, masks = root / "JPEGImages", root / "Annotations"
    if (frames / "480p").is_dir():
        frames, masks = frames / "480p", masks / "480p"
    if not frames.is_dir() and (root / "Annotations/480p").is_dir():
        masks = root / "Annotations/480p"
    names = _names_in(frames, masks)
    if split != "all":
        promised = _read_davis_list(root / "ImageSets" / "480p" / f"{split}.txt")
        names = promised or [name for name in names if name in DAVIS_SPLITS[split].split()]
    found = [(find_named(frames, name), find_named(masks, name)) for name in names]
    return [Place(of_frames.name, of_frames, (of_masks,), "nonzero") for of_frames, of_masks in found]


def _names_in(frames: Path, masks: Path) -> list[str]:
    """The sequences that have frames or masks; one of which half is missing is missed when its files are listed.

    The folder of the masks may have its accents spelled otherwise than that of the frames, which gives the name.
    """
    present = [folder for folder in (frames, masks) if folder.is_dir()]
    if not present:
        raise FileNotFoundError(f"{frames}: no such folder; give the folder above it, or another dataset")
    of_first, *others = ([path.name for path in subfolders(folder)] for folder in present)
    known = {compose(name) for name in of_first}
    return sorted([*of_first, *(name for names in others for name in names if compose(name) not in known)])


def _read_davis_list(path: Path) -> list[str]:
    """The sequence names of a list file: one name a line, or "/JPEGImages/480p/NAME/00000.jpg /Annotations/..."."""
    if not path.is_file():
        return []
    try:
        lines = [line.strip() for line in re.split("[\r\n]+", path.read_text(encoding="utf-8-sig"))]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a name a line, found no text ({error}); fetch the list again") from error
    names = sorted({Path(line.split()[0]).parent.name if "/" in line else line for line in lines if line})
    if not {"", ".", ".."}.isdisjoint(names):
        raise ValueError(f"{path}: expected a sequence name a line, found '{names[0]}'; fetch the list again")
    return names


def fbms(root: Path, split: str) -> list[Place]:
    """The sequences of an FBMS tree; "all" takes the sets that are there."""
    folders = {"train": ["Trainingset"], "val": ["Testset"], "all": ["Trainingset", "Testset"]}[split]
    present = [root / folder for folder in folders if (root / folder).is_dir()]
    if not present:
        raise FileNotFoundError(f"{root}: no folder {' or '.join(folders)} here; expected the tree of FBMS-59")
    sequences = [path for folder in present for path in subfolders(folder)]
    return [Place(path.name, path, (path / "GroundTruth",), "fbms") for path in sequences]


def segtrackv2(root: Path, split: str) -> list[Place]:
    """The sequences of a SegTrackV2 tree, which has no split (the paper trains on all of it)."""
    frames, masks = root / "JPEGImages", root / "GroundTruth"
    names = _names_in(frames, masks)
    return [Place(name, find_named(frames, name), _object_folders(find_named(masks, name)), "half") for name in names]


def _object_folders(folder: Path) -> tuple[Path, ...]:
    objects = tuple(subfolders(folder)) if folder.is_dir() else ()
    return (folder, *objects) if not objects or list_images(folder) else objects


def folder(root: Path, split: str) -> list[Place]:
    """A folder of frames, or the folders of frames in it; no masks. FBMS keeps its masks in one: not frames."""
    with_frames = [path for path in subfolders(root) if path.name != "GroundTruth" and list_images(path)]
    if not list_images(root):
        return [Place(path.name, path, (), "nonzero") for path in with_frames]
    if with_frames:
        raise ValueError(f"{root}: holds frames and folders of frames ({with_frames[0].name}); give one or the other")
    return [Place(root.resolve().name, root, (), "nonzero")]


@dataclasses.dataclass(frozen=True)
class Layout:
    """A dataset's tree.

    Attributes:
      expected: what a user is told in whose tree nothing is found.
      find: (root, split) -> its sequences; None for stills and videos, which are no folders of frames.
      has_splits: whether it has the splits train and val beside all.
      is_named: whether it is one dataset of videos with masks, whose names are its own: one name, one video. The names
        in the others are anybody's.
    """

    expected: str
    find: Callable[[Path, str], list[Place]] | None = None
    has_splits: bool = False
    is_named: bool = False


LAYOUTS = {
    "davis": Layout(
        "JPEGImages/480p/SEQUENCE/00000.jpg and Annotations/480p/SEQUENCE/00000.png",
        davis,
        has_splits=True,
        is_named=True,
    ),
    "fbms": Layout(
        "Trainingset/SEQUENCE/*.jpg or Testset/SEQUENCE/*.jpg, with GroundTruth/ in each",
        fbms,
        has_splits=True,
        is_named=True,
    ),
    "segtrackv2": Layout(
        "JPEGImages/SEQUENCE/*.png and GroundTruth/SEQUENCE/[OBJECT/]*.png", segtrackv2, is_named=True
    ),
    "stills": Layout("images in image/ and masks of the same names in mask/"),
    "folder": Layout("image files, or folders of image files", folder),
    "video": Layout(f"a video file, or a folder of them ({', '.join(VIDEO_SUFFIXES)})"),
}
NAMED_DATASETS = tuple(name for name, layout in LAYOUTS.items() if layout.is_named)


def pair_masks(place: Place, needs_frames: bool = True) -> tuple[tuple[Path, ...], dict[int, tuple[Path, ...]]]:
    """Orders a sequence's frames by number and pairs its masks to them by number, not by position.

    Where frames are not needed and none are there, the masks stand for them too.

    Returns:
      the frame files, and frame index (0 to N - 1) -> mask files.

    Raises:
      FileNotFoundError: a folder is missing.
      ValueError: no frame, no mask where one is expected, a mask without its frame, or names whose order is not clear.
    """
    stands_in = not needs_frames and not (place.frames_dir.is_dir() and list_images(place.frames_dir))
    frames = [*by_number(list_images(place.mask_dirs[0] if stands_in else place.frames_dir)).values()]
    if not frames:
        raise ValueError(f"{place.frames_dir}: no frames here; expected image files")
    masks: dict[int, tuple[Path, ...]] = {}
    for mask_dir in place.mask_dirs:
        files = list_images(mask_dir)
        files = _prefer_ppm(files, frames) if place.mask_rule == "fbms" else files
        column = shared_column(frames, files)
        index = {number: i for i, number in enumerate(by_number(frames, column))}
        for number, path in by_number(files, column).items():
            if number not in index:
                raise ValueError(f"{path}: a mask without its frame; {place.frames_dir} has none of number {number}")
            masks[index[number]] = (*masks.get(index[number], ()), path)
    if place.mask_dirs and not masks:
        raise ValueError(f"{place.mask_dirs[0]}: no masks here; frames without any are the dataset 'folder'")
    return tuple(frames), masks


def pair_stills(root: Path) -> list[tuple[Path, Path]]:
    """The (image, mask) pairs of a tree of stills, paired by name.

    Raises:
      FileNotFoundError: no such folders.
      ValueError: an image without a mask, a mask without an image, or two of one name.
    """
    names = next((names for names in _STILLS_FOLDERS if (root / names[0]).is_dir()), None)
    if names is None:
        raise FileNotFoundError(f"{root}: no folder {' or '.join(names[0] for names in _STILLS_FOLDERS)} here")
    stills, masks = (by_plain_name(list_images(root / name)) for name in names)
    alone = sorted(stills.keys() ^ masks.keys())
    if alone:
        raise ValueError(f"{root}: {alone[0]} is not in both {names[0]} and {names[1]}; each image needs its mask")
    return [(path, masks[name]) for name, path in stills.items()]


def _prefer_ppm(paths: list[Path], frames: list[Path]) -> list[Path]:
    """The FBMS masks among `paths`: no probability maps (..._PROB_gt.ppm), and nothing of a number that has a .ppm.

    What lies beside the .ppm is a .pgm of the object's outline, or a copy.
    """
    paths = [path for path in paths if "PROB" not in path.stem]
    column = find_column([*frames, *paths])
    ppm = [path for path in paths if path.suffix.lower() == ".ppm"]
    numbers = {read_number(path, column) for path in ppm}
    return ppm + [path for path in paths if read_number(path, column) not in numbers]
