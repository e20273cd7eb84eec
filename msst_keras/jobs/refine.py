"""Refines folders of saliency maps, of any method, with the dense CRF; `msst refine`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from msst_keras.data import images
from msst_keras.data.file_names import by_plain_name, find_named, list_images, plain_name, subfolders
from msst_keras.files import DifferentSettingsError, hash_files, remove, sync
from msst_keras.inference import crf
from msst_keras.inference.options import RefineOptions
from msst_keras.inference.parallel import map_in_order
from msst_keras.locks import hold_folder
from msst_keras.outputs import Memory, check_apart
from msst_keras.processes import count_cores
from msst_keras.progress import progress


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
    check_apart(output_dir, {maps_dir, *(frame.parent for _, frame in pairs)})
    _check_sizes(pairs)
    images.check_scale((path for path, _ in pairs), str(maps_dir))
    with hold_folder(output_dir):
        todo = _begin(options, pairs)

        def refine_pair(pair: tuple[Path, Path]) -> None:
            """Writes the refined map of a map and its frame."""
            saliency, frame = images.read_map(pair[0]), images.read_frame(pair[1])
            refined = crf.refine(frame, saliency, settings, options.crf.backend)
            images.write_map(output_dir / pair[0].relative_to(maps_dir), refined)

        done = map_in_order(refine_pair, todo, options.num_workers or count_cores())
        for _ in progress(done, len(pairs), str(output_dir), initial=len(pairs) - len(todo)):
            pass
        sync(output_dir)
    print(f"{output_dir}: {len(todo)} maps refined, {len(pairs) - len(todo)} were there already")
    return len(todo)


def _begin(options: RefineOptions, pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Compares what the folder was made from with what is to be refined; returns the pairs that are still to do.

    The folder remembers a hash of each map with its frame: more maps may come, and one that has changed is noticed.
    """
    output_dir, maps_dir = Path(options.output_dir), Path(options.maps)
    settings = {**dataclasses.asdict(options.crf.settings()), "backend": options.crf.backend}
    memory = Memory(output_dir, "refine", settings)
    names = {pair[0].relative_to(maps_dir).as_posix(): pair for pair in pairs}
    inputs = {name: hash_files({"map": pair[0], "frame": pair[1]}) for name, pair in names.items()}
    found = _list_maps(output_dir)
    empty = {path for path in found if not path.stat().st_size}  # a power cut leaves such files
    there = {path.relative_to(output_dir).as_posix() for path in found if path not in empty}
    try:
        known = memory.compare()
        if known is None:
            memory.refuse_strangers(sorted(path.name for path in output_dir.iterdir()))
        known = (known or {}).get("inputs", {})
    except DifferentSettingsError:
        if not options.overwrite:
            raise
        known = {}
    stale = sorted(name for name in there if name not in inputs or known.get(name) != inputs[name])
    if stale and not options.overwrite:
        raise ValueError(
            f"{output_dir} holds {len(stale)} maps that were refined from other maps or frames ({', '.join(stale[:5])}"
            + (", ..." if len(stale) > 5 else "")
            + "); choose another --output_dir, or give --overwrite to refine them anew"
        )
    for name in stale:
        (output_dir / name).unlink()
    for path in (*empty, *output_dir.glob(".partial-*"), *output_dir.glob("*/.partial-*")):
        remove(path)
    memory.write(inputs=inputs)
    return [pair for name, pair in names.items() if name not in there or name in stale]


def _list_maps(folder: Path) -> list[Path]:
    places = (folder, *subfolders(folder))
    return sorted(path for place in places for path in list_images(place) if path.suffix == ".png")


def _pair(maps_dir: Path, frames_dir: Path) -> list[tuple[Path, Path]]:
    """(map, its frame) of every map, in order."""
    for folder, what in ((maps_dir, "maps"), (frames_dir, "frames")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {what}")
    maps = _list_maps(maps_dir)
    others = [path for place in (maps_dir, *subfolders(maps_dir)) for path in list_images(place) if path not in maps]
    if others:
        raise ValueError(f"{others[0]}: a map must be a PNG, as the refined one will be; convert it, or move it away")
    if not maps:
        raise ValueError(f"{maps_dir}: no maps here; expected SEQUENCE/FRAME.png or FRAME.png")
    frames = {}
    for folder in sorted({path.parent.relative_to(maps_dir) for path in maps}):
        place = find_named(frames_dir, folder.name)
        if not place.is_dir():
            raise FileNotFoundError(f"{place}: no such folder; it should hold {maps_dir / folder}'s frames")
        frames[folder] = by_plain_name(list_images(place))
    found = {path: frames[path.parent.relative_to(maps_dir)].get(plain_name(path)) for path in sorted(maps)}
    pairs = [(path, frame) for path, frame in found.items() if frame is not None]
    missing = [str(path) for path, frame in found.items() if frame is None]
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
