"""Episodes of later updates are played while the policy is trained: a fixed number of updates behind it.

    update n learns from what the policy after update max(0, n - 1 - staleness) played

The lag is fixed, not a race: an update that is early waits for that very policy, so that a seed decides it all. After a
start from a checkpoint, the policies before it are gone: the first `staleness` updates are played by the restored one.
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
    """A thread that plays updates in order; entered to start it, left to stop it.

    play: (number of the update, version of the policy, what is trained of it) -> what was played, in that thread only.
    first, last: updates that this start trains.
    """

    def __init__(self, play: Callable[[int, int, Tree], Played], *, staleness: int, first: int, last: int) -> None:
        self._play, self._staleness, self._first, self._last = play, staleness, first, last
        self._changed = threading.Condition()
        self._policies: dict[int, Tree] = {}  # by version, as long as an update is to be played with it
        self._played: dict[int, Played] = {}  # by number of the update, until it is taken
        self._error: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="play ahead", daemon=True)

    def __enter__(self) -> PlayAhead[Played]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits for what is being played; nothing uses the environment afterwards."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def __call__(self, number: int, trainable: Tree) -> Played:
        """Hands over the policy after update `number` - 1 and returns what is played for update `number`.

        Raises:
          Whatever `play` raised.
        """
        policy = jax.tree.map(jnp.copy, trainable)  # the update takes the memory of its own
        with self._changed:
            self._policies[number - 1] = policy
            self._changed.notify_all()
            self._changed.wait_for(lambda: number in self._played or self._error is not None)
            if number not in self._played:
                assert self._error is not None
                raise self._error
            return self._played.pop(number)

    def _run(self) -> None:
        try:
            for number in range(self._first, self._last + 1):
                version = played_version(number, self._staleness, self._first)
                policy = self._policy(version)
                if policy is None:
                    return
                played = self._play(number, version, policy)
                with self._changed:
                    self._played[number] = played
                    self._changed.notify_all()
        except BaseException as error:  # told to the thread that waits for it, which raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _policy(self, version: int) -> Tree | None:
        """Waits for a policy and forgets older ones; None after a stop."""
        with self._changed:
            self._changed.wait_for(lambda: version in self._policies or self._stopped)
            self._policies = {known: policy for known, policy in self._policies.items() if known >= version}
            return None if self._stopped else self._policies[version]
