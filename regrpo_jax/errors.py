"""What reaches a person without a traceback."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake a person can mend: the message says what is wrong, where, and what to do.

    `regrpo_jax.main` prints the message and exits with status 2; libraries may catch it as any exception.
    """


class Preempted(BaseException):
    """The machine is wanted back, and what was learnt is written down; whoever catches errors does not catch this."""


def listed(problems: Sequence[str], most: int = 20) -> str:
    """The problems in one line, the first ones if there are many."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
