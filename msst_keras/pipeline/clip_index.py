"""Which clips there are in record folders, and where on disk each of them lies."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

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
    """Every clip of T frames that ends on a labelled frame, by where it lies on disk.

    The first frames of a sequence have fewer than T - 1 before them: the first one is repeated, as in inference.

    Attributes:
      paths: the shards.
      path_ids, offsets: int64 (N,), the shard of each clip and the byte offset of its first stored frame.
      counts: int64 (N,), how many frames it stores; T - count repetitions of the first are put before them.
      names: "sequence/index" of the labelled frame, for messages.
      label_kinds: "fine" or "coarse", of each clip's label.
      motion: how their motion was made; None when clips have no prior.
      flow_stored: whether all of their records hold flow.
      groups: of each group of clips, in order: how many clips it has, and its share of every batch.
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


def find_record_groups(patterns: Sequence[str]) -> dict[tuple[str, ...], int]:
    """The record folders that patterns name, and their shares: "stills:3", "video:1" are 3 of 4 and 1 of 4 examples.

    Without any share all folders are one group, in which every clip counts alike. Where one pattern has a share, each
    is a group of its own, those without a share of share 1.

    Raises:
      FileNotFoundError: a pattern that matches no folder.
      ValueError: a share of 0, or a folder that two patterns name.
    """
    split = [re.fullmatch(r"(.*?)(?::(\d+))?", pattern, re.DOTALL).groups() for pattern in patterns]
    if not any(share for _, share in split):
        return {tuple(find_record_folders(patterns)): 1}
    groups, seen = {}, set()
    for pattern, share in split:
        folders = tuple(find_record_folders([pattern]))
        if share is not None and not int(share):
            raise ValueError(f"{pattern}:{share}: a share must be 1 or more; leave the folder away for none")
        if twice := seen.intersection(folders):
            raise ValueError(f"{min(twice)} is in two groups; name each folder once")
        seen.update(folders)
        groups[folders] = int(share or 1)
    return groups


def index_groups(
    groups: Mapping[tuple[str, ...], int],
    num_frames: int,
    with_prior: bool,
    label_kinds: Collection[str] = LABEL_KINDS,
) -> ClipIndex:
    """`index_clips` of the folders of groups (see `find_record_groups`), with the groups' shares.

    Raises:
      ValueError, FileNotFoundError: as `index_clips`; a group without a labelled frame.
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

    Clips whose label is of another kind than `label_kinds` are left out.

    Raises:
      ValueError: as `read_manifests`; no labelled frame; with a prior, folders that have none or priors made in
        different ways.
      FileNotFoundError: as `read_manifests`.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, not {num_frames}")
    manifests = read_manifests(folders)
    motion = _find_common(manifests, ("flow", "superpixels", "prior")) if with_prior else None
    if motion and motion.prior.kind == NO_PRIOR:
        raise ValueError(f"{folders[0]} holds no motion prior, which this variant needs; make it again with --prior")
    return _index(manifests, num_frames, motion, label_kinds)


def index_flow(folders: Sequence[str], label_kinds: Collection[str] = LABEL_KINDS) -> tuple[ClipIndex, dict]:
    """Lists the frames of record folders that hold flow and have a label of these kinds, for `flow_batches`.

    Returns:
      the frames, and the settings that their flow was made with.

    Raises:
      ValueError: as `read_manifests`; no labelled frame; folders without flow or with flow made in different ways.
      FileNotFoundError: as `read_manifests`.
    """
    manifests = read_manifests(folders)
    for folder, manifest in manifests.items():
        if not check_motion(manifest, folder).flow_stored:
            raise ValueError(f"{folder} holds no flow; make it again with --store_flow")
    return _index(manifests, 1, None, label_kinds), _find_common(manifests, ("flow",)).flow


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
    manifests: dict, num_frames: int, motion: MotionSettings | None, label_kinds: Collection[str] = LABEL_KINDS
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
    groups = ((len(names), 1),)
    return ClipIndex(tuple(paths), *arrays, tuple(names), tuple(kinds), motion, flow_stored, groups)


def _find_common(manifests: dict[str, dict], parts: tuple[str, ...]) -> MotionSettings:
    """How the motion of all manifests was made, in the words of the first; `parts` are those that must be alike.

    Where the prior is flow as an image, the folders' flow may differ in SCALED_AWAY; the first folder's settings are
    then to be those of use.
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
