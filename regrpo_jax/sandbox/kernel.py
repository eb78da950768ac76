"""The few calls to Linux that Python has no name for, and what can be read of processes in /proc."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Container, Iterable, Iterator

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _library().prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}, {value}): {os.strerror(error)}")


def die_with_parent() -> None:
    """SIGKILL for this process when the thread that started it ends; changes of uid undo it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def hide_memory() -> None:
    """No process of the same uid may read this one's memory, descriptors or environment, or trace it."""
    _prctl(_PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of this process."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def gain_nothing() -> None:
    """No program started from here gets more rights than it has (setuid files and file capabilities)."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_to(uid: int) -> None:
    """Become the unprivileged user `uid`, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def leave_network() -> bool:
    """Move into a network namespace without interfaces; False where the kernel does not let us."""
    if os.geteuid() == 0 and _library().unshare(_CLONE_NEWNET) == 0:
        return True
    return _library().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0


def processes() -> Iterator[int]:
    """Ids of the processes that /proc shows."""
    with os.scandir("/proc") as entries:
        yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def resident_bytes(pid: int | str = "self") -> int:
    """Memory of a process that is in RAM, shared pages included; 0 when it is gone.

    Of a process whose main thread has ended the kernel shows none; its other threads tell.
    """
    found = _resident(f"/proc/{pid}/statm")
    if found:
        return found
    return max((_resident(f"/proc/{pid}/task/{thread}/statm") for thread in _threads(pid)), default=0)


def _resident(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().split()[1]) * PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def _threads(pid: int | str) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def sockets() -> int:
    """How many sockets there are in this network namespace, those too that are only under way to another process."""
    with open("/proc/self/net/sockstat", encoding="ascii") as file:
        return int(file.readline().split()[-1])


def address_space_bytes() -> int:
    """What RLIMIT_AS counts of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * PAGE_BYTES


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1


def descendants(root: int) -> set[int]:
    """Ids of everything that `root` started, directly or not, as far as parents still live."""
    parents = {pid: _parent(pid) for pid in processes()}
    found: set[int] = set()
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if pid not in found and (parent == root or parent in found)}
        grown = bool(more)
        found |= more
    return found


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL; ids that are gone are passed over."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def alive(pids: Iterable[int]) -> set[int]:
    """Those of `pids` of which something still runs."""
    return {pid for pid in pids if not is_over(pid)}


def kill_descendants(root: int, keep: Container[int] = (), rounds: int = 50) -> None:
    """SIGKILL for all that `root` started, again until nothing that runs is left: what is killed may fork meanwhile."""
    for _ in range(rounds):
        found = alive(pid for pid in descendants(root) if pid not in keep)
        if not found:
            return
        kill_all(found)


def is_over(pid: int) -> bool:
    """Whether nothing of a process runs any more. Its main thread may have ended and others not."""
    if not _has_ended(f"/proc/{pid}/stat"):
        return False
    return all(_has_ended(f"/proc/{pid}/task/{thread}/stat") for thread in _threads(pid))


def _has_ended(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return True
