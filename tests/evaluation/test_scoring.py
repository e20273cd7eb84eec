"""Tests of scoring over parts and processes: one result, whoever computes it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from msst_keras import processes
from msst_keras.evaluation import scoring
from msst_keras.evaluation.evaluator import Evaluator
from msst_keras.evaluation.protocols import PROTOCOLS
from msst_keras.evaluation.scoring import Part, make_parts, score_methods

PAPER, DAVSOD = PROTOCOLS["paper"], PROTOCOLS["davsod"]
FRAMES = {"bear": [f"{i:05d}" for i in range(21)], "cat": [f"{i:05d}" for i in range(40)], "dog": ["1", "2", "3"]}


@dataclass(frozen=True)
class RandomReader:
    """Masks and maps that depend on the names alone."""

    bad: str = ""
    dies: bool = False

    def read(self, sequence, frame):
        if self.dies:
            if multiprocessing.parent_process():  # in a worker, not in the process of the tests
                os._exit(1)
            time.sleep(0.05)  # so that the worker starts before all is scored
        generator = np.random.default_rng([*sequence.encode(), int(frame)])
        mask = np.zeros((12, 16), bool)
        mask[2 : generator.integers(4, 10), 3 : generator.integers(5, 12)] = True
        soft = (0.5 * mask + 0.5 * generator.random(mask.shape)).astype(np.float32)
        size = (2, 16) if f"{sequence}/{frame}" == self.bad else mask.shape
        return mask, {"ours": soft, "black": np.zeros(size, np.uint8)}

    def flicker(self, sequence, frame):
        return {"ours": int(frame) / 100} if int(frame) < 20 else {}

    def describe(self, method, sequence, frame):
        return f"{method}/{sequence}/{frame}.png"


def _score(num_workers, reader=RandomReader(), protocols=(PAPER, DAVSOD), flicker=True):  # noqa: B008
    rows = []
    parts = make_parts(protocols, FRAMES)
    evaluators = score_methods(
        reader, ("ours", "black"), protocols, parts, lambda *row: rows.append(row), num_workers, flicker
    )
    return {key: evaluator.result() for key, evaluator in evaluators.items()}, rows


@pytest.fixture(scope="module")
def alone():
    return _score(1)


def test_frames_are_cut_into_parts_within_a_sequence(monkeypatch):
    monkeypatch.setattr(scoring, "PART_SIZE", 2)
    parts = make_parts((PAPER, DAVSOD), {"a": "123", "b": "45678"})
    yes, no = (True, True), (True, False)
    assert parts == [
        Part("a", (("1", no), ("2", yes))),
        Part("a", (("3", no),)),
        Part("b", (("4", no), ("5", yes))),
        Part("b", (("6", yes), ("7", yes))),
        Part("b", (("8", no),)),
    ]
    assert make_parts((DAVSOD,), {"a": "123"}) == [Part("a", (("2", (True,)),))]
    visited = make_parts((PAPER,), {"a": "13"}, {"a": "123"})
    assert [frame for part in visited for frame in part.frames] == [("1", (True,)), ("2", (False,)), ("3", (True,))]


def test_a_sequence_too_short_for_a_protocol_is_refused():
    with pytest.raises(ValueError, match="sequence a has 2 annotated frames, and protocol davsod"):
        make_parts((PAPER, DAVSOD), {"a": "12"})


def test_scores_are_those_of_the_evaluator(alone):
    results, rows = alone
    evaluator, reader = Evaluator(DAVSOD), RandomReader()
    expected = []
    for sequence, frames in FRAMES.items():
        for frame in frames[1:-1]:
            mask, maps = reader.read(sequence, frame)
            scalars = evaluator.add(sequence, frame, maps["ours"], mask)
            flicker = {"temporal_stability": int(frame) / 100} if int(frame) < 20 else {}
            expected.append(("ours", "davsod", sequence, frame, scalars | flicker))
    assert [row for row in rows if row[:2] == ("ours", "davsod")] == expected
    ours, whole = results["ours", "davsod"], evaluator.result()
    assert (ours["num_frames"], ours["num_sequences"]) == (19 + 38 + 1, 3)
    for key in ("mae", "max_f", "s_measure"):
        assert ours[key] == pytest.approx(whole[key], abs=1e-12)
    assert results["black", "paper"]["num_frames"] == 64 and results["black", "paper"]["s_measure"] < 0.6


def test_flicker_counts_once_for_each_frame_that_has_it(alone):
    results, _ = alone
    frames = [int(frame) for names in FRAMES.values() for frame in names if int(frame) < 20]
    assert results["ours", "paper"]["temporal_stability"] == pytest.approx(np.mean(frames) / 100)
    assert results["black", "paper"]["temporal_stability"] is None
    results, _ = _score(1, flicker=False)
    assert results["ours", "paper"]["temporal_stability"] is None


def test_any_number_of_processes_gives_the_same_to_the_bit(alone):
    assert _score(3) == alone


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_names_the_file(num_workers):
    with pytest.raises(ValueError, match=r"^black/cat/00017.png: sequence cat, frame 00017: the map is \(2, 16\)"):
        _score(num_workers, RandomReader(bad="cat/00017"))


def test_a_worker_that_dies_is_reported():
    with pytest.raises(OSError, match="a worker process died, .* try fewer --num_workers"):
        _score(2, RandomReader(dies=True))


def test_no_worker():
    with pytest.raises(ValueError, match="the number of workers must be 1 or more, not 0"):
        _score(0)


def test_threads_are_as_before():
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        _score(1)
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_memory_does_not_grow_with_the_number_of_frames():
    # What stays of a part is one evaluator with a sum for each score: its size is that of one frame's scores.
    sizes = []
    for num_frames in (3, 300):
        parts = make_parts((PAPER,), {"cat": [str(i) for i in range(num_frames)]})
        evaluators = score_methods(RandomReader(), ("ours",), (PAPER,), parts)
        sizes.append(len(pickle.dumps(evaluators["ours", "paper"])))
    assert abs(sizes[1] - sizes[0]) < 64


def test_count_cores():
    assert 1 <= processes.count_cores() <= os.cpu_count()
