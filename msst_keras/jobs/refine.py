"""Refines folders of saliency maps, of any method, with the dense CRF; `msst refine`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from msst_keras.data import images
from msst_keras.data.layouts import list_images, plain_name, subfolders
from msst_keras.files import DifferentSettingsError, remember
from msst_keras.inference import crf
from msst_keras.inference.options import RefineOptions
from msst_keras.inference.parallel import map_in_order
from msst_keras.processes import count_cores
from msst_keras.progress import progress

_SETTINGS = "crf.json"


def refine(options: RefineOptions) -> int:
    """Pairs maps and frames, checks their sizes, then refines what is not there yet.

    Returns:
      how many maps were refined; those that were there already do not count.

    Raises:
      ValueError, FileNotFoundError: maps and frames that do not fit each other, or a folder of other maps.
    """
    settings = options.crf.settings()
    maps_dir, output_dir = Path(options.maps), Path(options.output_dir)
    if output_dir.resolve() == maps_dir.resolve():
        raise ValueError(f"--output_dir is the folder of the maps, {maps_dir}; the refined maps need one of their own")
    pairs = _pair(maps_dir, Path(options.frames))
    _check_sizes(pairs)
    images.check_scale((path for path, _ in pairs), str(maps_dir))
    _keep_settings(output_dir, {**dataclasses.asdict(settings), "maps": str(maps_dir.resolve())})
    todo = [pair for pair in pairs if not (output_dir / pair[0].relative_to(maps_dir)).exists()]

    def refine_pair(pair: tuple[Path, Path]) -> None:
        saliency, frame = images.read_map(pair[0]), images.read_frame(pair[1])
        refined = crf.refine(frame, saliency, settings, options.crf.backend)
        images.write_map(output_dir / pair[0].relative_to(maps_dir), refined)

    done = map_in_order(refine_pair, todo, options.num_workers or count_cores())
    for _ in progress(done, len(pairs), str(output_dir), initial=len(pairs) - len(todo)):
        pass
    print(f"{output_dir}: {len(todo)} maps refined, {len(pairs) - len(todo)} were there already")
    return len(todo)


def _pair(maps_dir: Path, frames_dir: Path) -> list[tuple[Path, Path]]:
    """(map, its frame) of every map, in order."""
    for folder, what in ((maps_dir, "maps"), (frames_dir, "frames")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {what}")
    maps = [path for place in (maps_dir, *subfolders(maps_dir)) for path in list_images(place) if path.suffix == ".png"]
    if not maps:
        raise ValueError(f"{maps_dir}: no maps here; expected SEQUENCE/FRAME.png or FRAME.png")
    frames = {}
    for folder in sorted({path.parent.relative_to(maps_dir) for path in maps}):
        if not (frames_dir / folder).is_dir():
            raise FileNotFoundError(
                f"{frames_dir / folder}: no such folder; it should hold {maps_dir / folder}'s frames"
            )
        frames[folder] = {plain_name(path): path for path in list_images(frames_dir / folder)}
    pairs = [(path, frames[path.parent.relative_to(maps_dir)].get(plain_name(path))) for path in sorted(maps)]
    missing = [str(path) for path, frame in pairs if frame is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(maps)} maps have no frame of their name in {frames_dir}: {', '.join(missing[:5])}"
            + (", ..." if len(missing) > 5 else "")
        )
    return pairs


def _check_sizes(pairs: list[tuple[Path, Path]]) -> None:
    """Reads the headers of all files before the first minute of work."""
    for map_path, frame_path in pairs:
        map_size, frame_size = images.read_image_size(map_path), images.read_image_size(frame_path)
        if map_size != frame_size:
            raise ValueError(
                f"{map_path}: this map is {map_size[0]}x{map_size[1]}, but its frame {frame_path} is "
                f"{frame_size[0]}x{frame_size[1]}; bring them to one size"
            )


def _keep_settings(output_dir: Path, settings: dict) -> None:
    """Makes the folder remember what it is made with; refuses to go on with anything else."""
    path = output_dir / _SETTINGS
    if not path.is_file() and output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} holds files that `msst refine` did not write; choose another --output_dir")
    try:
        remember(path, settings, indent=2)
    except DifferentSettingsError as error:
        differing = ", ".join(f"{name} {error.found.get(name)}" for name in error.keys)
        raise ValueError(f"{output_dir} holds maps made with {differing}; choose another --output_dir") from None
