"""When the frames of a live source were."""

from __future__ import annotations

import math

LONGEST_PAUSE = 10.0  # seconds; a longer step of a clock is a jump
_MOST_FRAMES_AHEAD = 10


class Clock:
    """Tells times that rise from 0: by the source's own clock where it has one, else by arrival.

    Flow is divided by the time between two frames, so a time far below the true one makes it far too large. Hence:

    After a jump, which is a clock that was set back or far ahead, or a long pause, nobody knows how much time passed
    for what is shown. One nominal frame is counted: flow is then that from one picture to the next.

    A step counts half a nominal frame at least. A source's own times can be rounded or equal, but a shorter step may
    be true, because the rate that a source names is often a mean. Without own times it counts a whole nominal frame:
    frames that waited in a buffer arrive in a burst, and that says nothing of when they were.

    What was counted too much is taken off the steps that follow, so that after a burst the times are true again. At
    most ten frames are: a source that is always faster than its nominal rate would otherwise hide its pauses. Without
    own times each frame of such a source counts as one, as in a file, and its seconds stay too long. Its rate is not
    measured, because a burst looks the same for a while and would make flow too large.
    """

    def __init__(self, frame_rate: float, has_times: bool):
        """Takes the nominal frames per second, and whether the source has times of its own."""
        self._frame, self._has_times = 1 / frame_rate, has_times
        self._now = math.nan  # the time of the frame before, as it came
        self._seconds: float | None = None  # the time that was told of it
        self._ahead = 0.0  # seconds that were counted and had not passed

    def tell(self, time: float | None, arrived: float) -> float:
        """Seconds since the first frame, given a frame's own time, None if it has none, and that of its arrival."""
        if self._has_times and time is None:  # from now on arrival counts, which is another clock: a jump
            self._has_times, self._now = False, math.nan
        now = time if self._has_times and time is not None else arrived
        step, self._now = now - self._now, now
        self._seconds = 0.0 if self._seconds is None else self._seconds + self._count(step)
        return self._seconds

    def _count(self, step: float) -> float:
        """The seconds to be counted for a step of the clock, NaN if it is not known."""
        if not 0 <= step <= LONGEST_PAUSE:  # also true for NaN
            self._ahead = 0.0
            return self._frame
        counted = max(step - self._ahead, self._frame / 2 if self._has_times else self._frame)
        self._ahead = min(self._ahead + counted - step, _MOST_FRAMES_AHEAD * self._frame)
        return counted
