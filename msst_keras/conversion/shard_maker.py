"""One shard from its sequences to its file: what every worker does, whichever engine sent it.

A shard's bytes depend on its input and on `MotionOptions` alone: one process makes it from start to end, with one
thread for each library (see `workers`), and the prior's graph is traced before the first frame, for frames of any size.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from msst_keras.conversion.sources import Frame, Shard
from msst_keras.conversion.work_report import WorkReport, peak_memory
from msst_keras.data import flow_files, images
from msst_keras.motion.prior import MotionPrior
from msst_keras.motion.prior_files import make_prior
from msst_keras.motion.prior_folds import load_folds
from msst_keras.motion.settings import MotionOptions
from msst_keras.motion.superpixels import segment
from msst_keras.records import shard_files
from msst_keras.records.example import FrameRecord


class ShardMaker:
    """Makes shards, one after the other."""

    def __init__(self, motion: MotionOptions):
        """Loads the prior.

        Raises:
          FileNotFoundError, ValueError: see `motion.prior.make_prior` and `motion.prior_folds.load_folds`.
        """
        self._motion = motion
        prior = make_prior(motion.prior, motion.flow)
        self._folds = load_folds(motion.prior, prior) if isinstance(prior, MotionPrior) else None
        self._needs_frames = prior is not None and prior.needs_frames
        self._predict = None if prior is None else _trace(prior, motion, self._needs_frames)

    def make(self, shard: Shard, on_frame: Callable[[], object] = lambda: None) -> tuple[dict, WorkReport]:
        """Makes a shard, unless it is there, and reads it back.

        Args:
          shard: what to make.
          on_frame: called after each frame.

        Returns:
          what the manifest says of it (`shard_files.describe_shard`), and where the time went.

        Raises:
          FileNotFoundError, ValueError: an input at fault; the shard is then not made.
        """
        report = WorkReport()
        if not shard.is_made():
            shard_files.write_shard(shard.path, self._records(shard, report, on_frame))
        with report.measure("check"):
            description = shard_files.describe_shard(shard.path)
        report.peak_memory = peak_memory()
        return description, report

    def _records(self, shard: Shard, report: WorkReport, on_frame: Callable[[], object]) -> Iterator[FrameRecord]:
        """The shard's records in order, holding only the frames whose flow is not known yet."""
        for frames, flows in shard.read(self._motion, self._needs_frames):
            waiting: collections.deque[Frame] = collections.deque()
            for frame in _measured(frames, report):
                with report.measure("flow"):
                    known = flows.push(frame.image)
                # Without a prior that looks at frames, none is held while it waits for its flow.
                waiting.append(frame if self._needs_frames else dataclasses.replace(frame, image=None))
                yield from self._finish(known, waiting, report, on_frame)
            with report.measure("flow"):
                known = flows.close()
            yield from self._finish(known, waiting, report, on_frame)

    def _finish(
        self,
        flows: Iterable[np.ndarray | None],
        waiting: collections.deque[Frame],
        report: WorkReport,
        on_frame: Callable[[], object],
    ) -> Iterator[FrameRecord]:
        """The records of the frames whose flow has become known."""
        for flow in flows:
            frame = waiting.popleft()
            record = frame.record
            if self._folds:
                self._folds.use(record.sequence)
            place = f"{record.sequence}, frame {record.name}"
            if flow is not None and not np.isfinite(flow).all():
                raise ValueError(f"{place}: its flow is not finite; choose another --flow method, or mend the files")
            prior = self._compute_prior(flow, frame.image, report, place)
            with report.measure("encode"):
                if frame.mask is not None:
                    record = dataclasses.replace(record, mask=images.encode_png(frame.mask.astype(np.uint8) * 255))
                if prior is not None:
                    record = dataclasses.replace(record, prior=images.encode_png(prior))
                if flow is not None and self._motion.store_flow and record.flow is None:
                    record = dataclasses.replace(record, flow=flow_files.encode_flow_png(flow))
                yield record  # goes on when the record is written: encoding too
            report.num_frames += 1
            on_frame()

    def _compute_prior(
        self, flow: np.ndarray | None, image: np.ndarray | None, report: WorkReport, place: str
    ) -> np.ndarray | None:
        """uint8 (h, w), or (h, w, 3) of flow as an image; None if no prior is to be made."""
        if self._predict is None:
            return None
        assert flow is not None, "a prior is made of flow, which `sources` then gives"
        inputs = {"flow": flow}
        if self._motion.superpixels:
            with report.measure("superpixels"):
                inputs["superpixels"] = segment(flow, self._motion.superpixels)
        if self._needs_frames:
            assert image is not None, "frames are kept for such a prior"
            inputs["frame"] = image
        with report.measure("prior"):
            output = self._predict({key: tf.constant(value[None]) for key, value in inputs.items()}).numpy()[0]
            if not (output.min() >= 0 and output.max() <= 1):  # also true for NaN
                raise ValueError(
                    f"{place}: the prior {self._motion.prior} gives {output.min()} to {output.max()}, expected 0 to 1; "
                    "train it again"
                )
            levels = np.round(output * 255).astype(np.uint8)
            return levels[..., 0] if levels.shape[-1] == 1 else levels


def _trace(
    prior: keras.Model, motion: MotionOptions, needs_frames: bool
) -> Callable[[dict[str, tf.Tensor]], tf.Tensor]:
    """The prior as one graph for frames of every size, traced and run once."""
    size = motion.flow.motion_size
    inputs = {"flow": tf.TensorSpec((1, *size, 2))}
    if motion.superpixels:
        inputs["superpixels"] = tf.TensorSpec((1, *size, motion.superpixels.num_levels), tf.int32)
    if needs_frames:
        inputs["frame"] = tf.TensorSpec((1, None, None, 3), tf.uint8)
    predict = tf.function(lambda given: prior(given), input_signature=[inputs], autograph=False)
    predict({key: tf.zeros([side or 32 for side in spec.shape], spec.dtype) for key, spec in inputs.items()})
    return predict


def _measured(frames: Iterator[Frame], report: WorkReport) -> Iterator[Frame]:
    """The frames, the time that each takes to come counted as decoding."""
    while True:
        with report.measure("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        yield frame
