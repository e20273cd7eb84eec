"""Which clips there are in record folders, and where on disk each of them lies."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf

from msst_keras.records.example import LABEL_KINDS, check_images
from msst_keras.records.folders import read_manifests
from msst_keras.records.manifest import check_motion
from msst_keras.records.shard_files import scan_shard


@dataclasses.dataclass(frozen=True)
class ClipIndex:
    """Every clip of T frames that ends on a labelled frame, by where it lies on disk.

    The first frames of a sequence have fewer than T - 1 before them: the first one is repeated, as in inference.

    Attributes:
      paths: the shards.
      path_ids, offsets: int64 (N,), the shard of each clip and the byte offset of its first stored frame.
      counts: int64 (N,), how many frames it stores; T - count repetitions of the first are put before them.
      names: "sequence/index" of the labelled frame, for messages.
      label_kinds: "fine" or "coarse", of each clip's label.
      motion: the manifests' "motion" (flow, superpixels, prior); None when clips have no prior.
      flow_stored: whether all of their records hold flow.
    """

    paths: tuple[str, ...]
    path_ids: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]
    label_kinds: tuple[str, ...]
    motion: dict | None
    flow_stored: bool

    def __len__(self) -> int:
        return len(self.offsets)


def find_record_folders(patterns: Sequence[str]) -> list[str]:
    """The record folders that the glob patterns name, each once, in order.

    Raises:
      FileNotFoundError: a pattern that matches no folder.
    """
    folders = []
    for pattern in patterns:
        matches = sorted(path for path in tf.io.gfile.glob(pattern.rstrip("/")) if tf.io.gfile.isdir(path))
        if not matches:
            raise FileNotFoundError(f"{pattern}: no record folder matches; `msst make_records` writes one")
        folders += [path for path in matches if path not in folders]
    return folders


def index_clips(
    folders: Sequence[str],
    num_frames: int,
    with_prior: bool,
    label_kinds: Collection[str] = LABEL_KINDS,
) -> ClipIndex:
    """Lists the clips of `num_frames` (T) frames in the record folders, in a fixed order.

    Clips whose label is of another kind than `label_kinds` are left out.

    Raises:
      ValueError: as `read_manifests`; no labelled frame; with a prior, folders that have none or priors made in
        different ways.
      FileNotFoundError: as `read_manifests`.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    manifests = read_manifests(folders)
    motion = _common(manifests, ("flow", "superpixels", "prior")) if with_prior else None
    if motion and motion["prior"]["kind"] == "none":
        raise ValueError(f"{folders[0]} holds no motion prior, which this variant needs; make it again with --prior")
    return _index(manifests, num_frames, motion, label_kinds)


def index_flow(folders: Sequence[str]) -> tuple[ClipIndex, dict]:
    """Lists the labelled frames of record folders that hold flow, for `flow_batches`.

    Returns:
      the frames, and the settings that their flow was made with.

    Raises:
      ValueError: as `read_manifests`; no labelled frame; folders without flow or with flow made in different ways.
      FileNotFoundError: as `read_manifests`.
    """
    manifests = read_manifests(folders)
    for folder, manifest in manifests.items():
        if not check_motion(manifest, folder)["flow_stored"]:
            raise ValueError(f"{folder} holds no flow; make it again with --store_flow")
    return _index(manifests, 1, None), _common(manifests, ("flow",))["flow"]


def find_damage(index: ClipIndex) -> str | None:
    """Reads the shards of an index one by one; the sentence about the first record that is damaged, None if none is."""
    for path in index.paths:
        try:
            for offset, record in scan_shard(path):
                check_images(record, f"{path} at byte {offset}, frame {record.index} of '{record.sequence}'")
        except (ValueError, OSError) as error:
            return str(error)
    return None


def _index(
    manifests: dict, num_frames: int, motion: dict | None, label_kinds: Collection[str] = LABEL_KINDS
) -> ClipIndex:
    paths, path_ids, offsets, counts, names, kinds = [], [], [], [], [], []
    for folder, manifest in manifests.items():
        for name, sequence in manifest["sequences"].items():
            for frame, kind in sequence["labelled"].items():
                if kind not in label_kinds:
                    continue
                frame = int(frame)
                first = max(0, frame - num_frames + 1)
                path_ids.append(len(paths) + sequence["shard"])
                offsets.append(sequence["offsets"][first])
                counts.append(frame - first + 1)
                names.append(f"{name}/{frame}")
                kinds.append(kind)
        paths += [f"{folder}/{shard['name']}" for shard in manifest["shards"]]
    if not offsets:
        kinds = "" if set(label_kinds) == set(LABEL_KINDS) else " or ".join(label_kinds) + " "
        raise ValueError(f"{', '.join(manifests)}: no frame has a {kinds}label, so there is nothing to learn from")
    arrays = (np.asarray(values, np.int64) for values in (path_ids, offsets, counts))
    flow_stored = all(manifest["motion"].get("flow_stored", False) for manifest in manifests.values())
    return ClipIndex(tuple(paths), *arrays, tuple(names), tuple(kinds), motion, flow_stored)


def _common(manifests: dict, keys: tuple[str, ...]) -> dict:
    """What all manifests say of their motion under `keys`."""
    motions = {folder: check_motion(manifest, folder) for folder, manifest in manifests.items()}
    found = {folder: {key: motion[key] for key in keys} for folder, motion in motions.items()}
    first, *others = found
    for folder in others:
        if found[folder] != found[first]:
            raise ValueError(
                f"{folder} was made with other motion settings ({found[folder]}) than {first} ({found[first]}); "
                "make all records with the same flow and prior"
            )
    return found[first]
