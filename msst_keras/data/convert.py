"""Sequences, flow and prior to record folders: the one place where they meet.

A shard is made at a time and published by rename, then the manifest; started again after an interruption, only the
missing shards are made. The bytes depend on the input and the options alone.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from msst_keras.data import datasets, flow_files, images, records
from msst_keras.files import publish
from msst_keras.motion.flow import FROM_FILES, FlowEstimator, FlowSettings
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.progress import progress

_PLAN_NAME = "plan.json"


@dataclasses.dataclass(frozen=True)
class MotionOptions:
    """What is computed from the frames' motion and stored.

    Attributes:
      flow: how flow is made.
      superpixels: how superpixels are; None when the prior needs none.
      prior: a model of `msst_keras.motion.prior`; None stores no prior.
      prior_description: {"kind": "none"|"magnitude"|"network", ...} for the manifest, with what tells one prior from
        another.
      store_flow: whether the flow is stored too.
      flow_dir: where the flow is read from when its method is "files" (see `flow_files`).
    """

    flow: FlowSettings
    superpixels: SuperpixelSettings | None
    prior: keras.Model | None
    prior_description: dict
    store_flow: bool = False
    flow_dir: str | Path | None = None

    def to_dict(self) -> dict:
        """The manifest's "motion"."""
        return {
            "flow": self.flow.to_dict(),
            "superpixels": self.superpixels.to_dict() if self.superpixels else None,
            "prior": self.prior_description,
            "flow_stored": self.store_flow,
        }


def convert(
    sequences: Sequence[datasets.Sequence],
    output_dir: str | Path,
    motion: MotionOptions,
    description: dict,
    label_kind: str = "fine",
    num_shards: int = 8,
) -> dict:
    """Writes a record folder, or what is missing of it.

    Args:
      sequences: of `datasets.find_sequences`.
      output_dir: the folder; see `records`.
      motion: what is stored beside frames and masks.
      description: where the sequences come from ("dataset", "split", ...); goes into the manifest.
      label_kind: of all masks, "fine" or "coarse" (section 3.3).
      num_shards: at most one shard per sequence is made.

    Returns:
      the manifest.

    Raises:
      ValueError: the folder holds other records, two sequences of one name, or an input at fault (see `datasets`).
    """
    if label_kind not in records.LABEL_KINDS:
        raise ValueError(f"label_kind must be one of {', '.join(records.LABEL_KINDS)}, not '{label_kind}'")
    names = [sequence.name for sequence in sequences]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two sequences are called {', '.join(twice)}; convert them into folders of their own")
    if num_shards < 1:
        raise ValueError(f"num_shards must be at least 1, not {num_shards}")
    output_dir = Path(output_dir)
    num_shards = min(num_shards, len(sequences))
    description = {**description, "label_kind": label_kind, "motion": motion.to_dict()}
    plan = _hash_plan(sequences, description, num_shards)
    if _is_done(output_dir, plan):
        return records.read_manifest(output_dir)
    compute_prior = _make_prior_function(motion)
    for number in range(num_shards):
        path = records.shard_path(output_dir, number, num_shards)
        if path.exists():
            continue
        mine = sequences[number::num_shards]
        frames = (frame for sequence in mine for frame in _frame_records(sequence, motion, compute_prior, label_kind))
        total = sum(map(len, mine)) or None
        records.write_shard(path, progress(frames, total, f"shard {number + 1} of {num_shards}"))
    manifest = records.build_manifest(output_dir, num_shards, {**description, "plan": plan})
    records.write_manifest(output_dir, manifest)
    (output_dir / _PLAN_NAME).unlink()
    return manifest


def _hash_plan(sequences, description: dict, num_shards: int) -> str:
    """A hash of everything that the bytes of the shards depend on, but for the contents of the input files."""
    inputs = {
        s.name: [s.frame_names, {i: [p.name for p in paths] for i, paths in s.mask_paths.items()}] for s in sequences
    }
    text = json.dumps([records.FORMAT_VERSION, description, num_shards, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_done(output_dir: Path, plan: str) -> bool:
    """Whether the folder holds all of the plan's records; makes it ready to take them (or the missing ones)
    otherwise."""
    other = f"{output_dir} holds other records (of other inputs or flags); choose another --output_dir or remove it"
    if (output_dir / records.MANIFEST_NAME).exists():
        if records.read_manifest(output_dir).get("plan") != plan:
            raise ValueError(other)
        return True
    plan_path = output_dir / _PLAN_NAME
    if plan_path.exists():
        if json.loads(plan_path.read_text())["plan"] != plan:
            raise ValueError(other)
    elif output_dir.is_dir() and any(output_dir.iterdir()):
        raise ValueError(f"{output_dir} is not empty and holds no records; choose another --output_dir")
    for leftover in output_dir.glob(".partial-*"):  # of a killed run
        leftover.unlink()
    with publish(plan_path) as temporary:
        temporary.write_text(json.dumps({"plan": plan}))
    return False


def _frame_records(sequence, motion: MotionOptions, compute_prior, label_kind) -> Iterator[records.FrameRecord]:
    """The records of a sequence in order, holding only the frames whose flow is not known yet."""
    flows = _start_flow(sequence, motion)
    waiting = collections.deque()

    def make(flow: np.ndarray | None) -> records.FrameRecord:
        index, name, encoded, size = waiting.popleft()
        mask = sequence.read_mask(index)
        return records.FrameRecord(
            sequence=sequence.name, name=name, index=index, height=size[0], width=size[1], frame=encoded,
            mask=None if mask is None else images.encode_png(mask.astype(np.uint8) * 255),
            label_kind=None if mask is None else label_kind,
            prior=None if compute_prior is None else images.encode_png(compute_prior(flow)),
            flow=images.encode_flow_png(flow) if motion.store_flow else None,
        )  # fmt: skip

    for index, (name, encoded, frame) in enumerate(sequence.read_frames()):
        waiting.append((index, name, encoded, frame.shape[:2]))
        yield from map(make, flows.push(frame))
    yield from map(make, flows.close())


def _start_flow(sequence, motion: MotionOptions) -> FlowEstimator | _GivenFlow:
    """What gives the flow of a sequence as its frames are pushed: none, files, or a method."""
    if motion.prior is None and not motion.store_flow:
        return _GivenFlow(itertools.repeat(None))
    if motion.flow.method == FROM_FILES:
        frame_names, size = sequence.frame_names, motion.flow.motion_size
        return _GivenFlow(flow_files.read_flows(motion.flow_dir, sequence.name, frame_names, size))
    return FlowEstimator(motion.flow)


class _GivenFlow:
    """Flow that needs no computing, with the interface of `FlowEstimator`."""

    def __init__(self, flows: Iterator[np.ndarray | None]):
        self._flows = flows

    def push(self, frame: np.ndarray) -> list[np.ndarray | None]:
        return [next(self._flows)]

    def close(self) -> list[np.ndarray]:
        return []


def _make_prior_function(motion: MotionOptions):
    """A function flow (h, w, 2) -> uint8 (h, w), or None without a prior."""
    if motion.prior is None:
        return None
    predict = tf.function(motion.prior, reduce_retracing=True)

    def compute(flow: np.ndarray) -> np.ndarray:
        inputs = {"flow": tf.constant(flow[None])}
        if motion.superpixels:
            inputs["superpixels"] = tf.constant(segment(flow, motion.superpixels)[None])
        return np.round(predict(inputs).numpy()[0, :, :, 0] * 255).astype(np.uint8)

    return compute
