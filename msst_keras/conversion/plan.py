"""What a record folder is being made into: whether it is whole, may go on, or is made anew.

As long as a folder is not whole, its plan says whose its shards are. At every moment of an overwriting something in the
folder describes it, and what is left of the old records is never taken for the new ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from msst_keras.conversion.engines import remove_files
from msst_keras.conversion.new_prior import NEW_PRIOR_NAME
from msst_keras.files import DifferentSettingsError, compare_settings, hash_file, read_json, write_json
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.records.manifest import COMPUTED, MANIFEST_NAME, load_manifest
from msst_keras.records.shard_files import describe_shard

PLAN_NAME = "plan.json"
_SHARDS, _PARTIAL = "shard-*.tfrecord", ".partial-*"
# What describes a folder of records, and of each the keys of which another program's file of that name has none.
_DESCRIPTIONS = {
    MANIFEST_NAME: {"num_labelled"}, PLAN_NAME: {"motion", "records"}, NEW_PRIOR_NAME: {"num_labelled"}
}  # fmt: skip
# The plan of a folder whose shards are of nobody knows what; no conversion has the same.
_UNKNOWN = {"format_version": FORMAT_VERSION, "records": "unknown"}


def make_ready(folder: Path, plan: dict, hash_inputs: Callable[[int], str], overwrite: bool) -> bool:
    """Whether a folder holds all of these records; makes it ready to take them (or the missing ones) otherwise.

    Args:
      folder: the folder, which this process holds.
      plan: what the records are made from, with "format_version", "num_shards" and "inputs".
      hash_inputs: gives the "inputs" of a plan for another number of shards.
      overwrite: whether other records, unreadable ones and those with a prior that is half added are made anew, and
        every byte of these records is read, so that shards of a wrong content are.

    Raises:
      ValueError: there are such records and they are not to be overwritten, or files that no conversion has written.
    """
    described = [name for name in _DESCRIPTIONS if (folder / name).exists()]
    if not described and any(not path.match(_PARTIAL) for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no records; choose another --output_dir")
    found = _UNKNOWN
    try:
        manifest = load_manifest(folder) if MANIFEST_NAME in described else None
        if described:
            found = _read_description(folder, manifest)
            _compare(folder, plan, found, hash_inputs)
        return _go_on(folder, plan, manifest, overwrite)
    except DifferentSettingsError as error:
        refusal = (
            f"{folder} holds other records: {error.difference}; choose another --output_dir, or give --overwrite to "
            "make them anew"
        )
    except ValueError as error:
        refusal = f"{error}, which --overwrite does"
    if not overwrite:
        raise ValueError(refusal)
    _refuse_strangers(folder)
    _empty(folder, found, plan)
    return False


def _read_description(folder: Path, manifest: dict | None) -> dict:
    """What a folder's records are made from, as a plan says it.

    Raises:
      ValueError: a prior is half added to them, or the plan is damaged.
    """
    if (folder / NEW_PRIOR_NAME).exists():
        raise ValueError(
            f"{folder}: a prior is half added to these records; run the same --add_prior to its end, or make the "
            "records again"
        )
    if manifest:
        description = {key: value for key, value in manifest.items() if key not in COMPUTED}
        return description | {"num_shards": len(manifest["shards"])}
    return read_json(folder / PLAN_NAME, "make the records again")


def _compare(folder: Path, plan: dict, found: dict, hash_inputs: Callable[[int], str]) -> None:
    """Compares what the folder's records are made from with what they are to be made from.

    The hash of the inputs depends on the number of shards as well: which of the two differs is found out here. Plans of
    before they held the number do not say it.

    Raises:
      DifferentSettingsError: they differ.
    """
    number, same = found.get("num_shards"), {"num_shards": plan["num_shards"]}
    if found.get("inputs") != plan["inputs"] and isinstance(number, int) and number > 0:
        same = {"inputs": plan["inputs"]} if hash_inputs(number) == found.get("inputs") else same
    compare_settings(folder, plan, found | same)


def _go_on(folder: Path, plan: dict, manifest: dict | None, reads_all: bool) -> bool:
    """Whether the folder holds all of its records; it is made ready to take those that are missing otherwise."""
    damaged = _damaged_shards(folder, manifest, reads_all)
    if manifest and not damaged:
        remove_files(folder, _PARTIAL)
        return True
    if manifest or not (folder / PLAN_NAME).exists():
        write_json(folder / PLAN_NAME, plan, None)
    for path in (*damaged, folder / MANIFEST_NAME):
        path.unlink(missing_ok=True)
    return False


def _damaged_shards(folder: Path, manifest: dict | None, reads_all: bool) -> list[Path]:
    """The shards that are missing or of another size than when they were written; where all is read, of other content.

    Without a manifest, what was written is not known, and a shard is damaged if it cannot be read.
    """
    if manifest is None:
        return [path for path in folder.glob(_SHARDS) if reads_all and not _is_readable(path)]
    shards = {folder / shard["name"]: shard for shard in manifest["shards"]}
    return [
        path
        for path, shard in shards.items()
        if not path.is_file()
        or path.stat().st_size != shard["bytes"]
        or (reads_all and hash_file(path) != shard["sha256"])
    ]


def _is_readable(path: Path) -> bool:
    try:
        describe_shard(path)
    except ValueError:
        return False
    return True


def _empty(folder: Path, found: dict, plan: dict) -> None:
    """Removes a folder's records, which were made from `found`, and gives it a new plan.

    Whenever this is ended, the same call goes on: the old plan stays until the old records are gone.
    """
    write_json(folder / PLAN_NAME, found, None)
    for pattern in (MANIFEST_NAME, _SHARDS, NEW_PRIOR_NAME):  # the manifest first: no reader takes the rest for records
        remove_files(folder, pattern)
    write_json(folder / PLAN_NAME, plan, None)


def _refuse_strangers(folder: Path) -> None:
    """Refuses to overwrite a folder that another program has made, or may have made.

    Raises:
      ValueError: a file has the name of a manifest or plan and is none, or all of them are damaged and there are files
        of other names.
    """
    known = {name: _is_ours(folder / name, name) for name in _DESCRIPTIONS if (folder / name).exists()}
    strangers = [name for name, is_ours in known.items() if is_ours is False]
    if True not in known.values():
        others = [path for path in folder.iterdir() if path.name not in known]
        strangers += [path.name for path in others if not (path.match(_SHARDS) or path.match(_PARTIAL))]
    if strangers:
        raise ValueError(
            f"{folder} holds files that no conversion has written ({', '.join(sorted(strangers)[:3])}); choose another "
            "--output_dir, or move them away"
        )


def _is_ours(path: Path, name: str) -> bool | None:
    """Whether a manifest or plan is one of records; None where it is damaged, so that nobody knows."""
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_bytes().decode())
        found = found["old"] if name == NEW_PRIOR_NAME else found
        return isinstance(found["format_version"], int) and not _DESCRIPTIONS[name].isdisjoint(found)
    except (LookupError, TypeError):
        return False
    except (ValueError, RecursionError):  # no UTF-8 or no JSON
        return None
