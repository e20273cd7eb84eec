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
from msst_keras.conversion.plan import PLAN_NAME, make_ready
from msst_keras.conversion.sources import NewShard
from msst_keras.conversion.work_report import WorkReport
from msst_keras.data.sequences import Sequence
from msst_keras.files import hash_folder
from msst_keras.locks import hold_folder
from msst_keras.motion.settings import MotionOptions
from msst_keras.records.example import FORMAT_VERSION
from msst_keras.records.manifest import join_manifest, read_manifest, write_manifest
from msst_keras.records.options import LABEL_KINDS
from msst_keras.records.shard_files import shard_path


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
      overwrite: whether records of other inputs or options, unreadable ones, those with a prior that is half added, and
        damaged shards, which the folder may hold, are made anew.

    Returns:
      the manifest.

    Raises:
      ValueError: the folder holds other records (names the difference) or files of another kind, two sequences of one
        name, or an input at fault (see `datasets`).
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
    dealt = _deal(sequences, num_shards)
    hash_inputs = _describe_inputs(sequences, motion)
    inputs = hash_inputs(num_shards)
    description = {**description, "label_kind": label_kind, "motion": motion.to_dict(), "inputs": inputs}
    plan = {"format_version": FORMAT_VERSION, **description, "num_shards": len(dealt)}
    shards = [
        NewShard(shard_path(output_dir, number, len(dealt)), mine, label_kind) for number, mine in enumerate(dealt)
    ]
    with hold_folder(output_dir):
        if not make_ready(output_dir, plan, hash_inputs, overwrite):
            described = run_engine(run, shards, motion, output_dir, report or WorkReport())
            write_manifest(output_dir, join_manifest(output_dir, described, description))
        remove_files(output_dir, PLAN_NAME)
        return read_manifest(output_dir)


def _deal(sequences: abc.Sequence[Sequence], num_shards: int) -> list[tuple[Sequence, ...]]:
    """The sequences of each shard, in the order given; at most one shard per sequence.

    The longest first, each to the shard that has fewest frames so far: a shard is a worker's unit of work, and shards
    of one length end together. (Eight shards of 27 of DAVIS-2016's training sequences have 215 to 252 frames so; dealt
    in turn 175 to 316.)
    """
    dealt: list[list[int]] = [[] for _ in range(min(num_shards, len(sequences)))]
    loads = [(0, number) for number in range(len(dealt))]
    for index in sorted(range(len(sequences)), key=lambda index: -len(sequences[index])):
        load, number = heapq.heappop(loads)
        dealt[number].append(index)
        heapq.heappush(loads, (load + max(len(sequences[index]), 1), number))  # a video need not know its length
    return [tuple(sequences[index] for index in sorted(indices)) for indices in dealt]


def _describe_inputs(sequences: abc.Sequence[Sequence], motion: MotionOptions) -> abc.Callable[[int], str]:
    """Reads all that the shards depend on: sequences, their frames and masks, by name and content.

    The content counts because people correct labels and encode videos again under the same names.

    Returns:
      what gives the hash of that, shard by shard, for a number of shards.
    """
    described = {each.name: [each.name, each.frame_names, *each.describe_content()] for each in sequences}
    given = [hash_folder(folder) for folder in (motion.flow_dir, motion.prior_dir) if folder]

    def hash_inputs(num_shards: int) -> str:
        """The hash of the inputs, dealt to so many shards."""
        dealt = _deal(sequences, num_shards)
        found = [described[sequence.name] for sequence in itertools.chain.from_iterable(dealt)]
        return hashlib.sha256(json.dumps([list(map(len, dealt)), found, given]).encode()).hexdigest()

    return hash_inputs
