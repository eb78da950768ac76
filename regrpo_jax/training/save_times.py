"""When a checkpoint is due: after so many updates, or after so many minutes, whichever comes first."""

import time
from collections.abc import Callable

from regrpo_jax.hosts.agreement import told_by_first


class SaveTimes:
    """Of one stage. Time alone asks for a checkpoint only where a line of metrics was written.

    A resumed run then writes the same lines as an uninterrupted one, whenever the clock struck.

    Args:
      every: updates between checkpoints.
      minutes: since the last one, or since the stage was started.
      last: update of the stage.
      clock: seconds.
    """

    def __init__(self, *, every: int, minutes: float, last: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._seconds, self._last, self._clock = every, 60 * minutes, last, clock
        self._saved = clock()

    def is_due(self, number: int, *, has_line: bool) -> bool:
        """Whether update `number` is followed by a checkpoint, which the caller then writes."""
        now = self._clock()
        due = number % self._every == 0 or number == self._last
        if has_line and not due:  # the clocks of several processes differ: the first one's counts
            late = "late" if now - self._saved >= self._seconds else "early"
            due = told_by_first("the time of a checkpoint", late) == "late"
        if due:
            self._saved = now
        return due
