"""What reaches a person without a traceback."""

import re
from collections.abc import Sequence


class UserError(Exception):
    """A mistake a person can mend: the message says what is wrong, where, and what to do.

    `regrpo_jax.main` prints the message and exits with status 2; libraries may catch it as any exception.
    """


class Preempted(BaseException):
    """The machine is wanted back, and what was learnt is written down; whoever catches errors does not catch this."""


def system_error(error: BaseException) -> int | None:
    """The number under which the operating system refused something, also where a library in another language says so.

    Rust's write "(os error 28)", tensorstore "[os_error_code='28']"; Python's own errors know it.
    """
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)|os_error_code='(\d+)'", str(error))
    return int(found[1] or found[2]) if found else None


def listed(problems: Sequence[str], most: int = 20) -> str:
    """The problems in one line, the first ones if there are many."""
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more
