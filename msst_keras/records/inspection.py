"""What a record folder holds: its manifest in words, what each feature weighs, and whether every byte is sound."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator

import numpy as np

from msst_keras.data.file_names import printable
from msst_keras.files import hash_file
from msst_keras.progress import progress
from msst_keras.records.example import FrameRecord, check_images
from msst_keras.records.folders import check_shards
from msst_keras.records.manifest import check_motion, read_manifest
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import MEND, read_record, scan_shard

FEATURES = ("frame", "mask", "prior", "flow")
_COLUMNS = ("frames", *LABEL_KINDS, "unlabelled")


def describe_folder(folder: str, manifest: dict) -> list[str]:
    """The lines of a manifest in words: where it comes from, how its motion was made, its shards and sequences."""
    motion = check_motion(manifest, folder)
    size = sum(shard["bytes"] for shard in manifest["shards"]) / 2**20
    lines = [
        f"{folder}: record format {manifest['format_version']}",
        f"  dataset {manifest.get('dataset', 'unknown')}, split {manifest.get('split', 'unknown')}",
        f"  {len(manifest['sequences'])} sequences, {manifest['num_frames']} frames, "
        f"{manifest['num_labelled']} labelled, {len(manifest['shards'])} shards, {size:.1f} MiB",
        f"  flow: {_words(motion.flow)}; {'stored' if motion.flow_stored else 'not stored'}",
        f"  superpixels: {_words(motion.superpixels) if motion.superpixels else 'none'}",
        f"  prior: {_words(motion.prior.to_dict())}",
        "",
        f"  {'shard':<34}{'frames':>8}{'MiB':>10}  SHA-256",
    ]
    for number, shard in enumerate(manifest["shards"]):
        inside = [entry for entry in manifest["sequences"].values() if entry["shard"] == number]
        frames = sum(len(entry["offsets"]) for entry in inside)
        lines.append(f"  {shard['name']:<34}{frames:>8}{shard['bytes'] / 2**20:>10.1f}  {shard['sha256'][:12]}...")
    lines += ["", f"  {'sequence':<24}" + "".join(f"{column:>12}" for column in _COLUMNS)]
    rows = [(name, *_count(entry)) for name, entry in manifest["sequences"].items()]
    rows.append(("all", *map(sum, zip(*(row[1:] for row in rows), strict=True))))
    lines += [f"  {name:<24}" + "".join(f"{number:>12}" for number in numbers) for name, *numbers in rows]
    return [printable(line) for line in lines]  # a manifest is anybody's text


def _count(entry: dict) -> tuple[int, ...]:
    """How many frames a sequence has, and how many of each kind of label."""
    kinds = collections.Counter(entry["labelled"].values())
    num_frames = len(entry["offsets"])
    return num_frames, *(kinds[kind] for kind in LABEL_KINDS), num_frames - kinds.total()


def _words(settings: dict) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def choose_frames(manifest: dict, count: int) -> list[tuple[str, int]]:
    """About `count` (sequence, index), evenly over the sequences: the middle labelled frame of each, or several.

    With more sequences than `count` they are evenly spread over the sequences, one frame each.
    """
    names = list(manifest["sequences"])
    per_sequence = max(1, count // len(names))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)]
    frames = []
    for name in chosen:
        entry = manifest["sequences"][name]
        candidates = sorted(map(int, entry["labelled"])) or list(range(len(entry["offsets"])))
        places = (np.arange(per_sequence) + 0.5) / per_sequence * len(candidates)
        frames += [(name, candidates[place]) for place in sorted({int(place) for place in places})]
    return frames


def read_frame_record(folder: str, manifest: dict, sequence: str, index: int) -> FrameRecord:
    """The record of a frame that the manifest knows.

    Raises:
      ValueError: it is corrupt, or another frame's.
    """
    entry = manifest["sequences"][sequence]
    path = f"{folder}/{manifest['shards'][entry['shard']]['name']}"
    record = read_record(path, entry["offsets"][index])
    if (record.sequence, record.index) != (sequence, index):
        raise ValueError(
            f"{path}: byte {entry['offsets'][index]} holds frame {record.index} of '{record.sequence}', expected frame "
            f"{index} of '{sequence}'; make the records again"
        )
    return record


def measure_features(frame_records: Iterable[FrameRecord]) -> dict[str, float]:
    """Mean KiB of each feature over the frames that have it; features that no frame has are left out."""
    sizes = collections.defaultdict(list)
    for record in frame_records:
        for feature in FEATURES:
            if (encoded := getattr(record, feature)) is not None:
                sizes[feature].append(len(encoded) / 1024)
    return {feature: float(np.mean(sizes[feature])) for feature in FEATURES if sizes[feature]}


def verify_folder(folder: str) -> dict[str, float]:
    """Reads every byte of a record folder: SHA-256 of each shard, every checksum, every image, against the manifest.

    Returns:
      as `measure_features`, over all frames.

    Raises:
      FileNotFoundError: as `manifest.read_manifest`.
      ValueError: the first thing that is not as it should be; names the shard and the place.
    """
    manifest = read_manifest(folder)
    check_shards(folder, manifest)
    for shard in manifest["shards"]:
        path = f"{folder}/{shard['name']}"
        if (found := hash_file(path)) != shard["sha256"]:
            raise ValueError(f"{path}: SHA-256 {found}, but the manifest says {shard['sha256']}; {MEND}")
    return measure_features(progress(_checked(folder, manifest), manifest["num_frames"], f"verify {folder}"))


def _checked(folder: str, manifest: dict) -> Iterator[FrameRecord]:
    """The records of all shards in turn, each compared with the manifest and decoded."""
    for number, shard in enumerate(manifest["shards"]):
        path = f"{folder}/{shard['name']}"
        expected = {
            offset: (name, index, entry["labelled"].get(str(index)))
            for name, entry in manifest["sequences"].items()
            if entry["shard"] == number
            for index, offset in enumerate(entry["offsets"])
        }
        for offset, record in scan_shard(path):
            found = (record.sequence, record.index, record.label_kind)
            if found != expected[offset]:
                raise ValueError(
                    f"{path}: byte {offset} holds {found}, the manifest says {expected[offset]} (sequence, frame, "
                    "label kind); make the records again"
                )
            check_images(record, f"{path} at byte {offset}, frame {record.index} of '{record.sequence}'")
            yield record
