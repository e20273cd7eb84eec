"""Saliency maps of videos or folders of frames; `msst predict`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np

from msst_keras.data import datasets, file_names, images
from msst_keras.data.flow_files import read_flows
from msst_keras.data.sequences import FileSequence
from msst_keras.files import hash_files, hash_folder
from msst_keras.inference import SHIPPED_MODEL, crf, temporal_filter
from msst_keras.inference import overlay as overlays
from msst_keras.inference.options import PredictOptions
from msst_keras.inference.parallel import map_in_order
from msst_keras.inference.stream import SaliencyModel, stream_maps
from msst_keras.jobs.map_folder import check_free, open_map_folder
from msst_keras.motion.flow import FlowSettings
from msst_keras.options import remembered_values
from msst_keras.outputs import check_apart
from msst_keras.progress import progress
from msst_keras.serving.client import RemoteModel

Model = SaliencyModel | RemoteModel  # here, or on a server
Made = tuple[tuple[str, float], np.ndarray, np.ndarray]  # (name, seconds), frame, map


def predict(options: PredictOptions) -> dict[str, Path]:
    """Streams each sequence through the model; the maps of one that are there already are not made again.

    Returns:
      name of each sequence -> the folder of its maps, 8-bit grey PNGs of the frames' size, named after them.

    Raises:
      ValueError, FileNotFoundError: inputs, model and options that do not fit each other.
    """
    sequences = _find_sequences(options)
    _check_outputs(options, sequences)
    options.dense_crf.settings()  # wrong settings are refused before anything is written
    model = _open_model(options)
    check_free(Path(options.output_dir) / sequence.name for sequence in sequences)
    folders = {}
    for sequence in sequences:
        folder, overlay = Path(options.output_dir) / sequence.name, _overlay_path(options, sequence)
        folders[sequence.name] = folder
        count = _predict_sequence(options, model, sequence, folder, overlay)
        print(f"{folder}: there already" if count is None else f"{folder}: {count} maps")
        if overlay and count is not None:
            print(f"{overlay}: the video with its maps laid over")
    return folders


def _open_model(options: PredictOptions) -> Model:
    if options.server is None:
        return SaliencyModel(options.model or SHIPPED_MODEL)
    return RemoteModel(options.server, options.model_name, timeout=options.timeout, frame_quality=options.frame_quality)


def _find_sequences(options: PredictOptions) -> list[FileSequence]:
    sequences = []
    for path in options.input:
        sequences += datasets.find_sequences("video" if Path(path).is_file() else "folder", path)
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        listed = ", ".join(sorted(names))
        raise ValueError(f"two of the inputs have one name ({listed}); predict each into its own --output_dir")
    if options.overlay not in ("auto", "none") and len(sequences) > 1:
        raise ValueError(f"--overlay is for one video, and there are {len(sequences)}: {', '.join(names)}")
    return sequences


def _check_outputs(options: PredictOptions, sequences: list[FileSequence]) -> None:
    """Refuses maps and overlays that would land among the frames, or in place of a video, that they are made of.

    An overlay may not land among the maps either.
    """
    folders = [Path(options.output_dir) / sequence.name for sequence in sequences]
    inputs = {path.parent for sequence in sequences for path in sequence.frame_paths}
    inputs |= {sequence.video_path for sequence in sequences if sequence.video_path}
    for sequence in sequences:
        overlay = _overlay_path(options, sequence)
        for output in (Path(options.output_dir) / sequence.name, *([overlay] if overlay else [])):
            check_apart(output, inputs)
        for folder in folders:
            if overlay and overlay.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"--overlay={overlay} would land in {folder}, which is for maps alone; choose another")


def _overlay_path(options: PredictOptions, sequence: FileSequence) -> Path | None:
    """Where the overlay of a sequence goes; None for none."""
    if options.overlay == "auto":
        return Path(options.output_dir) / f"{sequence.name}.mp4" if sequence.video_path else None
    return None if options.overlay == "none" else Path(options.overlay)


def _predict_sequence(
    options: PredictOptions, model: Model, sequence: FileSequence, folder: Path, overlay: Path | None
) -> int | None:
    """Writes the maps of a sequence; folder and overlay appear when they are whole. Returns how many maps, or None."""
    made_from = _describe(options, model, sequence)
    # An overlay shows maps as they were before a threshold, so it cannot be made of files that are behind one.
    is_kept = overlay is None or options.threshold is None
    with open_map_folder(folder, made_from, overlay, options.overwrite, is_kept) as begun:
        if begun is None:
            return None
        return _write_maps(options, model, sequence, *begun, overlay)


def _write_maps(
    options: PredictOptions,
    model: Model,
    sequence: FileSequence,
    partial: Path,
    num_done: int,
    remember: Callable[[Path], None],
    overlay: Path | None,
) -> int:
    """Writes the maps that come after the first `num_done`, and the overlay of all; returns how many maps there are.

    `remember` is called with the overlay before it gets its name; see `open_map_folder`.
    """
    start = _find_start(model, num_done)
    count = first = 0 if overlay else num_done
    with contextlib.ExitStack() as stack:
        done = stack.enter_context(contextlib.closing(_read_done(sequence, partial, num_done - first)))
        maps = stack.enter_context(contextlib.closing(_make_maps(options, model, sequence, start)))
        wanted = itertools.chain(done, itertools.islice(maps, num_done - start, None))
        video = None
        for (name, seconds), frame, saliency in progress(wanted, len(sequence) or None, sequence.name, initial=first):
            if overlay:
                if video is None:
                    rate, aspect = sequence.frame_rate, sequence.sample_aspect
                    writer = overlays.OverlayWriter(overlay, rate, frame.shape[:2], aspect, remember)
                    video = stack.enter_context(writer)
                video.write(overlays.overlay(frame, saliency), seconds)
            count += 1
            if count <= num_done:
                continue
            if options.threshold is not None:
                saliency = (saliency > options.threshold).astype(np.float32)
            images.write_map(partial / f"{name}.png", saliency)
    return count


def _read_done(sequence: FileSequence, partial: Path, num_maps: int) -> Generator[Made, None, None]:
    """Yields the first frames with the maps that an earlier run has written of them."""
    if num_maps == 0:
        return
    with contextlib.closing(sequence.read_images()) as frames:
        for name, frame, seconds in itertools.islice(frames, num_maps):
            yield (name, seconds), frame, images.read_map(partial / f"{name}.png")


def _describe(options: PredictOptions, model: Model, sequence: FileSequence) -> dict:
    """All that the maps of a sequence are made from."""
    # A frame's name is its map's; a video's name is that of the folder alone.
    content = hash_files({"video": sequence.video_path} if sequence.video_path else sequence.frame_paths)
    made_from = {"input": content, "model": model.identify()}
    if options.flow_dir:
        made_from["flow_dir"] = hash_folder(file_names.find_named(Path(options.flow_dir), sequence.name))
    remembered = remembered_values(options)
    if options.server is None:  # nobody is sent a frame
        del remembered["frame_quality"]
    return made_from | remembered


def _find_start(model: Model, num_done: int) -> int:
    """The frame to start at when so many maps are there: a map depends on its T frames, their flow, and maps before."""
    margin = model.settings["num_frames"] - 1 + (model.motion.flow_settings.stride if model.motion else 0)
    margin += temporal_filter.MAX_BEFORE
    return max(0, num_done - margin)


def _make_maps(
    options: PredictOptions, model: Model, sequence: FileSequence, start: int
) -> Generator[Made, None, None]:
    """Yields ((name, seconds), frame, map) from frame `start` on; `_find_start` says which maps are right.

    Threads read ahead, so whoever stops before the end closes this generator.
    """
    read = itertools.islice(sequence.read_images(), start, None)
    frames = (((name, seconds), frame) for name, frame, seconds in read)
    flows = None
    if options.flow_dir:
        flow = model.motion.flow_settings if model.motion else FlowSettings()
        given = read_flows(options.flow_dir, sequence.name, sequence.frame_names, flow.motion_size, flow.stride)
        flows = itertools.islice(given, start, None)
    ahead = temporal_filter.LOOK_AHEAD if options.look_ahead is None else options.look_ahead
    maps = stream_maps(
        model, frames, flows, mirror=options.mirror, alternate_mirror=options.alternate_mirror,
        temporal_filter=options.temporal_filter, look_ahead=ahead, first=start,
    )  # fmt: skip
    if not options.crf:
        return maps
    settings, backend = options.dense_crf.settings(), options.dense_crf.backend

    def refine(item: Made) -> Made:
        """Puts the refined map in place of the map."""
        name, frame, saliency = item
        return name, frame, crf.refine(frame, saliency, settings, backend)

    return _refine_maps(refine, maps, options.crf_workers)


def _refine_maps(
    refine: Callable[[Made], Made], maps: Generator[Made, None, None], num_workers: int
) -> Generator[Made, None, None]:
    with contextlib.closing(maps):
        yield from map_in_order(refine, maps, num_workers)
