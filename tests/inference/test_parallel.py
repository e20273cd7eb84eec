"""Order, bounds and errors of work done side by side."""

from __future__ import annotations

import threading
import time

import pytest

from msst_keras.inference.parallel import map_in_order


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
