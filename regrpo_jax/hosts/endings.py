"""How a process of several ends when something went wrong: without waiting for the others, and without blaming itself.

Where another process died, this one meets an error of its own, whichever call it was in: a collective that broke off, a
checkpoint that not all wrote. What is known of the death arrives a little later, at the process above (`supervisor`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

from regrpo_jax.hosts.role import role

_SAID = (
    "Gloo", "heartbeat", "oordination", "Connection reset", "Connection closed", "Socket closed", "UNAVAILABLE",
    "DEADLINE_EXCEEDED", "barrier", "Barrier", "NCCL", "Broken pipe",
)  # fmt: skip


def may_be_another(error: BaseException) -> bool:
    """Whether an error looks like the death of another process, from here."""
    return not role().alone and any(
        type(one).__module__.partition(".")[0] in ("jax", "jaxlib", "orbax", "builtins")
        and not isinstance(one, OSError)
        and any(words in str(one) for words in _SAID)
        for one in _behind(error)
    )


def wait_for_news() -> None:
    """Until the process above ends this one, or jax does, as long as that may take at most."""
    time.sleep(role().patience)


def end(status: int) -> NoReturn:
    """Ends this process; jax, left to itself, would wait for the others before that."""
    if not role().alone:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _behind(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
