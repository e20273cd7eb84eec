"""Scores the maps of several methods under several protocols, in one process or in many, with one result.

Frames are scored in parts of PART_SIZE, and the parts are merged in order, whichever process scored them. So sums are
the same to the bit for any number of processes. Memory does not grow with the number of frames, because each frame's
scalars are handed on as soon as its part is done.
"""

from __future__ import annotations

import multiprocessing
import signal
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import cv2
import numpy as np

from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import Protocol
from msst_keras.processes import end_with_parent, safe_path, use_one_thread
from msst_keras.progress import progress

PART_SIZE = 16  # frames, which are half a second of work, so that nobody waits long for the last process

# Method, protocol, sequence, frame, and the frame's scalars.
Row = tuple[str, str, str, str, Mapping[str, float]]
# Of a part: what each (method, protocol name) scored, and the rows.
Scores = tuple[dict[tuple[str, str], Evaluator], list[Row]]


class Reader(typing.Protocol):
    """Where masks and maps come from. It is sent to other processes, so it must allow pickling."""

    def read(self, sequence: str, frame: str) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
        """Returns the mask, bool (H, W), and each method's map, uint8 or float in [0, 1], (h, w)."""

    def flicker(self, sequence: str, frame: str) -> Mapping[str, float]:
        """Returns `stability.flicker` from this frame to the next, for the methods for which it is defined."""

    def describe(self, method: str, sequence: str, frame: str) -> str:
        """Names a map in errors, by its file."""


@dataclass(frozen=True)
class Part:
    """Some consecutive frames of a sequence.

    Attributes:
      sequence: The sequence's name.
      frames: The name of each frame, and for each of the protocols whether it scores the frame.
    """

    sequence: str
    frames: tuple[tuple[str, tuple[bool, ...]], ...]


def make_parts(
    protocols: Sequence[Protocol],
    annotated: Mapping[str, Sequence[str]],
    frames: Mapping[str, Sequence[str]] | None = None,
) -> list[Part]:
    """Cuts the frames to score into parts.

    Args:
      protocols: The rules, which say which frames of a sequence are scored.
      annotated: Sequence -> names of its frames that have a mask, in order.
      frames: Sequence -> names of all frames to visit (for flicker), in order; by default the annotated ones.

    Raises:
      ValueError: a protocol leaves no frame of a sequence.
    """
    parts: list[Part] = []
    for sequence, names in annotated.items():
        chosen = [frozenset(protocol.select_frames(sequence, names)) for protocol in protocols]
        visited = [(name, tuple(name in some for some in chosen)) for name in (frames or annotated)[sequence]]
        if frames is None:
            visited = [visit for visit in visited if any(visit[1])]
        starts = range(0, len(visited), PART_SIZE)
        parts += [Part(sequence, tuple(visited[start : start + PART_SIZE])) for start in starts]
    return parts


def score_methods(
    reader: Reader,
    methods: Sequence[str],
    protocols: Sequence[Protocol],
    parts: Sequence[Part],
    on_frame: Callable[[str, str, str, str, Mapping[str, float]], None] = lambda *_: None,
    num_workers: int = 1,
    flicker: bool = False,
) -> dict[tuple[str, str], Evaluator]:
    """Scores every part and shows progress.

    Args:
      reader: Gives masks and maps.
      methods: Names of the methods whose maps it gives.
      protocols: The rules to score by; each map is read once for all of them.
      parts: What `make_parts` gave.
      on_frame: Called with (method, protocol, sequence, frame, the frame's scalars), in the order of `parts`.
      num_workers: How many processes score, this one included. Each uses one thread.
      flicker: Whether to measure temporal stability.

    Returns:
      (method, protocol name) -> evaluator that holds all scores.

    Raises:
      ValueError: `num_workers` is below 1, or the reader or `Evaluator.add` raised it; the first part with an error
        counts.
      OSError: a worker died.
    """
    if num_workers < 1:
        raise ValueError(f"the number of workers must be 1 or more, not {num_workers}")
    work = _Work(reader, tuple(methods), tuple(protocols), flicker)
    totals = {(method, protocol.name): Evaluator(protocol) for method in methods for protocol in protocols}
    for evaluators, rows in progress(_run(work, parts, num_workers), len(parts), f"parts of {PART_SIZE} frames"):
        for key, evaluator in evaluators.items():
            totals[key].merge(evaluator)
        for row in rows:
            on_frame(*row)
    return totals


@dataclass(frozen=True)
class _Work:
    """What every part has in common; see `score_methods`."""

    reader: Reader
    methods: tuple[str, ...]
    protocols: tuple[Protocol, ...]
    flicker: bool


def _run(work: _Work, parts: Sequence[Part], num_workers: int) -> Iterator[Scores]:
    """Yields what each part scored, in order. This process is a worker too, as the others take a while to start."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    num_others = min(num_workers, len(parts)) - 1
    # The workers are spawned, because a fork would copy the locks of this process's threads.
    context = multiprocessing.get_context("spawn")
    pool = None
    if num_others:
        with safe_path():
            pool = ProcessPoolExecutor(num_others, context, initializer=_start_worker, initargs=(work,))
    futures: dict[int, Future[Scores]] = {}
    own: dict[int, Scores] = {}
    following = 0
    try:
        for index in range(len(parts)):
            while index not in own and not (index in futures and futures[index].done()) and following < len(parts):
                # Two parts wait for each of the others, so that none is idle while this process scores one itself.
                if pool and sum(not future.done() for future in futures.values()) < 2 * num_others:
                    with safe_path():  # the first one starts the processes
                        futures[following] = pool.submit(_score_in_worker, parts[following])
                else:
                    own[following] = _score_part(work, parts[following])
                following += 1
            yield own.pop(index) if index in own else futures.pop(index).result()
    except BrokenProcessPool:
        raise OSError("a worker process died, perhaps for want of memory; try fewer --num_workers") from None
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


_work: _Work | None = None  # that of a worker process, to which it is sent once and not with every part


def _start_worker(work: _Work) -> None:
    global _work
    _work = work
    if parent := multiprocessing.parent_process():
        end_with_parent(parent.sentinel)
    use_one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent reports an interruption


def _score_in_worker(part: Part) -> Scores:
    assert _work is not None, "_start_worker runs first"
    return _score_part(_work, part)


def _score_part(work: _Work, part: Part) -> Scores:
    """Returns what each method scored under each protocol, and a row for `on_frame` for each scored frame."""
    reader, methods, protocols = work.reader, work.methods, work.protocols
    evaluators = {(method, protocol.name): Evaluator(protocol) for method in methods for protocol in protocols}
    rows: list[Row] = []
    for frame, chosen in part.frames:
        flickers = reader.flicker(part.sequence, frame) if work.flicker else {}
        for method, value in flickers.items():
            for protocol in protocols:
                evaluators[method, protocol.name].add_flicker(part.sequence, value)
        if not any(chosen):
            continue
        mask, maps = reader.read(part.sequence, frame)
        for method in methods:
            for protocol, is_scored in zip(protocols, chosen, strict=True):
                if is_scored:
                    try:
                        scalars = evaluators[method, protocol.name].add(part.sequence, frame, maps[method], mask)
                    except ValueError as error:
                        name = reader.describe(method, part.sequence, frame)
                        raise ValueError(f"{name}: {error}") from None
                    if method in flickers:
                        scalars["temporal_stability"] = flickers[method]
                    rows.append((method, protocol.name, part.sequence, frame, scalars))
    return evaluators, rows
