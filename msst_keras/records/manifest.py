"""The manifest of a record folder: what its shards hold and how it was made; written, read and checked.

Checksums find what an accident changed. The checks are for what a checksum cannot know: a manifest of another hand.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from msst_keras.data.file_names import printable
from msst_keras.files import publish
from msst_keras.motion.settings import MotionSettings
from msst_keras.records.example import FORMAT_VERSION, check_version
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import describe_shard, shard_path

MANIFEST_NAME = "manifest.json"
COMPUTED = ("num_frames", "num_labelled", "shards", "sequences")  # what a manifest says beside its description


def join_manifest(folder: str | Path, shards: Sequence[dict], description: dict) -> dict:
    """The manifest of a folder from what `describe_shard` says of its shards, in order.

    `description` tells how the records were made (dataset, split, motion: flow, superpixel and prior settings).

    Raises:
      ValueError: a sequence that is in two shards; no frame at all.
    """
    sequences = {}
    for number, shard in enumerate(shards):
        for name, entry in shard["sequences"].items():
            if name in sequences:
                raise ValueError(f"{folder}: sequence '{name}' is in two shards; make the records again")
            sequences[name] = {"shard": number, **entry}
    if not sequences:
        raise ValueError(f"{folder}: no frame at all was written; look at the input")
    return {
        "format_version": FORMAT_VERSION,
        **description,
        "num_frames": sum(len(entry["offsets"]) for entry in sequences.values()),
        "num_labelled": sum(len(entry["labelled"]) for entry in sequences.values()),
        "shards": [{key: shard[key] for key in ("name", "bytes", "sha256")} for shard in shards],
        "sequences": dict(sorted(sequences.items())),
    }


def build_manifest(folder: str | Path, num_shards: int, description: dict) -> dict:
    """Reads the shards of a folder back, one after the other, and returns their manifest; see `join_manifest`."""
    shards = [describe_shard(shard_path(folder, number, num_shards)) for number in range(num_shards)]
    return join_manifest(folder, shards, description)


def write_manifest(folder: str | Path, manifest: dict) -> None:
    """Writes `manifest.json`; the last file of a record folder, so that a folder with one is whole."""
    with publish(Path(folder) / MANIFEST_NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")


def read_manifest(folder: str | Path) -> dict:
    """Reads and checks the manifest of a record folder (a local path or one that `tf.io.gfile` knows) and its shards.

    Raises:
      FileNotFoundError: no manifest (the conversion never ended, or this is no record folder), or a shard is missing.
      ValueError: another format version, a damaged manifest, or a shard of another size than when it was written.
    """
    manifest = load_manifest(folder)
    for shard in manifest["shards"]:
        shard_file = f"{folder}/{shard['name']}"
        if not tf.io.gfile.exists(shard_file):
            raise FileNotFoundError(f"{shard_file}: this shard is missing; run the same `msst make_records` again")
        size = tf.io.gfile.stat(shard_file).length
        if size != shard["bytes"]:
            raise ValueError(
                f"{shard_file}: {size} bytes, but the manifest says {shard['bytes']}; run the same "
                "`msst make_records` again"
            )
    return manifest


def load_manifest(folder: str | Path) -> dict:
    """Reads and checks the manifest alone; the shards may be missing.

    Raises:
      FileNotFoundError: no manifest.
      ValueError: another format version, or a damaged manifest.
    """
    path = f"{folder}/{MANIFEST_NAME}"
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"{path}: not found; this is no record folder, or `msst make_records` has not finished")
    if tf.io.gfile.isdir(path):
        raise ValueError(f"{path}: expected a file, found a folder; make the records again")
    with tf.io.gfile.GFile(path, "rb") as file:
        manifest = parse_json(file.read(), path)
    check_version(manifest.get("format_version"), path)
    check_manifest(manifest, path, LABEL_KINDS)
    return manifest


def parse_json(content: bytes, path: str) -> dict:
    """A JSON file's object.

    Raises:
      ValueError: no UTF-8, no JSON, or something other than an object; names `path`.
    """
    try:
        parsed = json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ValueError(f"{path}: not valid JSON ({error}); make the records again") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(parsed).__name__}; make the records again")
    return parsed


def check_manifest(manifest: dict, path: str, label_kinds: Collection[str]) -> None:
    """Checks that a manifest has what readers use, of the right types, and that it does not contradict itself.

    Raises:
      ValueError: names `path` and what is wrong.
    """

    def require(is_right: object, what: str, found: object) -> None:
        """Raises what the manifest lacks."""
        if not is_right:
            raise ValueError(f"{path}: expected {what}, found {str(found)[:80]!r}; make the records again")

    shards: Any = manifest.get("shards")
    sequences: Any = manifest.get("sequences")
    require(isinstance(shards, list) and shards, "a list of shards", shards)
    require(isinstance(sequences, dict) and sequences, "sequences, by name", sequences)
    for shard in shards:
        require(isinstance(shard, dict) and {"name", "bytes", "sha256"} <= shard.keys(), "name, bytes, sha256", shard)
        name = shard["name"]
        plain = isinstance(name, str) and name.isprintable() and "/" not in name and name not in ("", ".", "..")
        require(plain, "a shard's file name, without folders", name)
        require(_is_count(shard["bytes"]), f"the bytes of {name}", shard["bytes"])
        require(isinstance(shard["sha256"], str), f"the SHA-256 of {name}", shard["sha256"])
    names = [shard["name"] for shard in shards]
    require(len(set(names)) == len(names), "each shard once", names)
    used: list[set[int]] = [set() for _ in shards]
    for name, entry in sequences.items():
        require(printable(name) == name, "names of sequences without control characters", printable(name))
        keys = {"shard", "offsets", "labelled"}
        require(isinstance(entry, dict) and keys <= entry.keys(), f"shard, offsets, labelled of '{name}'", entry)
        number, offsets, labelled = entry["shard"], entry["offsets"], entry["labelled"]
        require(_is_count(number) and number < len(shards), f"the number of a shard for '{name}'", number)
        right = isinstance(offsets, list) and offsets and all(map(_is_count, offsets))
        require(right and offsets == sorted(set(offsets)), f"ascending offsets of the frames of '{name}'", offsets)
        require(offsets[-1] < shards[number]["bytes"], f"offsets of '{name}' inside its shard", offsets[-1])
        require(used[number].isdisjoint(offsets), f"offsets of '{name}' that no other sequence has", offsets)
        used[number].update(offsets)
        right = isinstance(labelled, dict) and labelled.keys() <= set(map(str, range(len(offsets))))
        require(right, f"the labelled frames of '{name}', 0 to {len(offsets) - 1}", labelled)
        kinds = list(labelled.values())
        require(
            all(isinstance(kind, str) and kind in label_kinds for kind in kinds),
            f"label kinds of '{name}' ({', '.join(label_kinds)})",
            kinds,
        )
    totals = {
        "num_frames": sum(len(entry["offsets"]) for entry in sequences.values()),
        "num_labelled": sum(len(entry["labelled"]) for entry in sequences.values()),
    }
    for key, total in totals.items():
        require(manifest.get(key) == total, f"{key} to be the {total} of its sequences", manifest.get(key))


def check_motion(manifest: dict, folder: str | Path) -> MotionSettings:
    """How a manifest says that its motion was made.

    Raises:
      ValueError: it is missing or damaged; names `folder`.
    """
    try:
        motion = MotionSettings.from_dict(manifest.get("motion"))
        if motion.flow_stored is None:
            raise ValueError("expected flow_stored in the motion settings, found none")
        size = motion.flow.get("motion_size", [1, 1])  # records of before it was kept have none
        if not (isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_count, size)) and max(size) <= 16384):
            raise ValueError(f"expected a motion_size of (height, width), up to 16384, found {str(size)[:80]}")
    except ValueError as error:
        raise ValueError(f"{folder}: {error} in the manifest; make the records again") from None
    return motion


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
