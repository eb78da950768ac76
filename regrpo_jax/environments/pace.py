"""How long actions take here, so that one that hangs is noticed long before the sandbox's own limit ends it.

A limit that no honest action ever meets must be generous; waiting for it holds all the others up. Whoever can run a
turn again (see `rollouts.shared_play`) asks here how long to wait first: a turn that was given up too early costs one
more run and nothing else; the last run is not given up for being slow. Source of the idea: J. Dean, L. A. Barroso, "The
Tail at Scale" (2013), hedged requests.
"""

from __future__ import annotations

import threading
from collections import deque

_REMEMBERED = 256  # actions
_ENOUGH = 16  # actions that tell something
_SHARE = 0.95  # of the actions are no longer than what the patience is a multiple of
_TIMES = 4.0
_LEAST = 0.15  # seconds; a busy machine holds any action up for a moment
_AT_FIRST = 2.0  # seconds, while little is known


class Pace:
    """Seconds of the latest actions; may be used by several threads."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def note(self, seconds: float) -> None:
        """An action came to its end after so long."""
        with self._lock:
            self._seconds.append(seconds)

    @property
    def patience(self) -> float:
        """Seconds after which an action is late."""
        with self._lock:
            known = sorted(self._seconds)
        if len(known) < _ENOUGH:
            return _AT_FIRST
        return max(_LEAST, _TIMES * known[int(_SHARE * (len(known) - 1))])
