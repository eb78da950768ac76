"""How a worker is started: in namespaces of its own by bubblewrap, or not at all unless a weaker mode was asked for.

With bubblewrap the worker sees /usr, Python and the modules it needs (`mounts.py`) read-only, three small file systems
in memory, no network, no other process, no environment of the host. Run by root, the worker becomes an unprivileged
user of its own after the mounts are made (the kernel does not count the processes of the real root); otherwise
bubblewrap makes a user namespace. `docs/security.md` says which promise rests on which of these.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.mounts import View, mount_arguments, program, view_of
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.system_calls import build_filter

_WORKER = "regrpo_jax.sandbox.worker"
_OLDEST_KERNEL = (5, 14)  # before it, processes were not counted per user namespace
_TRIAL_SECONDS = 60
# As a worker does: become another user, then read Python, a package that is installed, and our own.
_TRIAL = (
    "import os, sys\n"
    "uid = int(sys.argv[1])\n"
    "if uid:\n"
    "    os.setgroups([])\n"
    "    os.setresgid(uid, uid, uid)\n"
    "    os.setresuid(uid, uid, uid)\n"
    f"import numpy, {_WORKER}\n"
)
_log = logging.getLogger(__name__)
_worker_numbers = itertools.count()


@dataclass(frozen=True)
class Command:
    """How to start one worker. uid: the user it becomes, 0 for the one we are. workspace: "" when bubblewrap's."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    uid: int
    weak: bool
    workspace: str


def _real_root() -> bool:
    """Root of the machine itself, not of a user namespace, which owns other users."""
    return os.geteuid() == 0 and _ids("uid_map") == [(0, 4294967295)]


def _ids(name: str) -> list[tuple[int, int]]:
    """(first, number) of the ids that there are in this user namespace."""
    try:
        lines = Path(f"/proc/self/{name}").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    return [(int(first), int(number)) for first, _, number in map(str.split, lines)]


def _next_uid() -> int:
    """A user that nobody else is: counted from this process's id, far above what systems hand out.

    Root of a user namespace has only the ids that were given to it; 0 where there are too few.
    """
    if _real_root():
        return 0x40000000 + (os.getpid() % 2**22) * 256 + next(_worker_numbers) % 256
    last = min(max((first + number for first, number in _ids(name)), default=0) for name in ("uid_map", "gid_map"))
    blocks = (min(last, 2**31) - 2**14) // 256
    return 2**14 + (os.getpid() % blocks) * 256 + next(_worker_numbers) % 256 if blocks > 0 else 0


def _environment(python_path: Sequence[str], home: str) -> dict[str, str]:
    """All of the worker's environment: nothing of the host's gets in."""
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}
    return one_thread | {
        "PATH": f"{os.path.dirname(program())}:/usr/bin:/bin",
        "PYTHONPATH": ":".join(python_path),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONUTF8": "1",
        "MALLOC_ARENA_MAX": "2",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "HOME": home,
        "TMPDIR": "/tmp",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": "/tmp",
    }


def bubblewrap_arguments(settings: SandboxSettings, view: View) -> list[str]:
    """The bubblewrap command up to its `--`, without the descriptors of one start."""
    root = _real_root()
    found = shutil.which("bwrap")
    arguments = [os.path.abspath(found) if found else "bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
    arguments += ["--unshare-uts", "--unshare-cgroup-try"]
    if root:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox", "--clearenv"]
    for name, value in _environment(view.parents, view.workspace).items():
        arguments += ["--setenv", name, value]
    return [*arguments, *mount_arguments(view, settings, owner=not root), "--chdir", view.workspace]


def filter_file() -> int | None:
    """A descriptor to read the system call filter from; None where there is none for this architecture."""
    program = build_filter()
    if program is None:
        return None
    with tempfile.TemporaryFile() as file:
        file.write(program)
        file.seek(0)
        return os.dup(file.fileno())


def _try(arguments: Sequence[str], uid: int, environment: Mapping[str, str]) -> str:
    """Runs the trial; "" when it went well, else the last line of what was said."""
    command = [*arguments, program(), "-s", "-c", _TRIAL, str(uid)]
    try:
        done = subprocess.run(
            command, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_SECONDS
        )
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"nothing came within {_TRIAL_SECONDS} seconds, try again when the machine is less busy"
    words = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit status {done.returncode}"]
    return words[-1][:500] if done.returncode else ""


@functools.cache
def why_not_isolated() -> str:
    """Why workers cannot be isolated on this machine, and what mends it; "" when they can. Tries it, once."""
    if shutil.which("bwrap") is None:
        return f"bubblewrap is not installed; {_install('bubblewrap')}"
    if tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) < _OLDEST_KERNEL:
        return f"Linux {platform.release()} is older than 5.14; update it"
    if _real_root() and build_filter() is None:
        return f"there is no system call filter for {platform.machine()}; run as another user than root"
    arguments = bubblewrap_arguments(SandboxSettings(), view_of(SandboxSettings()))
    words = _try([*arguments, "--"], _next_uid() if _real_root() else 0, {})
    return f"bubblewrap does not start ({words}); {_allow(words)}" if words else ""


def _install(package: str) -> str:
    if shutil.which("apt-get") is None:
        return f"install {package} with this system's package manager"
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {package}"


def _allow(words: str) -> str:
    """What lets bubblewrap make namespaces, as far as this machine says what forbids it."""
    switches = {"kernel.apparmor_restrict_unprivileged_userns": "0", "kernel.unprivileged_userns_clone": "1"}
    for name, allowing in switches.items() if os.geteuid() else ():
        file = Path("/proc/sys", *name.split("."))
        if file.exists() and file.read_text(encoding="ascii").strip() != allowing:
            return f"sudo sysctl -w {name}={allowing}"
    if "nknown option" in words:
        return "version 0.7 or newer is needed"
    if words.startswith("bwrap:") and "execvp" not in words:
        return (
            "it must be allowed to make namespaces, which a container is with: docker run --cap-add SYS_ADMIN "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined"
        )
    return "make Python and this project readable for other users"


def check_isolation(allow_unisolated: bool) -> str:
    """Why workers start without walls, "" where they have them. Everything that starts workers asks here.

    Raises:
      UserError: there are no walls, and nobody said that it may go without; or it would go without as root.
    """
    if sys.platform != "linux":
        raise UserError(f"code actions need Linux (namespaces, process limits), this is {sys.platform}")
    reason = why_not_isolated()
    if not reason:
        return ""
    if not allow_unisolated:
        raise UserError(
            f"code that a model writes is not run without isolation: {reason} (to run it without, where you trust it: "
            "--config.environment.allow_unisolated=True, see docs/security.md)"
        )
    refusal = _why_only_root()
    if refusal:
        raise UserError(
            f"allow_unisolated never runs code actions as root, and here they would be: {refusal}; run as another "
            f"user, or mend why there is no isolation: {reason}"
        )
    return reason


@functools.cache
def _why_only_root() -> str:
    """Why root's workers cannot become another user; "" when they can, or we are not root."""
    if os.geteuid() != 0:
        return ""
    uid = _next_uid()
    if not uid:
        return "this user namespace has no other user"
    environment = _environment(view_of(SandboxSettings()).parents, "/")
    words = _try([], uid, environment)
    return f"another user cannot run {program()} with this project ({words})" if words else ""


@functools.cache
def _warn_once(reason: str) -> None:
    _log.warning(
        "code actions run WITHOUT isolation, as allow_unisolated=True asks: %s. They are limited (time, memory, "
        "processes, files) and killed, but can read what this user can read. See docs/security.md.",
        reason,
    )


def worker_command(settings: SandboxSettings, modules: Sequence[str], readable: Sequence[str] = ()) -> Command:
    """How to start a worker that can import `modules` and read `readable`.

    UserError as `check_isolation`, and when a module or something to make readable is not there.
    """
    reason = check_isolation(settings.allow_unisolated)
    view = view_of(settings, modules, readable)
    python = (program(), "-s", "-m", _WORKER)
    if reason:
        return weak_command(view, python, reason)
    uid = _next_uid() if _real_root() else 0
    path = {"PATH": os.environ.get("PATH", "")}
    return Command((*bubblewrap_arguments(settings, view), "--", *python), path, uid, False, view.workspace)


def weak_command(view: View, python: Sequence[str], reason: str) -> Command:
    """How to start a worker without namespaces, in a temporary folder; says once what that means."""
    uid = _next_uid() if os.geteuid() == 0 else 0
    _warn_once(reason)
    workspace = tempfile.mkdtemp(prefix="regrpo-sandbox-")
    if uid:
        os.chown(workspace, uid, uid)
    # TMPDIR too: what a tool writes beside its results goes away with the episode.
    environment = _environment(view.parents, workspace) | {"TMPDIR": workspace, "MPLCONFIGDIR": workspace}
    return Command(tuple(python), environment, uid, True, workspace)
