"""What the tests of the sandbox share: a pool under small limits, a probe, and the search for what is left over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.results import ActionResult
from regrpo_jax.sandbox.settings import SandboxSettings

LOADER = "tests.toolbox.sandbox_tools:load"
INPUTS: dict[str, bytes | Path] = {"notes.txt": b"one red apple\ntwo green pears\n"}
LIMITS: dict[str, Any] = {
    "wall_seconds": 3.0,
    "cpu_seconds": 20,
    "memory_bytes": 400 * 2**20,
    "max_processes": 16,
    "file_bytes": 16 * 2**20,
    "workspace_bytes": 48 * 2**20,
    "max_files": 400,
    "workers": 1,
    "spares": 0,
}
# What an episode can see of the one before it: files, environment, limits, tools, builtins, modules.
PROBES = (
    "import os, resource, sys, json, random, threading\nprint(read_text('notes.txt'), sorted(os.environ.items()))",
    "print([(p, sorted(os.listdir(p))) for p in ('.', '/tmp', '/dev/shm')], oct(os.umask(0o22)))",
    "names = sorted(n for n in dir(resource) if n[:7] == 'RLIMIT_' and n[7:] not in ('AS', 'CPU'))\n"
    "print([resource.getrlimit(getattr(resource, n)) for n in names])",
    "print(os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0)), threading.active_count())",
    "print(sorted(os.listdir('/proc/self/fd')), len([p for p in os.listdir('/proc') if p.isdigit()]))",
    "print(find('pears'), add(2, 3), len('abc'), json.dumps({'a': [1]}), random.random(), sys.gettrace())",
    "os.sched_yield()\nos.stat('.').st_mode, os.listxattr('.'), os.stat('notes.txt').st_mtime\n",
    "text = read_text('notes.txt')\nprint(len(text))\nread_text('missing.txt')",
    "find('nothing like it')",
    "undefined_name",
    "paint('red')",
    "final_answer({'sum': add(1, 2), 'text': text[:3]})",
)


def pool(**changes: Any) -> SandboxPool:
    return SandboxPool(SandboxSettings(**{**LIMITS, **changes}), loader=LOADER)


def probe(from_pool: SandboxPool) -> tuple[list[ActionResult], dict[str, str]]:
    """What an innocent episode sees."""
    with from_pool.open(INPUTS, seed=7) as session:
        results = [session.run(code) for code in PROBES]
        return results, session.files()


def workers_of(a_pool: SandboxPool) -> list[Any]:
    with a_pool._lock:
        return list(a_pool._all)


def processes_left(a_pool: SandboxPool) -> list[str]:
    """Processes of the pool's workers beyond bubblewrap and the two that stay."""
    left = []
    for worker in workers_of(a_pool):
        below = kernel.descendants(worker.process.pid)
        expected = 1 if worker.command.weak else 2
        if len(below) > expected:
            left += [f"{pid}: {_command(pid)}" for pid in sorted(below)]
    return left


def processes_of_uids(uids: set[int]) -> list[int]:
    """Processes of users that were made for workers."""
    found = []
    for pid in kernel.processes():
        try:
            if os.stat(f"/proc/{pid}").st_uid in uids:
                found.append(pid)
        except OSError:
            continue
    return found


def files_of_uids(uids: set[int]) -> list[str]:
    """Files in the host's temporary folders that belong to users that were made for workers."""
    found = []
    for folder in ("/tmp", "/dev/shm", "/var/tmp"):
        for path, folders, names in os.walk(folder):
            for name in (*folders, *names):
                full = os.path.join(path, name)
                try:
                    if os.lstat(full).st_uid in uids:
                        found.append(full)
                except OSError:
                    continue
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")[:200]
    except OSError:
        return "gone"
