"""What a shard is made of: sequences on disk, or a shard whose prior is to be replaced."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from msst_keras.data import flow_files, images
from msst_keras.data.file_names import find_named
from msst_keras.data.sequences import Sequence
from msst_keras.files import hash_file
from msst_keras.motion.flow import FROM_FILES, FlowEstimator
from msst_keras.motion.settings import FILES, NO_PRIOR, MotionOptions
from msst_keras.records.example import FrameRecord
from msst_keras.records.shard_files import scan_shard


@dataclasses.dataclass(frozen=True)
class NewShard:
    """A shard to be made of sequences on disk.

    Attributes:
      path: of the shard.
      sequences: in the order in which they are written.
      label_kind: of all masks but the coarse labels that sequences have beside them.
    """

    path: Path
    sequences: tuple[Sequence, ...]
    label_kind: str

    def __len__(self) -> int:
        """The number of frames; of videos what their files say."""
        return sum(map(len, self.sequences))

    def is_made(self) -> bool:
        """Whether the file is there; it appears only when it is whole."""
        return self.path.exists()

    def read(self, motion: MotionOptions, needs_frames: bool) -> Iterator[tuple[Iterator[Frame], FlowSource]]:
        """Yields (frames in order, what gives their flow) of each sequence."""
        for sequence in self.sequences:
            yield self._read_sequence(sequence, motion), _start_flow(sequence, motion)

    def _read_sequence(self, sequence: Sequence, motion: MotionOptions) -> Iterator[Frame]:
        for index, (name, encoded, frame) in enumerate(sequence.read_frames()):
            mask, kind = sequence.read_mask(index), self.label_kind
            if mask is None:
                mask, kind = sequence.read_coarse_label(index), "coarse"
            prior = _read_prior(motion, sequence.name, name) if motion.prior == FILES else None
            height, width = frame.shape[:2]
            label_kind = None if mask is None else kind
            record = FrameRecord(sequence.name, name, index, height, width, encoded, label_kind=label_kind, prior=prior)
            yield Frame(record, frame, mask)


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
        """Whether the file is another one than before; reading it takes a while."""
        return hash_file(self.path) != self.old_sha256

    def read(self, motion: MotionOptions, needs_frames: bool) -> Iterator[tuple[Iterator[Frame], FlowSource]]:
        """As `NewShard.read`; frames are decoded where the prior or the flow need them, flow is taken where stored."""
        stored = (record for _, record in scan_shard(self.path))
        for _, sequence in itertools.groupby(stored, lambda record: record.sequence):
            if not motion.store_flow:
                yield map(self._decode, sequence), FlowEstimator(motion.flow)
                continue
            first, second = itertools.tee(sequence)  # read in step: one record is held
            yield map(self._decode if needs_frames else Frame, first), GivenFlow(map(self._read_flow, second))

    def _decode(self, record: FrameRecord) -> Frame:
        return Frame(record, images.decode_frame(record.frame, self._name(record)))

    def _read_flow(self, record: FrameRecord) -> np.ndarray:
        if record.flow is None:
            raise ValueError(f"{self._name(record)}: the flow is missing in this record; make the records again")
        return flow_files.decode_flow_png(record.flow, self._name(record))

    def _name(self, record: FrameRecord) -> str:
        return f"{self.path}, {record.sequence} {record.name}"


Shard = NewShard | StoredShard


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame's record so far; what it shows, uint8 (H, W, 3), where known; its mask where not yet in the record."""

    record: FrameRecord
    image: np.ndarray | None = None
    mask: np.ndarray | None = None


def _start_flow(sequence: Sequence, motion: MotionOptions) -> FlowSource:
    """What gives the flow of a sequence as its frames are pushed: none, what is known of it, files, or a method."""
    if motion.prior in (NO_PRIOR, FILES) and not motion.store_flow:
        return GivenFlow(itertools.repeat(None))
    flow = motion.flow
    if (known := sequence.read_flows(flow.motion_size, flow.direction, flow.stride)) is not None:
        return GivenFlow(known)
    if flow.method != FROM_FILES:
        return FlowEstimator(flow)
    if motion.flow_dir is None:
        raise ValueError("flow from files needs the folder that they are in; give --flow_dir")
    return GivenFlow(
        flow_files.read_flows(motion.flow_dir, sequence.name, sequence.frame_names, flow.motion_size, flow.stride)
    )


def _read_prior(motion: MotionOptions, sequence: str, name: str) -> bytes:
    """The prior of a frame that somebody else's method made, as PNG at the motion size."""
    if motion.prior_dir is None:
        raise ValueError("a prior of files needs the folder that they are in; give --prior_dir")
    prior = images.read_map(find_named(find_named(Path(motion.prior_dir), sequence), f"{name}.png"))
    height, width = motion.flow.motion_size
    shrinks = height <= prior.shape[0] and width <= prior.shape[1]
    resized = cv2.resize(prior, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return images.encode_png(np.rint(np.clip(resized, 0, 1) * 255).astype(np.uint8))


class FlowSource(Protocol):
    """What gives the flow of a sequence as its frames come: a `FlowEstimator`, or `GivenFlow`."""

    def push(self, frame: Any) -> Iterable[np.ndarray | None]:
        """Takes the next frame and returns the flow of frames that can now be told, in order."""

    def close(self) -> Iterable[np.ndarray | None]:
        """Returns the flow of the frames that are left; no frame comes any more."""


class GivenFlow:
    """Flow that needs no computing, as a `FlowSource`."""

    def __init__(self, flows: Iterator[np.ndarray | None]):
        self._flows = flows

    def push(self, frame: np.ndarray | None) -> list[np.ndarray | None]:
        """The flow of this frame, which is not looked at.

        Raises:
          ValueError: there are more frames than flow.
        """
        for flow in self._flows:
            return [flow]
        raise ValueError("a video has more frames than its file says, and flow is given for those alone; extract them")

    def close(self) -> list[np.ndarray]:
        """Nothing: each frame got its flow at once."""
        return []
