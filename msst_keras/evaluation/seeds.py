"""The results of trainings that differ in their seed alone: means, and how far they lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None (an empty cell) where there is none."""
    if None in values:
        return None, None
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def mean_result(results: Sequence[Mapping]) -> dict:
    """The mean of several metrics.json: numbers, and lists of numbers, over seeds; the rest is alike in all."""
    first = results[0]

    def mean(key):
        values = [result[key] for result in results]
        if isinstance(first[key], list):
            return [None if None in column else statistics.fmean(column) for column in zip(*values, strict=True)]
        return statistics.fmean(values) if isinstance(first[key], float) else first[key]

    return {key: mean(key) for key in first if key != "sequences"}
