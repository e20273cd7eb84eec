"""Which clips there are in record folders, and where on disk each of them is."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from msst_keras.motion.settings import FLOW, NO_PRIOR, SCALED_AWAY, MotionSettings
from msst_keras.records.example import check_images
from msst_keras.records.folders import read_manifests
from msst_keras.records.manifest import check_motion
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import scan_shard


@dataclasses.dataclass(frozen=True)
class ClipIndex:
    """Every clip of T frames that ends on a labelled frame, and its place on disk.

    The first frames of a sequence have fewer than T - 1 frames before them. There the first frame is repeated, as in
    inference.

    Attributes:
      paths: the shards.
      path_ids, offsets: int64 (N,), the shard of each clip and the byte offset of its first stored frame.
      counts: int64 (N,), how many frames of each clip are stored; the first is repeated T - count times before them.
      names: "sequence/index" of the labelled frame, for messages.
      label_kinds: "fine" or "coarse" for each clip's label.
      motion: how the motion of all clips was made; None if clips have no prior.
      flow_stored: whether all of their records hold flow.
      groups: for each group of clips, in order, how many clips it has, and its share of every batch.
      motion_size: (h, w) of all stored flow and priors; None where records do not say it, or not the same.
    """

    paths: tuple[str, ...]
    path_ids: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]
    label_kinds: tuple[str, ...]
    motion: MotionSettings | None
    flow_stored: bool
    groups: tuple[tuple[int, int], ...]
    motion_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.offsets)


def find_record_folders(patterns: Sequence[str]) -> list[str]:
    """The record folders that the glob patterns name, each once, in order; a folder that is there is no pattern.

    Raises:
      FileNotFoundError: a pattern matches no folder.
    """
    folders: list[str] = []
    for pattern in patterns:
        name = pattern.rstrip("/")
        is_folder = tf.io.gfile.isdir(name)
        matches = [name] if is_folder else sorted(path for path in tf.io.gfile.glob(name) if tf.io.gfile.isdir(path))
        if not matches:
            raise FileNotFoundError(f"{pattern}: no record folder matches; `msst make_records` writes one")
        folders += [path for path in matches if path not in folders]
    return folders


def find_record_groups(patterns: Sequence[str]) -> dict[tuple[str, ...], int]:
    """The record folders that patterns name, and their shares: "stills:3", "video:1" are 3 of 4 and 1 of 4 examples.

    Without any share all folders are one group, in which every clip counts equally. If any pattern has a share, each
    pattern is a group, and a pattern without a share has share 1.

    Raises:
      FileNotFoundError: a pattern matches no folder.
      ValueError: a share is 0, or two patterns name the same folder.
    """
    split = [_split_share(pattern) for pattern in patterns]
    if not any(share for _, share in split):
        return {tuple(find_record_folders(patterns)): 1}
    groups: dict[tuple[str, ...], int] = {}
    seen: set[str] = set()
    for pattern, share in split:
        folders = tuple(find_record_folders([pattern]))
        if share is not None and not int(share):
            raise ValueError(f"{pattern}:{share}: a share must be 1 or more; leave out the folder for none")
        if twice := seen.intersection(folders):
            raise ValueError(f"{min(twice)} is in two groups; name each folder once")
        seen.update(folders)
        groups[folders] = int(share or 1)
    return groups


def _split_share(pattern: str) -> tuple[str, str | None]:
    """A pattern and its share; None if it has none."""
    pattern_alone, colon, share = pattern.rpartition(":")
    if tf.io.gfile.isdir(pattern):  # such as "2024-05-01 12:30"
        return pattern, None
    return (pattern_alone, share) if colon and share.isdecimal() else (pattern, None)


def index_groups(
    groups: Mapping[tuple[str, ...], int],
    num_frames: int,
    with_prior: bool,
    label_kinds: Collection[str] = LABEL_KINDS,
) -> ClipIndex:
    """`index_clips` of the folders of groups (see `find_record_groups`), with the groups' shares.

    Raises:
      ValueError, FileNotFoundError: see `index_clips`; or a group has no labelled frame.
    """
    index = index_clips([folder for folders in groups for folder in folders], num_frames, with_prior, label_kinds)
    if len(groups) == 1:
        return index
    places = np.asarray([path.rpartition("/")[0] for path in index.paths])[index.path_ids]
    counts = [int(np.isin(places, folders).sum()) for folders in groups]
    if not all(counts):
        empty = list(groups)[counts.index(0)]
        raise ValueError(f"{', '.join(empty)}: no labelled frame, so there is nothing to mix in")
    return dataclasses.replace(index, groups=tuple(zip(counts, groups.values(), strict=True)))


def index_clips(
    folders: Sequence[str],
    num_frames: int,
    with_prior: bool,
    label_kinds: Collection[str] = LABEL_KINDS,
) -> ClipIndex:
    """Lists the clips of `num_frames` (T) frames in the record folders, in a fixed order.

    Clips with labels of other kinds than `label_kinds` are left out.

    Raises:
      ValueError: see `read_manifests`; or there is no labelled frame; or, with a prior, folders have no prior or priors
        that were made in different ways.
      FileNotFoundError: see `read_manifests`.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    manifests = read_manifests(folders)
    motion = _find_common(manifests, ("flow", "superpixels", "prior")) if with_prior else None
    if motion and motion.prior.kind == NO_PRIOR:
        raise ValueError(f"{folders[0]} holds no motion prior, which this variant needs; make it again with --prior")
    return _index(manifests, num_frames, motion, label_kinds)


def index_flow(folders: Sequence[str], label_kinds: Collection[str] = LABEL_KINDS) -> tuple[ClipIndex, dict[str, Any]]:
    """Lists the frames of record folders that hold flow and have a label of these kinds, for `flow_batches`.

    Returns:
      the frames, and the settings that their flow was made with.

    Raises:
      ValueError: see `read_manifests`; or there is no labelled frame; or folders have no flow, or flow that was made in
        different ways.
      FileNotFoundError: see `read_manifests`.
    """
    manifests = read_manifests(folders)
    for folder, manifest in manifests.items():
        if not check_motion(manifest, folder).flow_stored:
            raise ValueError(f"{folder} holds no flow; make it again with --store_flow")
    return _index(manifests, 1, None, label_kinds), _find_common(manifests, ("flow",)).flow


def find_damage(index: ClipIndex) -> str | None:
    """Reads all shards of an index; returns the sentence about the first damaged record, or None if none is damaged."""
    for path in index.paths:
        try:
            for offset, record in scan_shard(path):
                check_images(record, f"{path} at byte {offset}, frame {record.index} of '{record.sequence}'")
        except (ValueError, OSError) as error:
            return str(error)
    return None


def _index(
    manifests: dict[str, dict[str, Any]],
    num_frames: int,
    motion: MotionSettings | None,
    label_kinds: Collection[str] = LABEL_KINDS,
) -> ClipIndex:
    paths: list[str] = []
    names: list[str] = []
    kinds: list[str] = []
    places: list[tuple[int, int, int]] = []  # shard, offset and count of each clip
    for folder, manifest in manifests.items():
        for name, sequence in manifest["sequences"].items():
            for frame, kind in sequence["labelled"].items():
                if kind not in label_kinds:
                    continue
                frame = int(frame)
                first = max(0, frame - num_frames + 1)
                places.append((len(paths) + sequence["shard"], sequence["offsets"][first], frame - first + 1))
                names.append(f"{name}/{frame}")
                kinds.append(kind)
        paths += [f"{folder}/{shard['name']}" for shard in manifest["shards"]]
    if not places:
        wanted = "" if set(label_kinds) == set(LABEL_KINDS) else " or ".join(label_kinds) + " "
        raise ValueError(f"{', '.join(manifests)}: no frame has a {wanted}label, so there is nothing to learn from")
    path_ids, offsets, counts = np.ascontiguousarray(np.asarray(places, np.int64).T)
    flow_stored = all(manifest["motion"].get("flow_stored", False) for manifest in manifests.values())
    sizes = {tuple(manifest["motion"].get("flow", {}).get("motion_size", ())) for manifest in manifests.values()}
    return ClipIndex(
        tuple(paths), path_ids, offsets, counts, tuple(names), tuple(kinds), motion, flow_stored, ((len(names), 1),),
        next(iter(sizes)) if len(sizes) == 1 and () not in sizes else None,
    )  # fmt: skip


def _find_common(manifests: dict[str, dict[str, Any]], parts: tuple[str, ...]) -> MotionSettings:
    """How the motion of all manifests was made, as the first says; `parts` of the settings must be the same in all.

    If the prior is flow as an image, the folders' flow may differ in SCALED_AWAY. The first folder's settings are then
    those that the model is used with.
    """
    motions = {folder: check_motion(manifest, folder) for folder, manifest in manifests.items()}
    (first, motion), *others = motions.items()
    passed_over = SCALED_AWAY if motion.prior.kind == FLOW and "prior" in parts else ()
    for folder, other in others:
        if differences := motion.without_flow(passed_over).differences(other.without_flow(passed_over), parts):
            raise ValueError(
                f"{folder} was made with other motion settings than {first} ({differences}); "
                "make all records with the same flow and prior"
            )
    return dataclasses.replace(motion, flow_stored=None)
