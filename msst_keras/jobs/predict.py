"""Saliency maps of videos or folders of frames; `msst predict`."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from msst_keras.data import datasets, images
from msst_keras.data.flow_files import read_flows
from msst_keras.inference import SHIPPED_MODEL, crf
from msst_keras.inference import overlay as overlays
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.parallel import map_in_order
from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.options import write_flags
from msst_keras.progress import progress
from msst_keras.serving.client import RemoteModel

_FLAGS = "flags.txt"  # in a folder of maps as long as it is not whole
_OF_NO_MAP = ("input", "crf_workers", "timeout")  # the options that a map does not depend on


def predict(options: PredictOptions) -> dict[str, Path]:
    """Streams each sequence through the model; the maps of one that are there already are not made again.

    Returns:
      name of each sequence -> the folder of its maps, 8-bit grey PNGs of the frames' size, named after them.

    Raises:
      ValueError, FileNotFoundError: inputs, model and options that do not fit each other.
    """
    sequences = _find_sequences(options)
    options.dense_crf.settings()  # wrong settings are refused before anything is written
    model = _open_model(options)
    folders = {}
    for sequence in sequences:
        folder, overlay = Path(options.output_dir) / sequence.name, _overlay_path(options, sequence)
        folders[sequence.name] = folder
        if folder.exists() and (options.overlay in ("auto", "none") or overlay.exists()):
            print(f"{folder}: there already")
        elif folder.exists():
            raise ValueError(f"{folder} is there already, without {overlay}; choose another --output_dir")
        else:
            print(f"{folder}: {_predict_sequence(options, model, sequence, folder, overlay)} maps")
            if overlay:
                print(f"{overlay}: the video with its maps laid over")
    return folders


def _open_model(options: PredictOptions) -> SaliencyModel | RemoteModel:
    if options.server is None:
        return SaliencyModel(options.model or SHIPPED_MODEL)
    return RemoteModel(
        options.server, options.model_name, timeout=options.timeout, frame_quality=options.frame_quality
    )


def _find_sequences(options: PredictOptions) -> list[datasets.Sequence]:
    sequences = []
    for path in options.input:
        sequences += datasets.find_sequences("video" if Path(path).is_file() else "folder", path)
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        raise ValueError(f"two of the inputs have one name ({', '.join(sorted(names))}); predict them one by one")
    if options.overlay not in ("auto", "none") and len(sequences) > 1:
        raise ValueError(f"--overlay is for one video, and there are {len(sequences)}: {', '.join(names)}")
    return sequences


def _overlay_path(options: PredictOptions, sequence: datasets.Sequence) -> Path | None:
    """Where the overlay of a sequence goes; None for none."""
    if options.overlay == "auto":
        return Path(options.output_dir) / f"{sequence.name}.mp4" if sequence.video_path else None
    return None if options.overlay == "none" else Path(options.overlay)


def _predict_sequence(
    options: PredictOptions, model: SaliencyModel, sequence: datasets.Sequence, folder: Path, overlay: Path | None
) -> int:
    """Writes the maps of a sequence; folder and overlay appear when they are whole. Returns how many maps."""
    partial, start, num_done = _begin(options, model, sequence, folder, overlay)
    count = num_done
    with contextlib.ExitStack() as stack:
        video = None
        maps = itertools.islice(_make_maps(options, model, sequence, start), num_done - start, None)
        for name, frame, saliency in progress(maps, len(sequence) or None, sequence.name, initial=num_done):
            if overlay:
                if video is None:
                    writer = overlays.OverlayWriter(overlay, sequence.frame_rate, frame.shape[:2])
                    video = stack.enter_context(writer)
                video.write(overlays.overlay(frame, saliency))
            if options.threshold is not None:
                saliency = (saliency > options.threshold).astype(np.float32)
            images.write_map(partial / f"{name}.png", saliency)
            count += 1
    (partial / _FLAGS).unlink()
    partial.rename(folder)
    return count


def _begin(
    options: PredictOptions, model: SaliencyModel, sequence: datasets.Sequence, folder: Path, overlay: Path | None
) -> tuple[Path, int, int]:
    """The folder for maps until they are whole, the frame to start at, and how many an interrupted run has written.

    A map depends on its T frames and their flow, so the stream starts that much before the first missing map. Maps of
    other options, or without the overlay that goes with them, are made again.
    """
    partial = folder.with_name(f".partial-{folder.name}")
    source = sequence.video_path or sequence.frame_paths[0].parent
    text = f"# {source} {model.settings}\n{write_flags(options, leave_out=_OF_NO_MAP)}"
    flags_path = partial / _FLAGS
    if overlay or not flags_path.is_file() or flags_path.read_text() != text:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        flags_path.write_text(text)
    for path in partial.glob(".*"):  # a map that was being written when the run was killed
        path.unlink()
    num_done = len(list(partial.glob("*.png")))
    margin = model.settings["num_frames"] - 1 + (model.motion.flow_settings.stride if model.motion else 0)
    return partial, max(0, num_done - margin), num_done


def _make_maps(
    options: PredictOptions, model: SaliencyModel, sequence: datasets.Sequence, start: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields (name, frame, map) from the frame `start` on; the maps of the first T - 1 + `stride` need start 0."""
    frames = ((name, frame) for name, _, frame in itertools.islice(sequence.read_frames(), start, None))
    flows = None
    if options.flow_dir:
        size = model.motion.flow_settings.motion_size if model.motion else (1, 1)
        flows = itertools.islice(read_flows(options.flow_dir, sequence.name, sequence.frame_names, size), start, None)
    maps = stream_maps(model, frames, flows)
    if not options.crf:
        return maps
    settings, backend = options.dense_crf.settings(), options.dense_crf.backend

    def refine(item):
        name, frame, saliency = item
        return name, frame, crf.refine(frame, saliency, settings, backend)

    return map_in_order(refine, maps, options.crf_workers)
