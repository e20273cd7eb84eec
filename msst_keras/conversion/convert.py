"""Sequences, flow and prior to record folders.

A shard is made at a time in each worker and published by rename, then the manifest. Started again after any
interruption, only the missing shards are made. The bytes depend on the input and the options alone, not on the engine,
the number of workers, their order, or interruptions.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
from collections import abc
from pathlib import Path

from msst_keras.conversion.engines import choose_engine, remove_files, run_engine
from msst_keras.conversion.new_prior import NEW_PRIOR_NAME
from msst_keras.conversion.sources import NewShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data.sequences import Sequence
from msst_keras.files import DifferentSettingsError, compare_settings, hash_folder, remember
from msst_keras.locks import hold_folder
from msst_keras.motion.settings import MotionOptions
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.records.manifest import (
    COMPUTED,
    MANIFEST_NAME,
    join_manifest,
    load_manifest,
    read_manifest,
    write_manifest,
)
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import shard_path

# What a folder is being made into, as long as it is not whole.
_PLAN_NAME = "plan.json"


def convert(
    sequences: abc.Sequence[Sequence],
    output_dir: str | Path,
    motion: MotionOptions,
    description: dict,
    label_kind: str = "fine",
    num_shards: int = 8,
    num_workers: int = 1,
    engine: str = "local",
    beam_args: abc.Sequence[str] = (),
    report: WorkReport | None = None,
    overwrite: bool = False,
) -> dict:
    """Writes a record folder, or what is missing of it.

    Args:
      sequences: what to convert, for example of `datasets.find_sequences`.
      output_dir: the folder; see `records.example`.
      motion: what is stored beside frames and masks.
      description: where the sequences come from ("dataset", "split", ...); goes into the manifest.
      label_kind: of all masks, "fine" or "coarse" (section 3.3); those of `read_coarse_label` are coarse anyhow.
      num_shards: at most one shard per sequence is made.
      num_workers: processes of the engine "local", at most one a shard.
      engine: one of ENGINES; both make the same bytes. "beam" is for clusters, see `beam_engine`.
      beam_args: options of the engine "beam".
      report: filled in where given.
      overwrite: whether records of other inputs or options, which the folder may hold, are made anew.

    Returns:
      the manifest.

    Raises:
      ValueError: the folder holds other records (names the difference), two sequences of one name, or an input at fault
        (see `datasets`).
      FileNotFoundError: a file of the input has gone.
      BlockingIOError: another process writes to the folder.
      ChildProcessError: a worker died.
    """
    if label_kind not in LABEL_KINDS:
        raise ValueError(f"label_kind must be one of {', '.join(LABEL_KINDS)}, not '{label_kind}'")
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two sequences are called {', '.join(twice)}; convert them into folders of their own")
    if num_shards < 1:
        raise ValueError(f"num_shards must be at least 1, not {num_shards}")
    run = choose_engine(engine, num_workers, beam_args)
    output_dir = Path(output_dir)
    dealt = _deal(sequences, min(num_shards, len(sequences)))
    inputs = _hash_inputs(dealt, motion)
    description = {**description, "label_kind": label_kind, "motion": motion.to_dict(), "inputs": inputs}
    shards = [
        NewShard(shard_path(output_dir, number, len(dealt)), mine, label_kind) for number, mine in enumerate(dealt)
    ]
    with hold_folder(output_dir):
        if not _is_done(output_dir, description, overwrite):
            described = run_engine(run, shards, motion, output_dir, report or WorkReport())
            write_manifest(output_dir, join_manifest(output_dir, described, description))
        remove_files(output_dir, _PLAN_NAME)
        return read_manifest(output_dir)


def _deal(sequences: abc.Sequence[Sequence], num_shards: int) -> list[tuple[Sequence, ...]]:
    """The sequences of each shard, in the order given.

    The longest first, each to the shard that has fewest frames so far: a shard is a worker's unit of work, and shards
    of one length end together. (Eight shards of 27 of DAVIS-2016's training sequences have 215 to 252 frames so; dealt
    in turn 175 to 316.)
    """
    dealt: list[list[int]] = [[] for _ in range(num_shards)]
    loads = [(0, number) for number in range(num_shards)]
    for index in sorted(range(len(sequences)), key=lambda index: -len(sequences[index])):
        load, number = heapq.heappop(loads)
        dealt[number].append(index)
        heapq.heappush(loads, (load + max(len(sequences[index]), 1), number))  # a video need not know its length
    return [tuple(sequences[index] for index in sorted(indices)) for indices in dealt]


def _hash_inputs(dealt: abc.Sequence[abc.Sequence[Sequence]], motion: MotionOptions) -> str:
    """A hash of all that the shards depend on: sequences, shard by shard, their frames and masks, by name and content.

    The content counts because people correct labels and encode videos again under the same names.
    """
    found = []
    for sequence in itertools.chain.from_iterable(dealt):
        found.append([sequence.name, sequence.frame_names, *sequence.describe_content()])
    given = [hash_folder(folder) for folder in (motion.flow_dir, motion.prior_dir) if folder]
    content = [list(map(len, dealt)), found, given]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_done(output_dir: Path, description: dict, overwrite: bool) -> bool:
    """Whether the folder holds all of these records; makes it ready to take them (or the missing ones) otherwise."""
    plan = {"format_version": FORMAT_VERSION, **description}
    plan_path, manifest_path = output_dir / _PLAN_NAME, output_dir / MANIFEST_NAME
    if (output_dir / NEW_PRIOR_NAME).exists():
        raise ValueError(f"{output_dir}: a prior is half added to these records; run the same --add_prior to its end")
    is_ours = manifest_path.exists() or plan_path.exists()
    if not is_ours and any(path for path in output_dir.iterdir() if not path.name.startswith(".partial-")):
        raise ValueError(f"{output_dir} is not empty and holds no records; choose another --output_dir")
    try:
        damaged = []
        if manifest_path.exists():
            manifest = load_manifest(output_dir)
            compare_settings(manifest_path, plan, {key: manifest[key] for key in manifest if key not in COMPUTED})
            damaged = _damaged_shards(output_dir, manifest)
            if not damaged:
                remove_files(output_dir, ".partial-*")
                return True
        remember(plan_path, plan)
    except DifferentSettingsError as error:
        if not overwrite:
            raise ValueError(
                f"{output_dir} holds other records: {error.difference}; choose another --output_dir, or give "
                "--overwrite to make them anew"
            ) from None
        # The manifest first: without it the rest is no record folder. The plan says whose the shards are.
        for pattern in (MANIFEST_NAME, "shard-*.tfrecord", _PLAN_NAME):
            remove_files(output_dir, pattern)
        remember(plan_path, plan)
        return False
    for path in (*damaged, manifest_path):
        path.unlink(missing_ok=True)
    return False


def _damaged_shards(folder: Path, manifest: dict) -> list[Path]:
    """The shards that are missing or of another size than when they were written."""
    sizes = {folder / shard["name"]: shard["bytes"] for shard in manifest["shards"]}
    return [path for path, size in sizes.items() if not path.is_file() or path.stat().st_size != size]
