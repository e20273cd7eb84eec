"""One shard from its sequences to its file: what every worker does, whichever engine sent it.

A shard's bytes depend on its input and on `MotionOptions` alone: one process makes it from start to end, with one
thread for each library (see `workers`), and the prior's graph is traced before the first frame, for frames of any size.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from msst_keras.data import datasets, flow_files, images
from msst_keras.motion.flow import FROM_FILES, FlowEstimator, FlowSettings
from msst_keras.motion.prior import MagnitudePrior, load_prior
from msst_keras.motion.superpixels import SuperpixelSettings, segment
from msst_keras.records import example as records
from msst_keras.synthetic.stills import MovingStill

NO_PRIOR, MAGNITUDE = "none", "magnitude"
# "check" is reading the finished shard back, for the manifest.
STAGES = ("decode", "flow", "superpixels", "prior", "encode", "check")


@dataclasses.dataclass(frozen=True)
class MotionOptions:
    """What is computed from the frames' motion and stored. It can be pickled: each worker loads the prior itself.

    Attributes:
      flow: how flow is made.
      superpixels: how superpixels are; None when the prior needs none.
      prior: NO_PRIOR, MAGNITUDE, or a file of `msst train_prior`, whose settings `flow` and `superpixels` then are.
      store_flow: whether the flow is stored too.
      flow_dir: where the flow is read from when its method is "files" (see `flow_files`).
    """

    flow: FlowSettings
    superpixels: SuperpixelSettings | None = None
    prior: str = NO_PRIOR
    store_flow: bool = False
    flow_dir: str | Path | None = None

    def to_dict(self) -> dict:
        """The manifest's "motion"; a prior's file goes into it by its hash."""
        prior = {"kind": self.prior}
        if self.prior not in (NO_PRIOR, MAGNITUDE):
            prior = {"kind": "network", "sha256": records.hash_file(self.prior)}
        return {
            "flow": self.flow.to_dict(),
            "superpixels": self.superpixels.to_dict() if self.superpixels else None,
            "prior": prior,
            "flow_stored": self.store_flow,
        }

    def load_prior(self) -> keras.Model | None:
        """The prior's model, None for NO_PRIOR.

        Raises:
          FileNotFoundError, ValueError: see `motion.prior.load_prior`.
        """
        if self.prior == NO_PRIOR:
            return None
        return MagnitudePrior(self.flow) if self.prior == MAGNITUDE else load_prior(self.prior)


@dataclasses.dataclass
class WorkReport:
    """Where the time of a shard went, or of a whole conversion.

    Attributes:
      num_frames: written; those of shards that were there already do not count.
      seconds: of each of STAGES, all workers together.
      peak_memory: bytes, the most that a worker held.
      elapsed: seconds from when the workers were ready, on average, to when the last shard was; 0 where nobody looked.
    """

    num_frames: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    peak_memory: int = 0
    elapsed: float = 0.0

    @contextlib.contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - started

    def add(self, other: WorkReport) -> None:
        """Adds a shard's report."""
        self.num_frames += other.num_frames
        self.peak_memory = max(self.peak_memory, other.peak_memory)
        for stage, seconds in other.seconds.items():
            self.seconds[stage] += seconds

    def format(self) -> str:
        """A table of the stages: frames per second of one worker that does nothing else, and seconds of all workers."""
        lines = [
            f"  {stage:<12}{self.num_frames / seconds:10.1f} frames/s{seconds:10.1f} s"
            for stage, seconds in self.seconds.items()
            if seconds > 0
        ]
        rate = f", {self.num_frames / self.elapsed:.1f} frames/s in all" if self.elapsed else ""
        memory = f"peak memory of a worker {self.peak_memory / 2**20:.0f} MiB"
        return "\n".join([f"{self.num_frames} frames{rate}; {memory}; each stage by itself:", *lines])


@dataclasses.dataclass(frozen=True)
class NewShard:
    """A shard to be made of sequences on disk.

    Attributes:
      path: of the shard.
      sequences: in the order in which they are written.
      label_kind: of all masks.
    """

    path: Path
    sequences: tuple[datasets.Sequence, ...]
    label_kind: str

    def __len__(self) -> int:
        """The number of frames; of videos what their files say."""
        return sum(map(len, self.sequences))

    def is_made(self) -> bool:
        return self.path.exists()

    def read(self, motion: MotionOptions, needs_frames: bool) -> Iterator[tuple[Iterator[_Frame], FlowEstimator]]:
        """Yields (frames in order, what gives their flow) of each sequence."""
        for sequence in self.sequences:
            yield self._read_sequence(sequence), _start_flow(sequence, motion)

    def _read_sequence(self, sequence: datasets.Sequence) -> Iterator[_Frame]:
        for index, (name, encoded, frame) in enumerate(sequence.read_frames()):
            mask = sequence.read_mask(index)
            record = records.FrameRecord(
                sequence.name, name, index, *frame.shape[:2], encoded,
                label_kind=None if mask is None else self.label_kind,
            )  # fmt: skip
            yield _Frame(record, frame, mask)


@dataclasses.dataclass(frozen=True)
class StoredShard:
    """A shard whose prior is to be replaced; all else in it stays, byte for byte.

    Attributes:
      path: of the shard.
      old_sha256: its hash as long as that has not been done.
      num_frames: that it holds.
    """

    path: Path
    old_sha256: str
    num_frames: int

    def __len__(self) -> int:
        return self.num_frames

    def is_made(self) -> bool:
        return records.hash_file(self.path) != self.old_sha256

    def read(self, motion: MotionOptions, needs_frames: bool) -> Iterator[tuple[Iterator[_Frame], FlowEstimator]]:
        """As `NewShard.read`; frames are decoded where the prior or the flow need them, flow is taken where stored."""
        stored = (record for _, record in records.scan_shard(self.path))
        for _, sequence in itertools.groupby(stored, lambda record: record.sequence):
            if not motion.store_flow:
                yield map(self._decode, sequence), FlowEstimator(motion.flow)
                continue
            first, second = itertools.tee(sequence)  # read in step: one record is held
            flows = (images.decode_flow_png(record.flow, self._name(record)) for record in second)
            yield map(self._decode if needs_frames else _Frame, first), _GivenFlow(flows)

    def _decode(self, record: records.FrameRecord) -> _Frame:
        return _Frame(record, images.decode_frame(record.frame, self._name(record)))

    def _name(self, record: records.FrameRecord) -> str:
        return f"{self.path}, {record.sequence} {record.name}"


@dataclasses.dataclass(frozen=True)
class _Frame:
    """A frame's record so far; what it shows, uint8 (H, W, 3), where known; its mask where not yet in the record."""

    record: records.FrameRecord
    image: np.ndarray | None = None
    mask: np.ndarray | None = None


class ShardMaker:
    """Makes shards, one after the other."""

    def __init__(self, motion: MotionOptions):
        """Loads the prior.

        Raises:
          FileNotFoundError, ValueError: see `MotionOptions.load_prior`.
        """
        self._motion = motion
        prior = motion.load_prior()
        self._needs_frames = prior is not None and prior.needs_frames
        self._predict = None if prior is None else _trace(prior, motion, self._needs_frames)

    def make(
        self, shard: NewShard | StoredShard, on_frame: Callable[[], None] = lambda: None
    ) -> tuple[dict, WorkReport]:
        """Makes a shard, unless it is there, and reads it back.

        Args:
          shard: what to make.
          on_frame: called after each frame.

        Returns:
          what the manifest says of it (`records.describe_shard`), and where the time went.

        Raises:
          FileNotFoundError, ValueError: an input at fault; the shard is then not made.
        """
        report = WorkReport()
        if not shard.is_made():
            records.write_shard(shard.path, self._records(shard, report, on_frame))
        with report.measure("check"):
            description = records.describe_shard(shard.path)
        report.peak_memory = _peak_memory()
        return description, report

    def _records(self, shard, report: WorkReport, on_frame) -> Iterator[records.FrameRecord]:
        """The shard's records in order, holding only the frames whose flow is not known yet."""
        for frames, flows in shard.read(self._motion, self._needs_frames):
            waiting = collections.deque()
            for frame in _measured(frames, report):
                with report.measure("flow"):
                    known = flows.push(frame.image)
                # Without a prior that looks at frames, none is held while it waits for its flow.
                waiting.append(frame if self._needs_frames else dataclasses.replace(frame, image=None))
                yield from self._finish(known, waiting, report, on_frame)
            with report.measure("flow"):
                known = flows.close()
            yield from self._finish(known, waiting, report, on_frame)

    def _finish(self, flows: Iterable, waiting: collections.deque, report: WorkReport, on_frame):
        for flow in flows:
            frame, changes = waiting.popleft(), {}
            if self._predict:
                prior = self._compute_prior(flow, frame.image, report)
            with report.measure("encode"):
                if frame.mask is not None:
                    changes["mask"] = images.encode_png(frame.mask.astype(np.uint8) * 255)
                if self._predict:
                    changes["prior"] = images.encode_png(prior)
                if self._motion.store_flow and frame.record.flow is None:
                    changes["flow"] = images.encode_flow_png(flow)
                yield dataclasses.replace(frame.record, **changes)  # goes on when the record is written: encoding too
            report.num_frames += 1
            on_frame()

    def _compute_prior(self, flow: np.ndarray, image: np.ndarray | None, report: WorkReport) -> np.ndarray:
        """uint8 (h, w)."""
        inputs = {"flow": flow}
        if self._motion.superpixels:
            with report.measure("superpixels"):
                inputs["superpixels"] = segment(flow, self._motion.superpixels)
        if self._needs_frames:
            inputs["frame"] = image
        with report.measure("prior"):
            output = self._predict({key: tf.constant(value[None]) for key, value in inputs.items()})
            return np.round(output.numpy()[0, :, :, 0] * 255).astype(np.uint8)


def _trace(prior: keras.Model, motion: MotionOptions, needs_frames: bool):
    """The prior as one graph for frames of every size, traced and run once."""
    size = motion.flow.motion_size
    inputs = {"flow": tf.TensorSpec((1, *size, 2))}
    if motion.superpixels:
        inputs["superpixels"] = tf.TensorSpec((1, *size, motion.superpixels.num_levels), tf.int32)
    if needs_frames:
        inputs["frame"] = tf.TensorSpec((1, None, None, 3), tf.uint8)
    predict = tf.function(lambda given: prior(given), input_signature=[inputs])
    predict({key: tf.zeros([side or 32 for side in spec.shape], spec.dtype) for key, spec in inputs.items()})
    return predict


def _start_flow(sequence: datasets.Sequence | MovingStill, motion: MotionOptions) -> FlowEstimator | _GivenFlow:
    """What gives the flow of a sequence as its frames are pushed: none, a still's own motion, files, or a method."""
    if motion.prior == NO_PRIOR and not motion.store_flow:
        return _GivenFlow(itertools.repeat(None))
    if isinstance(sequence, MovingStill) and sequence.exact_flow:
        flow = motion.flow
        return _GivenFlow(sequence.read_flows(flow.motion_size, flow.direction, flow.stride))
    if motion.flow.method == FROM_FILES:
        frame_names, size = sequence.frame_names, motion.flow.motion_size
        return _GivenFlow(flow_files.read_flows(motion.flow_dir, sequence.name, frame_names, size))
    return FlowEstimator(motion.flow)


class _GivenFlow:
    """Flow that needs no computing, with the interface of `FlowEstimator`."""

    def __init__(self, flows: Iterator[np.ndarray | None]):
        self._flows = flows

    def push(self, frame: np.ndarray | None) -> list[np.ndarray | None]:
        for flow in self._flows:
            return [flow]
        raise ValueError("a video has more frames than its file says, and flow is given for those alone; extract them")

    def close(self) -> list[np.ndarray]:
        return []


def _measured(frames: Iterator[_Frame], report: WorkReport) -> Iterator[_Frame]:
    """The frames, the time that each takes to come counted as decoding."""
    while True:
        with report.measure("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame


def _peak_memory() -> int:
    """Bytes, the most that this process has held at once."""
    # getrusage also counts what the parent held when it started this process.
    status = Path("/proc/self/status")
    if status.exists():
        kibibytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kibibytes) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS gives bytes
