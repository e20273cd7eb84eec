"""Refines folders of saliency maps, of any method, with the dense CRF.

  msst refine --maps=maps --frames=DAVIS/JPEGImages/480p --output_dir=maps_crf

MAPS/SEQUENCE/FRAME.png goes with FRAMES/SEQUENCE/FRAME.jpg (or another image file of that name) and becomes
OUTPUT_DIR/SEQUENCE/FRAME.png; folders without the level SEQUENCE work too. Only frames that have a map are looked at.
Started again, it goes on where it was.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.processes import count_cores
from msst_keras.tools._flags import define_crf

_MAPS = flags.DEFINE_string("maps", None, "Folder of the maps, 8-bit grey PNGs.")
_FRAMES = flags.DEFINE_string("frames", None, "Folder of their frames.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for the refined maps.")
_NUM_WORKERS = flags.DEFINE_integer("num_workers", None, "Frames at a time; by default one per core.", lower_bound=1)
_read_crf_flags = define_crf()
flags.mark_flags_as_required(["maps", "frames", "output_dir"])

_SETTINGS = "crf.json"


def main() -> None:
    """Pairs maps and frames, checks their sizes, then refines what is not there yet."""
    from msst_keras.inference.parallel import map_in_order
    from msst_keras.progress import progress

    options, backend = _read_crf_flags()
    maps_dir, output_dir = Path(_MAPS.value), Path(_OUTPUT_DIR.value)
    if output_dir.resolve() == maps_dir.resolve():
        raise ValueError(f"--output_dir is the folder of the maps, {maps_dir}; the refined maps need one of their own")
    pairs = _pair(maps_dir, Path(_FRAMES.value))
    _check_sizes(pairs)
    _keep_settings(output_dir, {**dataclasses.asdict(options), "maps": str(maps_dir.resolve())})
    todo = [pair for pair in pairs if not (output_dir / pair[0].relative_to(maps_dir)).exists()]

    def refine(pair: tuple[Path, Path]) -> None:
        _refine(*pair, output_dir / pair[0].relative_to(maps_dir), options, backend)

    done = map_in_order(refine, todo, _NUM_WORKERS.value or count_cores())
    for _ in progress(done, len(pairs), str(output_dir), initial=len(pairs) - len(todo)):
        pass
    print(f"{output_dir}: {len(todo)} maps refined, {len(pairs) - len(todo)} were there already")


def _pair(maps_dir: Path, frames_dir: Path) -> list[tuple[Path, Path]]:
    """(map, its frame) of every map, in order."""
    from msst_keras.data.layouts import list_images

    for folder, what in ((maps_dir, "maps"), (frames_dir, "frames")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of {what}")
    maps = sorted(path for pattern in ("[!.]*.png", "[!.]*/[!.]*.png") for path in maps_dir.glob(pattern))
    if not maps:
        raise ValueError(f"{maps_dir}: no maps here; expected SEQUENCE/FRAME.png or FRAME.png")
    frames = {}
    for folder in sorted({path.parent.relative_to(maps_dir) for path in maps}):
        if not (frames_dir / folder).is_dir():
            raise FileNotFoundError(
                f"{frames_dir / folder}: no such folder; it should hold {maps_dir / folder}'s frames"
            )
        frames[folder] = {path.stem: path for path in list_images(frames_dir / folder)}
    pairs = [(path, frames[path.parent.relative_to(maps_dir)].get(path.stem)) for path in maps]
    missing = [str(path) for path, frame in pairs if frame is None]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(maps)} maps have no frame of their name in {frames_dir}: {', '.join(missing[:5])}"
            + ", ..." * (len(missing) > 5)
        )
    return pairs


def _check_sizes(pairs: list[tuple[Path, Path]]) -> None:
    """Reads the headers of all files before the first minute of work."""
    from msst_keras.data.images import read_image_size

    for map_path, frame_path in pairs:
        map_size, frame_size = read_image_size(map_path), read_image_size(frame_path)
        if map_size != frame_size:
            raise ValueError(
                f"{map_path}: this map is {map_size[0]}x{map_size[1]}, but its frame {frame_path} is "
                f"{frame_size[0]}x{frame_size[1]}; bring them to one size"
            )


def _keep_settings(output_dir: Path, settings: dict) -> None:
    """Writes what the folder is made with; refuses to go on with anything else."""
    from msst_keras.files import DifferentSettingsError, remember

    path = output_dir / _SETTINGS
    if not path.is_file() and output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} holds files that `msst refine` did not write; choose another --output_dir")
    try:
        remember(path, settings, indent=2)
    except DifferentSettingsError as error:
        differing = ", ".join(f"{name} {error.found.get(name)}" for name in error.keys)
        raise ValueError(f"{output_dir} holds maps made with {differing}; choose another --output_dir") from None


def _refine(map_path: Path, frame_path: Path, output_path: Path, options, backend: str) -> None:
    from msst_keras.data import images
    from msst_keras.inference import crf

    refined = crf.refine(images.read_frame(frame_path), images.read_map(map_path), options, backend)
    images.write_map(output_path, refined)


if __name__ == "__main__":
    cli.run(main)
