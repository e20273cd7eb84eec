"""What a manifest and a shard must look like before anything is read by what they say.

Checksums find what an accident changed. These checks are for what a checksum cannot know: a manifest of another hand,
and a record whose length, its own checksum right, is larger than its file (TensorFlow would take that memory at once).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from typing import Any

import tensorflow as tf

FRAMING_BYTES = 16  # of a TFRecord: length (8), its CRC (4), the CRC of the data (4)


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

    def require(is_right: bool, what: str, found: Any) -> None:
        if not is_right:
            raise ValueError(f"{path}: expected {what}, found {str(found)[:80]!r}; make the records again")

    shards, sequences = manifest.get("shards"), manifest.get("sequences")
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
    used = [set() for _ in shards]
    for name, entry in sequences.items():
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


def check_motion(manifest: dict, folder: str) -> dict:
    """A manifest's "motion", with its keys there and of the right types.

    Raises:
      ValueError: it is missing or damaged; names `folder`.
    """
    motion = manifest.get("motion")
    right = isinstance(motion, dict) and (
        isinstance(motion.get("flow"), dict)
        and isinstance(motion.get("superpixels", ""), dict | type(None))
        and isinstance(motion.get("prior"), dict)
        and isinstance(motion["prior"].get("kind"), str)
        and isinstance(motion.get("flow_stored"), bool)
    )
    if not right:
        raise ValueError(
            f"{folder}: expected motion settings (flow, superpixels, prior, flow_stored) in the manifest, found "
            f"{str(motion)[:80]!r}; make the records again"
        )
    return motion


def check_framing(path: str, offsets: Collection[int] | None = None) -> list[int]:
    """Checks that each record of a shard, and its last byte, lies inside the file.

    Args:
      path: the shard.
      offsets: where the manifest says that its records begin, all of them; None follows the lengths alone.

    Returns:
      the byte offset of each record.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty file; a length that leads beyond the file, or not to where the manifest has the next record.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"{path}: no such shard; make the records again")
    size, offset, found = tf.io.gfile.stat(path).length, 0, []
    if not size:
        raise ValueError(f"{path}: no frame at all in this shard; make it again")
    expected = None if offsets is None else {*offsets, size}
    with open(path, "rb") if "://" not in path else tf.io.gfile.GFile(path, "rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(12)
            end = offset + FRAMING_BYTES + struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size + 1
            if end > size or (expected is not None and end not in expected):
                where = "inside its file" if end > size else "where the manifest has the next one"
                raise ValueError(
                    f"{path}: corrupt after byte {offset} (the record there does not end {where}); "
                    "make this shard again"
                )
            found.append(offset)
            offset = end
    if offsets is not None and set(found) != set(offsets):
        raise ValueError(
            f"{path}: holds {len(found)} records, the manifest knows {len(offsets)}; make this shard again"
        )
    return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62
