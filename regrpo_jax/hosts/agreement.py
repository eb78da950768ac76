"""What the processes of a run tell each other beside arrays: a few words in the store of jax's coordination service.

A value of the store is set once and never changed, so that whoever comes second takes what the first has said. Waiting
goes on in short steps, between which a signal is heard. One process alone agrees with itself.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from typing import Any

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from regrpo_jax.errors import UserError
from regrpo_jax.hosts.role import role

_STEP_MS = 500
_numbers: defaultdict[str, itertools.count] = defaultdict(itertools.count)  # how often each name was asked


def decided(key: str, word: str) -> str:
    """What is said under this key: this word, if nobody has said anything before."""
    try:
        _client().key_value_set(_place(key), word)
        return word
    except jax.errors.JaxRuntimeError as error:
        if "ALREADY_EXISTS" not in str(error):
            raise
        return heard(key)


def heard(key: str) -> str:
    """Waits until something is said under this key."""
    while True:
        try:
            return _client().blocking_key_value_get(_place(key), _STEP_MS)
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            time.sleep(0)  # here a signal is heard


def arrived(key: str) -> int:
    """How many processes have come to this key, with this one."""
    return _client().key_value_increment(_place(f"{key}/count"), 1)


def meet(name: str) -> None:
    """Waits until all processes have come here."""
    if role().alone:
        return
    key = _numbered(f"meet/{name}")
    if arrived(key) == role().count:
        decided(key, "all")
    heard(key)


def told_by_first(name: str, word: str) -> str:
    """What process 0 says, for all."""
    if role().alone:
        return word
    key = _numbered(f"first/{name}")
    return decided(key, word) if role().writes else heard(key)


def all_agree(what: str, word: str, remedy: str) -> None:
    """UserError in every process that says something else than process 0 does.

    Args:
      what: it is about, for people.
    """
    if told_by_first(what, word) != word:
        raise UserError(f"process {role().index} of {role().count} differs from process 0 in {what}; {remedy}")


def all_hold(name: str, holds: bool) -> bool:
    """Whether something holds in every process."""
    if role().alone:
        return holds
    key = _numbered(f"holds/{name}")
    if not holds:
        decided(key, "no")
    if arrived(key) == role().count:
        decided(key, "yes")
    return heard(key) == "yes"


def gathered(payload: bytes) -> list[bytes]:
    """What every process has to say, in their order; it goes over the devices, because it may be long."""
    if role().alone:
        return [payload]
    sizes = multihost_utils.process_allgather(np.array([len(payload)], np.int32))  # [process, 1]
    padded = np.zeros(1 << max(10, int(sizes.max() - 1).bit_length()), np.uint8)  # few shapes, each is a program
    padded[: len(payload)] = np.frombuffer(payload, np.uint8)
    found = multihost_utils.process_allgather(padded)  # [process, byte]
    return [row[:size].tobytes() for row, size in zip(found, sizes[:, 0], strict=True)]


def summed(values: dict[str, float]) -> dict[str, float]:
    """The sums of numbers over all processes, which have the same names."""
    if role().alone or not values:
        return values
    parts = [np.frombuffer(part, np.float64) for part in gathered(np.array(list(values.values())).tobytes())]
    return dict(zip(values, map(float, np.sum(parts, axis=0)), strict=True))


def _numbered(name: str) -> str:
    """Another key each time, the same in all processes, which ask in the same order."""
    return f"{name}/{next(_numbers[name])}"


def _place(key: str) -> str:
    return f"regrpo_jax/{key}"


def _client() -> Any:
    """jax has no public name for it; orbax asks for it in the same way."""
    return distributed.global_state.client
