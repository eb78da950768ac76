"""How a worker is started: in namespaces of its own by bubblewrap, or in a weaker mode that says so.

With bubblewrap the worker sees /usr and Python read-only, three small file systems in memory, no network, no
other process, no environment of the host. Run by root, the worker becomes an unprivileged user of its own
after the mounts are made (the kernel does not count the processes of the real root); otherwise bubblewrap makes
a user namespace. `docs/security.md` says which promise rests on which of these.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
import os
import platform
import shutil
import site
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.sandbox.system_calls import build_filter

WORKSPACE = "/workspace"
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONFIGURATION = ("/etc/ld.so.cache", "/etc/alternatives")
_TEMPORARY_BYTES, _SHARED_BYTES = 32 * 2**20, 16 * 2**20
_WORKER = "regrpo_jax.toolbox.sandbox.worker"
_OLDEST_KERNEL = (5, 14)  # before it, processes were not counted per user namespace
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
    if os.geteuid() != 0:
        return False
    try:
        return Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]
    except OSError:
        return False


def _next_uid() -> int:
    """A user that nobody else is: counted from this process's id, far above what systems hand out."""
    return 0x40000000 + (os.getpid() % 2**22) * 256 + next(_worker_numbers) % 256


def package_folder(module: str) -> tuple[Path, Path]:
    """(what to make readable, what to put on the path) for the top package of a dotted module name.

    UserError when it cannot be found.
    """
    top = module.partition(":")[0].partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise UserError(f'the module of "{module}" is not installed here; install it, or add its folder to PYTHONPATH')
    if spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        return folder, folder.parent
    if spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(f'"{module}" is built into Python and holds no tools')
    file = Path(spec.origin).resolve()
    return file, file.parent


def _distinct(paths: Iterable[Path | str]) -> list[str]:
    return list(dict.fromkeys(str(path) for path in paths))


def _python_folders() -> list[str]:
    """Where this Python, its libraries and the installed packages are."""
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *site.getsitepackages()]
    paths += [os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.executable))]
    found = sorted({os.path.abspath(path) for path in paths if os.path.isdir(path)}, key=len)
    outer: list[str] = []
    for path in found:
        inside = any(path == known or path.startswith(known + "/") for known in [*outer, "/usr"])
        if path != "/" and not inside:
            outer.append(path)
    return outer


def _environment(python_path: Sequence[str], home: str) -> dict[str, str]:
    """All of the worker's environment: nothing of the host's gets in."""
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM")}
    return one_thread | {
        "PATH": f"{os.path.dirname(sys.executable)}:/usr/bin:/bin",
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


def _binds(settings: SandboxSettings, modules: Sequence[str], readable: Sequence[str]) -> tuple[list[str], list[str]]:
    """(folders and files the worker may read, folders for its PYTHONPATH)."""
    packages = [package_folder(module) for module in dict.fromkeys([_WORKER, *modules])]
    folders = [str(Path(path).resolve()) for path in settings.python_path]
    paths = _distinct([*_python_folders(), *(path for path, _ in packages), *folders, *settings.readable, *readable])
    for path in paths:
        if not os.path.exists(path):
            raise UserError(f'the sandbox is to make "{path}" readable, which does not exist')
    return [os.path.abspath(path) for path in paths], _distinct([*(parent for _, parent in packages), *folders])


def _mounts(settings: SandboxSettings, binds: Sequence[str], owner: bool) -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for path in _SYSTEM:
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    for path in _CONFIGURATION:
        yield from ("--ro-bind-try", path, path)
    mode = "0700" if owner else "1777"
    yield from ("--proc", "/proc", "--dev", "/dev")
    sizes = {WORKSPACE: settings.workspace_bytes, "/tmp": _TEMPORARY_BYTES, "/dev/shm": _SHARED_BYTES}
    for folder, size in sizes.items():
        yield from ("--perms", mode, "--size", str(size), "--tmpfs", folder)
    # After /tmp, below which some of them may lie. Left to itself, bubblewrap makes parents that only root enters.
    for parent in _distinct(parent for path in binds for parent in reversed(Path(path).parents)):
        if not parent.startswith("/usr") and parent not in ("/", *sizes):
            yield from ("--perms", "0755", "--dir", parent)
    for path in binds:
        yield from ("--ro-bind", path, path)
    yield from ("--remount-ro", "/dev", "--remount-ro", "/")


def bubblewrap_arguments(settings: SandboxSettings, binds: Sequence[str], environment: dict[str, str]) -> list[str]:
    """The bubblewrap command up to its `--`, without the descriptors of one start."""
    root = _real_root()
    arguments = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if root:
        arguments += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        arguments += ["--unshare-user", "--cap-drop", "ALL"]
    arguments += ["--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox", "--clearenv"]
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    return [*arguments, *_mounts(settings, binds, owner=not root), "--chdir", WORKSPACE]


def filter_file() -> int | None:
    """A descriptor to read the system call filter from; None where there is none for this architecture."""
    program = build_filter()
    if program is None:
        return None
    with tempfile.TemporaryFile() as file:
        file.write(program)
        file.seek(0)
        return os.dup(file.fileno())


@functools.cache
def why_not_isolated() -> str:
    """Why workers cannot be isolated on this machine; "" when they can. Tries it, once."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian, Ubuntu: apt-get install bubblewrap)"
    if tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2]) < _OLDEST_KERNEL:
        return f"Linux {platform.release()} is older than 5.14"
    if _real_root() and build_filter() is None:
        return f"there is no system call filter for {platform.machine()}; run as another user than root"
    arguments = bubblewrap_arguments(SandboxSettings(), _python_folders(), {"PATH": "/usr/bin"})
    try:
        done = subprocess.run([*arguments, "--", sys.executable, "-S", "-c", ""], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    words = done.stderr.decode("utf-8", "replace").strip()
    return "" if done.returncode == 0 else f"bubblewrap does not start: {words[:500] or done.returncode}"


@functools.cache
def _warn_once(reason: str) -> None:
    _log.warning(
        "code actions run WITHOUT isolation: %s. They are limited (time, memory, processes, files) and killed, but "
        "can read what this user can read. See docs/security.md; sandbox.require_isolation=True refuses this.",
        reason,
    )


def _readable_by_others(path: str) -> bool:
    """Whether another user gets to `path`."""
    return all(os.stat(folder).st_mode & 0o005 == 0o005 for folder in (path, *map(str, Path(path).parents)))


def worker_command(settings: SandboxSettings, modules: Sequence[str], readable: Sequence[str] = ()) -> Command:
    """How to start a worker that can import `modules` and read `readable`.

    UserError when isolation is required and not possible, or something to make readable is not there.
    """
    if sys.platform != "linux":
        raise UserError(f"code actions need Linux (namespaces, process limits), this is {sys.platform}")
    reason = why_not_isolated()
    if reason and settings.require_isolation:
        raise UserError(f"sandbox.require_isolation is True, and workers cannot be isolated here: {reason}")
    binds, python_path = _binds(settings, modules, readable)
    python = (sys.executable, "-s", "-m", _WORKER)
    if not reason:
        environment = _environment(python_path, WORKSPACE)
        arguments = bubblewrap_arguments(settings, binds, environment)
        uid = _next_uid() if _real_root() else 0
        return Command((*arguments, "--", *python), {"PATH": os.environ.get("PATH", "")}, uid, False, WORKSPACE)
    return weak_command(settings, binds, python_path, python, reason)


def weak_command(
    settings: SandboxSettings, binds: Sequence[str], python_path: Sequence[str], python: Sequence[str], reason: str
) -> Command:
    """How to start a worker without namespaces, in a temporary folder; says once what that means."""
    uid = 0
    if _real_root():
        if all(_readable_by_others(path) for path in binds):
            uid = _next_uid()
        else:
            reason += "; and as Python can be read by root only, they run as ROOT, without its capabilities"
    _warn_once(reason)
    workspace = tempfile.mkdtemp(prefix="regrpo-sandbox-")
    if uid:
        os.chown(workspace, uid, uid)
    # TMPDIR too: what a tool writes beside its results goes away with the episode.
    environment = _environment(python_path, workspace) | {"TMPDIR": workspace, "MPLCONFIGDIR": workspace}
    return Command(tuple(python), environment, uid, True, workspace)
