"""Episodes of later updates are played while the policy is trained: a fixed number of updates behind it.

    update n learns from what the policy after update max(0, n - 1 - staleness) played

The lag is fixed, not a race: an update that is early waits for that very policy, so that a seed decides it all. As soon
as the policy of the next update is there too, that is played beside the one before it, whose last episodes may wait for
a slow tool. After a start from a checkpoint, the policies before it are gone: the first `staleness` updates are played
by the restored one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp

Tree = dict[str, Any]
Played = TypeVar("Played")


def played_version(number: int, staleness: int, first: int) -> int:
    """Updates that the policy has seen which plays update `number` of a start whose first update is `first`."""
    return max(first - 1, number - 1 - staleness)


class PlayAhead(Generic[Played]):
    """Threads that begin updates in order; entered to start them, left to stop them.

    play: (number of the update, version of the policy, what is trained of it) -> what was played, in these threads
    only. first, last: updates that this start trains. at_once: updates that are played beside one another, at most; 1
    where one needs what was played for the one before it.
    """

    def __init__(
        self, play: Callable[[int, int, Tree], Played], *, staleness: int, first: int, last: int, at_once: int = 1
    ) -> None:
        self._play, self._staleness, self._first = play, staleness, first
        self._numbers = iter(range(first, last + 1))
        self._turn = threading.Lock()  # of the thread that takes the next number
        self._changed = threading.Condition()
        self._policies: dict[int, Tree] = {}  # by version, as long as an update is to be played with it
        self._played: dict[int, Played] = {}  # by number of the update, until it is taken
        self._errors: dict[int, BaseException] = {}  # by number of the update
        self._stopped = False
        self._threads = [threading.Thread(target=self._run, name="play ahead", daemon=True) for _ in range(at_once)]

    def __enter__(self) -> PlayAhead[Played]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is being played; nothing uses the environment afterwards."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __call__(self, number: int, trainable: Tree) -> Played:
        """Hands over the policy after update `number` - 1 and returns what is played for update `number`.

        Raises:
          Whatever `play` raised.
        """
        policy = jax.tree.map(jnp.copy, trainable)  # the update takes the memory of its own
        with self._changed:
            self._policies[number - 1] = policy
            self._changed.notify_all()
            self._changed.wait_for(lambda: number in self._played or min(self._errors, default=number + 1) <= number)
            if number not in self._played:
                raise self._errors[min(self._errors)]
            return self._played.pop(number)

    def _run(self) -> None:
        while (taken := self._next()) is not None:
            number, played, error = taken[0], None, None
            try:
                played = self._play(*taken)
            except BaseException as raised:  # told to the thread that waits for it, which raises it
                error = raised
            with self._changed:
                if error is None:
                    self._played[number] = played  # type: ignore[assignment]
                else:
                    self._errors[number], self._stopped = error, True
                self._changed.notify_all()

    def _next(self) -> tuple[int, int, Tree] | None:
        """The next update, the version of its policy and the policy, once it is there; None when nothing is left."""
        with self._turn:
            number = next(self._numbers, None)
            if number is None:
                return None
            version = played_version(number, self._staleness, self._first)
            policy = self._policy(version)
            return None if policy is None else (number, version, policy)

    def _policy(self, version: int) -> Tree | None:
        """Waits for a policy and forgets older ones; None after a stop."""
        with self._changed:
            self._changed.wait_for(lambda: version in self._policies or self._stopped)
            self._policies = {known: policy for known, policy in self._policies.items() if known >= version}
            return None if self._stopped else self._policies[version]
