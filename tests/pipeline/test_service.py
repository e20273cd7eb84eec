"""Batches of a tf.data service: put in order, and made here where a worker took them with it."""

from __future__ import annotations

import itertools
import threading

import pytest
import tensorflow as tf

from msst_keras.pipeline.service import NUMBER, PATIENCE, in_order, listen, serve


def batch(number):
    return {NUMBER: tf.constant([number, number + 1]), "value": tf.constant([10.0 * number])}


def values(batches):
    found = list(batches)
    assert all(set(each) == {"value"} for each in found)
    return [float(each["value"][0]) for each in found]


def never(number):
    raise AssertionError(f"{number} is not missing")


def test_batches_come_in_the_order_of_their_numbers():
    coming = [batch(number) for number in (4, 0, 6, 2, 8)]
    assert values(in_order(coming, range(0, 10, 2), never)) == [0, 20, 40, 60, 80]


@pytest.mark.parametrize("last", [10, 6 + 2 * PATIENCE + 20])
def test_a_lost_batch_is_made_here_whether_more_come_or_not(last):
    made = []

    def make(number):
        made.append(number)
        return batch(number)

    coming = (batch(number) for number in range(0, last, 2) if number != 6)
    assert values(in_order(coming, range(0, last, 2), make)) == [10.0 * number for number in range(0, last, 2)]
    assert made == [6]


def test_a_batch_that_comes_when_it_was_made_here_is_not_given_twice():
    numbers = [0, *range(4, 4 + 2 * PATIENCE + 4, 2), 2]
    coming = (batch(number) for number in numbers)
    assert values(in_order(coming, sorted(numbers), batch)) == [10.0 * number for number in sorted(numbers)]


def test_no_more_batches_wait_than_patience_allows():
    taken = []

    def coming():
        for number in range(2, 400, 2):
            taken.append(number)
            yield batch(number)

    next(in_order(coming(), range(0, 400, 2), batch))
    assert len(taken) == PATIENCE


@pytest.mark.parametrize("address", ["localhost:5050", "grpc://localhost", "grpc://:5050", "http://localhost:5050", ""])
def test_another_kind_of_address_is_refused(address):
    with pytest.raises(ValueError, match="a data service has an address grpc://HOST:PORT"):
        serve(tf.data.Dataset.range(3), address)


def test_a_service_that_falls_silent_is_not_waited_for_until_it_is_heard_again(capsys):
    go_on = threading.Event()

    def coming():
        yield batch(0)
        go_on.wait()
        yield batch(6)

    numbers, made = [0, 2, 4, 6], []

    def make(number):
        made.append(number)
        if number == 4:
            go_on.set()
        return batch(number)

    batches = in_order(listen(coming(), silence=0.2), numbers, make)
    assert values(itertools.islice(batches, 3)) == [0, 20, 40]
    assert made == [2, 4]
    assert capsys.readouterr().err.count("the data service is silent") == 1
    assert values(batches) == [60]


def test_a_service_that_is_lost_is_done_without(capsys):
    def coming():
        yield batch(0)
        raise tf.errors.UnavailableError(None, None, "connection refused\nmore")

    assert values(in_order(listen(coming()), [0, 2, 4], batch)) == [0, 20, 40]
    assert "the data service is gone (connection refused); batches are made here" in capsys.readouterr().err


def test_what_is_wrong_with_a_record_is_raised():
    def coming():
        yield batch(0)
        raise tf.errors.DataLossError(None, None, "corrupted record")

    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        list(in_order(listen(coming()), [0, 2], never))
