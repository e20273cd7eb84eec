"""Saliency maps of videos or folders of frames: one 8-bit grey PNG per frame, at the frame's size, named after it.

  msst predict --input=video.mp4
  msst predict --model=saved_models/msst --input=video.mp4,frames/ --output_dir=maps --crf --overlay=overlay.mp4

Without --model the model that is installed with the package is used. The maps of an input go to OUTPUT_DIR/NAME, NAME
being its file or folder name; the overlay of a video file goes to OUTPUT_DIR/NAME.mp4. A folder of folders of frames
gives one sequence each. What is there already is not done again: whole sequences, and the frames of one that was interrupted.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
from pathlib import Path

from absl import flags

from msst_keras import cli
from msst_keras.tools._flags import define_crf

_MODEL = flags.DEFINE_string(
    "model", None, "Folder of a SavedModel: saved_models/NAME (the newest) or NAME/VERSION. By default the one that is "
    "installed with the package.",
)  # fmt: skip
_INPUT = flags.DEFINE_list(
    "input", None, "Video files, folders of frames, or folders of such folders, comma-separated."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "maps", "Folder for the maps.")
_CRF = flags.DEFINE_bool("crf", False, "Refine each map with the dense CRF, as the paper does in testing.")
_CRF_WORKERS = flags.DEFINE_integer(
    "crf_workers", 1, "Frames that the CRF refines at a time, beside the network; more where there are idle cores.", 1
)
_read_crf_flags = define_crf()
_THRESHOLD = flags.DEFINE_float("threshold", None, "Write masks (0 and 255) of the maps above it.", 0.0, 1.0)
_FLOW_DIR = flags.DEFINE_string("flow_dir", None, "FLOW_DIR/SEQUENCE/FRAME.flo, for a model made with such flow.")
_OVERLAY = flags.DEFINE_string(
    "overlay", "auto", "MP4 video of the frames with their maps laid over. auto: OUTPUT_DIR/NAME.mp4 for each "
    "input that is a video file; none: no such video.",
)  # fmt: skip
flags.mark_flag_as_required("input")


def main() -> None:
    """Streams each sequence through the model."""
    from msst_keras.data import datasets
    from msst_keras.inference.stream import SHIPPED_MODEL, SaliencyModel

    sequences = []
    for path in _INPUT.value:
        sequences += datasets.find_sequences("video" if Path(path).is_file() else "folder", path)
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the inputs have one name ({', '.join(sorted(names))}); predict them one by one")
    if _OVERLAY.value not in ("auto", "none") and len(sequences) > 1:
        raise ValueError(f"--overlay is for one video, and there are {len(sequences)}: {', '.join(names)}")
    _check_crf_flags()
    model = SaliencyModel(_MODEL.value or SHIPPED_MODEL)
    for sequence in sequences:
        output_dir, overlay_path = Path(_OUTPUT_DIR.value) / sequence.name, _overlay_path(sequence)
        if output_dir.exists() and (_OVERLAY.value in ("auto", "none") or overlay_path.exists()):
            print(f"{output_dir}: there already")
        elif output_dir.exists():
            raise ValueError(f"{output_dir} is there already, without {overlay_path}; choose another --output_dir")
        else:
            print(f"{output_dir}: {_predict(model, sequence, output_dir, overlay_path)} maps")
            if overlay_path:
                print(f"{overlay_path}: the video with its maps laid over")


def _overlay_path(sequence) -> Path | None:
    """Where the overlay of a sequence goes; None for none."""
    if _OVERLAY.value == "auto":
        return Path(_OUTPUT_DIR.value) / f"{sequence.name}.mp4" if sequence.video_path else None
    return None if _OVERLAY.value == "none" else Path(_OVERLAY.value)


def _check_crf_flags() -> None:
    """Refuses, before anything is written, wrong settings of the CRF, and settings of one that is off."""
    _read_crf_flags()
    given = [name for name in flags.FLAGS if name.startswith("crf_") and not flags.FLAGS[name].using_default_value]
    if given and not _CRF.value:
        raise ValueError(f"--{given[0]} is for the CRF, which is off: give --crf too")


def _predict(model, sequence, output_dir: Path, overlay_path: Path | None) -> int:
    """Writes the maps of a sequence; folder and overlay appear when they are whole. Returns how many maps."""
    from msst_keras.data import images
    from msst_keras.inference import overlay
    from msst_keras.progress import progress

    partial, start, num_done = _begin(model, sequence, output_dir, overlay_path)
    count = num_done
    with contextlib.ExitStack() as stack:
        video = None
        maps = itertools.islice(_make_maps(model, sequence, start), num_done - start, None)
        for name, frame, saliency in progress(maps, len(sequence) or None, sequence.name, initial=num_done):
            if overlay_path:
                if video is None:
                    writer = overlay.OverlayWriter(overlay_path, sequence.frame_rate, frame.shape[:2])
                    video = stack.enter_context(writer)
                video.write(overlay.overlay(frame, saliency))
            if _THRESHOLD.value is not None:
                saliency = (saliency > _THRESHOLD.value).astype("float32")
            images.write_map(partial / f"{name}.png", saliency)
            count += 1
    (partial / _FLAGS).unlink()
    partial.rename(output_dir)
    return count


_FLAGS = "flags.txt"


def _begin(model, sequence, output_dir: Path, overlay_path: Path | None) -> tuple[Path, int, int]:
    """The folder for maps until they are whole, the frame to start at, and how many an interrupted run has written.

    A map depends on its T frames and their flow, so the stream starts that much before the first missing map. Maps of
    other flags, or without the overlay that goes with them, are made again.
    """
    partial = output_dir.with_name(f".partial-{output_dir.name}")
    lines = [line for line in cli.flags_text(main).splitlines() if not line.startswith(("--input=", "--crf_workers="))]
    text = "\n".join([f"# {sequence.video_path or sequence.frame_paths[0].parent} {model.settings}", *lines])
    flags_path = partial / _FLAGS
    if overlay_path or not flags_path.is_file() or flags_path.read_text() != text:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        flags_path.write_text(text)
    for path in partial.glob(".*"):  # a map that was being written when the run was killed
        path.unlink()
    num_done = len(list(partial.glob("*.png")))
    motion = model.settings["motion"]
    margin = model.settings["num_frames"] - 1 + (motion["flow"]["stride"] if motion else 0)
    return partial, max(0, num_done - margin), num_done


def _make_maps(model, sequence, start: int):
    """Yields (name, frame, map) from the frame `start` on; the maps of the first T - 1 + `stride` need start 0."""
    from msst_keras.data.flow_files import read_flows
    from msst_keras.inference import crf
    from msst_keras.inference.parallel import map_in_order
    from msst_keras.inference.stream import stream_maps

    frames = ((name, frame) for name, _, frame in itertools.islice(sequence.read_frames(), start, None))
    flows = None
    if _FLOW_DIR.value:
        size = tuple(model.settings["motion"]["flow"]["motion_size"]) if model.settings["motion"] else (1, 1)
        flows = itertools.islice(read_flows(_FLOW_DIR.value, sequence.name, sequence.frame_names, size), start, None)
    maps = stream_maps(model, frames, flows)
    if not _CRF.value:
        return maps
    options, backend = _read_crf_flags()

    def refine(item):
        name, frame, saliency = item
        return name, frame, crf.refine(frame, saliency, options, backend)

    return map_in_order(refine, maps, _CRF_WORKERS.value)


if __name__ == "__main__":
    cli.run(main)
