"""Makes a folder of coarse labels from folders of several methods' maps.

  OUTPUT_DIR/sources/METHOD/SEQUENCE/FRAME.png   maps of the built-in methods
  OUTPUT_DIR/frames/SEQUENCE/FRAME.jpg           frames of video files, for the review and for `make_records`
  OUTPUT_DIR/labels/SEQUENCE/FRAME.png           the labels of the frames that have no mask
  OUTPUT_DIR/labels/frames.csv, weights.csv      how sure the labels are, and what each method counted

`labels` appears when everything in it is complete. Maps and frames are kept, so that an interrupted run can continue.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from msst_keras.data import file_names, images
from msst_keras.data.frame_numbers import by_number
from msst_keras.data.sequences import FileSequence
from msst_keras.files import publish
from msst_keras.labels import fusion
from msst_keras.labels.label_files import FRAMES_CSV, write_label, write_table
from msst_keras.labels.sources import Source
from msst_keras.progress import progress

WEIGHTS_CSV = "weights.csv"
PLAIN_MEAN, FUSED = "plain mean", "fused"


@dataclasses.dataclass(frozen=True)
class Fusion:
    """What `fuse_labels` did.

    Attributes:
      weights: method -> weight; their sum is 1.
      quality: method, PLAIN_MEAN and FUSED -> mean IoU of its labels with the given masks; empty without masks.
      num_labels: how many labels were written.
      num_masks: how many frames have a mask.
    """

    weights: dict[str, float]
    quality: dict[str, float]
    num_labels: int
    num_masks: int


def extract_frames(sequence: FileSequence, frames_dir: Path) -> FileSequence:
    """Extracts a video file to FRAMES_DIR/SEQUENCE/00000.jpg, ...; leaves a folder of frames as it is."""
    if sequence.video_path is None:
        return sequence
    folder = frames_dir / sequence.name
    if not folder.is_dir():
        with publish(folder) as partial:
            partial.mkdir()
            for name, encoded, _ in progress(sequence.read_frames(), len(sequence), f"frames of {sequence.name}"):
                (partial / f"{name}.jpg").write_bytes(encoded)
    frame_paths = by_number(file_names.list_images(folder)).values()  # as text, 100000 would come before 99999
    return FileSequence(sequence.name, tuple(frame_paths), frame_rate=sequence.frame_rate)


def make_maps(sequence: FileSequence, make: Source, folder: Path) -> None:
    """Writes the maps that a source (`sources.make_source`) makes of a sequence, unless they are there already."""
    target = folder / sequence.name
    if target.is_dir():
        return
    with publish(target) as partial:
        partial.mkdir()
        maps = make(frame for _, _, frame in sequence.read_frames())
        names = sequence.frame_names
        for name, saliency in zip(names, progress(maps, len(names), f"{folder.name} of {sequence.name}"), strict=True):
            images.write_map(partial / f"{name}.png", saliency)


def fuse_labels(
    sequences: Iterable[FileSequence], maps_dirs: Mapping[str, Path], labels_dir: Path, free_offset: bool = True
) -> Fusion:
    """Fuses the maps, fits the weights on the frames that have masks, and writes a label for each frame that has none.

    Args:
      sequences: folders of frames, some of which may have masks. Frames with a mask get no label.
      maps_dirs: method -> folder of its maps, SEQUENCE/FRAME.png, 8-bit grey. A map of another size is resized to the
        frame.
      labels_dir: the folder that is made.
      free_offset: see `fusion.WeightFit`.

    Raises:
      FileExistsError: `labels_dir` exists already.
      FileNotFoundError: a map is missing.
      ValueError: a map or mask cannot be read, a frame has two maps, or no map resembles the masks.
    """
    sequences = list(sequences)
    if labels_dir.exists():
        raise FileExistsError(f"{labels_dir}: labels are here already, reviewed perhaps; choose another folder")
    found = {(m, s.name): _find_maps(folder, s) for m, folder in maps_dirs.items() for s in sequences}
    for method, folder in maps_dirs.items():
        images.check_scale((path for s in sequences for path in found[method, s.name].values()), str(folder))
    weights = _fit(sequences, maps_dirs, found, free_offset)
    rows: list[dict[str, Any]] = []
    scores: list[list[float]] = []  # of each frame with a mask: IoU of the methods, of the plain mean, of the fused
    with publish(labels_dir) as partial:
        partial.mkdir()
        frames = [(sequence, index) for sequence in sequences for index in range(len(sequence))]
        for sequence, index in progress(frames, len(frames), "labels"):
            maps = _read_maps(sequence, index, maps_dirs, found)
            mask = sequence.read_mask(index)
            row, label, labels = _describe(maps, weights)
            names = {"sequence": sequence.name, "frame": sequence.frame_names[index]}
            if mask is None:
                write_label(partial / sequence.name / f"{sequence.frame_names[index]}.png", label)
                rows.append({**names, "kind": "coarse", "iou_with_mask": "", **row})
            else:
                mean = fusion.label_of(fusion.fuse(maps, np.full(len(maps), 1 / len(maps))))
                scores.append([fusion.intersection_over_union(x, mask) for x in (*labels, mean, label)])
                rows.append({**names, "kind": "fine", "iou_with_mask": scores[-1][-1], **row})
        means = np.mean(scores, axis=0).tolist() if scores else []
        done = Fusion(
            weights=dict(zip(maps_dirs, weights.tolist(), strict=True)),
            quality=dict(zip((*maps_dirs, PLAIN_MEAN, FUSED), means, strict=False)),
            num_labels=len(rows) - len(scores),
            num_masks=len(scores),
        )
        _write_tables(partial, rows, done.weights, done.quality)
    return done


def _find_maps(folder: Path, sequence: FileSequence) -> dict[str, Path]:
    """Frame name -> the file of its map; accents may be spelled otherwise (see `file_names.plain_name`)."""
    place = file_names.find_named(folder, sequence.name)
    if not place.is_dir():
        raise FileNotFoundError(f"{folder}: no folder '{sequence.name}' of maps here; expected SEQUENCE/FRAME.png")
    paths = file_names.by_plain_name(file_names.list_images(place))
    missing = [name for name in sequence.frame_names if file_names.compose(name) not in paths]
    if missing:
        raise FileNotFoundError(
            f"{place}: {len(missing)} of {len(sequence)} frames have no map (the first is {missing[0]}); a map is "
            "named as its frame"
        )
    return {name: paths[file_names.compose(name)] for name in sequence.frame_names}


def _read_maps(sequence: FileSequence, index: int, maps_dirs: Iterable[str], found: Mapping) -> np.ndarray:
    """The maps of a frame at its size, float32 (M, H, W)."""
    height, width = images.read_image_size(sequence.frame_paths[index])
    name = sequence.frame_names[index]
    maps = (images.read_map(found[method, sequence.name][name]) for method in maps_dirs)
    return np.stack([m if m.shape == (height, width) else cv2.resize(m, (width, height)) for m in maps])


def _fit(sequences: list[FileSequence], maps_dirs: Mapping[str, Path], found: Mapping, free_offset: bool) -> np.ndarray:
    fit = fusion.WeightFit(len(maps_dirs), free_offset)
    annotated = [(sequence, index) for sequence in sequences for index in sorted(sequence.mask_paths)]
    for sequence, index in progress(annotated, len(annotated), "weights"):
        mask = sequence.read_mask(index)
        if mask is not None:
            fit.add(_read_maps(sequence, index, maps_dirs, found), mask)
    return fit.solve()


def _describe(maps: np.ndarray, weights: np.ndarray) -> tuple[dict[str, float], np.ndarray, list[np.ndarray]]:
    """A frame's numbers for the table, its fused label, and each method's own label.

    The confidence in a label is its methods' agreement times the fused map's separability. On 78 frames of 27
    DAVIS-2016 training sequences its rank correlation with the label's IoU is .74 for the plain mean of the three image
    methods (agreement alone .72, separability alone .67) and .39 for their fitted weights (.33, .44).
    """
    levels = fusion.fuse(maps, weights)
    threshold, separability = fusion.otsu(levels)
    label = levels > threshold
    labels = [fusion.label_of(np.rint(255 * m).astype(np.uint8)) for m in maps]
    agreement = fusion.agreement(labels, label, weights)
    row = {"confidence": agreement * separability, "agreement": agreement, "separability": separability}
    row |= {"threshold": threshold, "area": float(label.mean())}
    return row, label, labels


def _write_tables(
    folder: Path, rows: list[dict[str, Any]], weights: dict[str, float], quality: dict[str, float]
) -> None:
    """Writes the frames' table, labels before masks and the most doubtful labels first, and the methods' table."""
    rows = sorted(rows, key=lambda row: (row["kind"] == "fine", row["confidence"]))
    numbers = (
        {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
    )
    columns = {f"weight_{method}": f"{weight:.6g}" for method, weight in weights.items()}
    write_table(folder / FRAMES_CSV, ({**row, **columns} for row in numbers))
    methods = itertools.chain(weights, (PLAIN_MEAN, FUSED))
    write_table(
        folder / WEIGHTS_CSV,
        ({"method": m, "weight": weights.get(m, ""), "iou_with_masks": quality.get(m, "")} for m in methods),
    )


def clear_partial(output_dir: Path) -> None:
    """Removes what an interrupted run has left unfinished."""
    for path in (*output_dir.glob(".partial-*"), *output_dir.glob("*/.partial-*"), *output_dir.glob("*/*/.partial-*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
