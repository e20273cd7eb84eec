"""Order, bounds and errors of work done side by side."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from msst_keras.inference.parallel import map_in_order, read_ahead


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_results_come_in_order_whoever_is_done_first(num_workers):
    def slow_at_first(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    assert list(map_in_order(slow_at_first, range(12), num_workers)) == [number * number for number in range(12)]


def test_items_are_worked_on_at_the_same_time():
    both = threading.Barrier(2, timeout=10)  # passed only when two threads wait at it
    assert len(list(map_in_order(lambda _: both.wait(), range(4), 2))) == 4


@pytest.mark.parametrize("num_workers", [1, 3])
def test_no_more_items_are_taken_than_are_worked_on(num_workers):
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number

    for number in map_in_order(lambda number: number, items(), num_workers):
        assert len(taken) <= number + 1 + num_workers


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_comes_in_its_turn_and_ends_the_work(num_workers):
    begun, results = [], []

    def fail_at_three(number):
        begun.append(number)
        if number == 3:
            raise ValueError("frame 3 is damaged")
        return number

    with pytest.raises(ValueError, match="frame 3 is damaged"):
        for number in map_in_order(fail_at_three, range(100), num_workers):
            results.append(number)
    assert results == [0, 1, 2] and max(begun) < 3 + 2 * num_workers


def test_no_worker():
    with pytest.raises(ValueError, match="at least one worker, got 0"):
        list(map_in_order(str, [1], 0))


def read_ahead_threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


@pytest.mark.parametrize("num_ahead", [0, 1, 3])
def test_a_chain_of_stages_gives_what_its_stages_give_one_after_the_other(num_ahead):
    def stage(items, factor):
        for number in items:
            time.sleep(0.001 * (number % 3))
            yield factor * number

    first = read_ahead(stage(range(30), 2), num_ahead)
    assert list(read_ahead(stage(first, 5), num_ahead)) == [10 * number for number in range(30)]
    assert not read_ahead_threads()


def test_stages_work_at_the_same_time():
    both = threading.Barrier(2, timeout=10)  # passed only when two threads wait at it

    def items():
        for number in range(3):
            yield number
            both.wait()

    for _ in read_ahead(items(), 1):
        both.wait()


@pytest.mark.parametrize("num_ahead", [0, 1, 4])
def test_no_more_items_are_made_ahead_than_was_said(num_ahead):
    made = []

    def items():
        for number in range(40):
            made.append(number)
            yield number

    for number in read_ahead(items(), num_ahead):
        time.sleep(0.002)
        assert len(made) <= number + 1 + num_ahead
    assert len(made) == 40


@pytest.mark.parametrize("num_ahead", [0, 2])
def test_an_error_of_a_stage_comes_behind_the_items_before_it(num_ahead):
    closed, results = [], []

    def items():
        try:
            yield from range(3)
            raise ValueError("frame 3 is damaged")
        finally:
            closed.append(threading.current_thread().name)

    with pytest.raises(ValueError, match="frame 3 is damaged"):
        for number in read_ahead((2 * number for number in read_ahead(items(), num_ahead)), num_ahead):
            results.append(number)
    assert results == [0, 2, 4] and not read_ahead_threads()
    assert closed == ["read_ahead" if num_ahead else "MainThread"]


def test_who_stops_reading_ends_the_threads_and_closes_what_they_read():
    closed = []

    def items():
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    def doubled():
        with contextlib.closing(read_ahead(items(), 2)) as numbers:
            yield from (2 * number for number in numbers)

    with pytest.raises(KeyboardInterrupt), contextlib.closing(read_ahead(doubled(), 2)) as numbers:
        for number in numbers:
            if number == 20:
                raise KeyboardInterrupt
    assert closed == [True] and not read_ahead_threads()


def test_what_is_no_iterable_and_a_negative_number():
    with pytest.raises(TypeError, match="not iterable"):
        list(read_ahead(3, 1))
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        list(read_ahead([], -1))
