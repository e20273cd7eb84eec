"""The results of trainings that differ only in their seed: their means, and how far they lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation; None (an empty cell) if a value is missing, or for the deviation of one."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None, None
    return statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None


def mean_result(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of several metrics.json over seeds: of numbers and lists of numbers; the rest is the same in all."""
    first = results[0]

    def mean(key: str) -> Any:
        """The mean of one entry over the results."""
        values = [result[key] for result in results]
        if isinstance(first[key], list):
            return [None if None in column else statistics.fmean(column) for column in zip(*values, strict=True)]
        return statistics.fmean(values) if isinstance(first[key], float) else first[key]

    return {key: mean(key) for key in first if key != "sequences"}
