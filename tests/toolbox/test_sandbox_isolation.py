"""Workers are isolated, or refused, or weaker where that was asked for; the filter; the folders of an episode."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.engine.demonstrations import write_demonstrations
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.errors import UserError
from regrpo_jax.sandbox import folders, isolation, mounts, system_calls
from regrpo_jax.sandbox.pool import SandboxPool
from tests.toolbox.sandbox_checks import INPUTS, LOADER, pool, probe, workers_of

ROOT = Path(__file__).resolve().parents[2]
BARE = "bubblewrap is not installed; apt-get install bubblewrap"
WEAKER_MODE = "tests.toolbox.weaker_mode"


def test_workers_are_isolated_where_the_tests_run() -> None:
    assert isolation.why_not_isolated() == ""


def test_the_environment_of_the_host_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret value")
    with pool() as a_pool, a_pool.open() as session:
        assert "secret" not in session.run("import os\ndict(os.environ)").text
        assert "secret" not in session.run("open('/proc/self/environ').read()").text


def test_an_unprivileged_host_uses_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_real_root", lambda: False)
    with pool() as a_pool:
        assert "--unshare-user" in workers_of(a_pool)[0].command.arguments
        with a_pool.open(INPUTS) as session:
            assert session.run("open('/proc/self/status').read().split('CapEff:')[1].split()[0]").text == "0" * 16
            assert "notes.txt" in session.run("import os\nos.listdir('/workspace')").text
        assert probe(a_pool) == probe(a_pool)


OPENINGS: dict[str, Callable[[Path], Any]] = {
    "a pool": lambda folder: SandboxPool(loader=LOADER),
    "an environment": lambda folder: Environment.start(loader=LOADER),
    "a stage": lambda folder: start_environment(base_config().environment, LOADER, max_steps=1),
    "demonstrations": lambda folder: write_demonstrations(folder, 1, 0),
}


@pytest.mark.parametrize("opening", OPENINGS)
def test_nothing_runs_without_isolation_unasked(opening: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "why_not_isolated", lambda: BARE)
    with pytest.raises(UserError, match="not run without isolation: .*apt-get install bubblewrap"):
        OPENINGS[opening](tmp_path)
    assert not list(tmp_path.iterdir())


def test_nothing_runs_without_isolation_as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "why_not_isolated", lambda: BARE)
    monkeypatch.setattr(isolation, "_why_only_root", lambda: "another user cannot run /root/python (Permission denied)")
    with pytest.raises(UserError, match="never runs code actions as root.*/root/python.*apt-get install bubblewrap"):
        pool(allow_unisolated=True)


def test_root_becomes_a_user_who_can_run_python_or_says_who_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    tried: list[int] = []

    def refused(arguments: object, uid: int, environment: object) -> str:
        tried.append(uid)
        return "Permission denied"

    monkeypatch.setattr(isolation, "_try", refused)
    monkeypatch.setattr(isolation, "_ids", lambda name: [(0, 4294967295)])
    told = isolation._why_only_root.__wrapped__()
    assert "Permission denied" in told and mounts.program() in told and tried[0] >= 0x40000000
    monkeypatch.setattr(isolation, "_ids", lambda name: [(0, 1)])  # root of a user namespace that has nobody else
    assert "no other user" in isolation._why_only_root.__wrapped__() and len(tried) == 1
    monkeypatch.setattr(isolation, "_ids", lambda name: [(0, 1), (1, 65536)])
    users = [isolation._next_uid() for _ in range(256)]
    assert len(set(users)) == 256 and min(users) > 1000 and max(users) < 65536
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert isolation._why_only_root.__wrapped__() == ""


def opened_up() -> list[str]:
    """Arguments of bubblewrap for a machine whose root has Python and this project where every user may read them."""
    if os.geteuid() != 0:
        return []
    arguments = [shutil.which("bwrap") or "bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev", "--cap-add", "ALL"]
    paths = [*mounts.view_of(mounts.SandboxSettings()).python, str(ROOT)]
    ways = {str(parent): parent for path in paths for parent in reversed(Path(path).parents)}
    closed = [name for name, parent in ways.items() if parent.stat().st_mode & 0o005 != 0o005]
    made: set[str] = {"/", *closed}
    for folder in closed:
        arguments += ["--perms", "0755", "--tmpfs", folder]
    for path in paths:
        if any(Path(path).is_relative_to(folder) for folder in closed):
            arguments += [*mounts._parents(path, made), "--bind", path, path]
    return [*arguments, "--"]


def test_the_weaker_mode_that_was_asked_for_says_so_once_and_still_limits() -> None:
    done = subprocess.run(
        [*opened_up(), sys.executable, "-m", WEAKER_MODE],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env={"PATH": "/nowhere", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "WITHOUT isolation" in line]
    assert len(told) == 1 and "bubblewrap is not installed" in told[0]
    uids = set(map(int, done.stdout.split()))
    assert 0 not in uids and uids, "never as root"


STAGES = {
    "evaluation": ["toolrepair"],
    "data": ["warm_start", "--config.stages=('data',)"],
    "online": ["recovery", "--config.stages=('sft','online')"],
    "recovery": ["recovery", "--config.stages=('recovery',)"],
    "audit": ["toolrepair", "--config.stages=('audit',)", "--config.audit.replay=True"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_on_a_bare_machine_ends_at_once_in_one_sentence(stage: str, tmp_path: Path) -> None:
    config, *options = STAGES[stage]
    (tmp_path / "apt-get").touch(mode=0o755)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "regrpo_jax.main", f"--config={ROOT / 'configs' / config}.py",
         f"--workdir={tmp_path / 'run'}", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env=os.environ | {"PATH": str(tmp_path)},
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, done.stdout, len(told)) == (2, "", 1), done.stderr[-3000:]
    assert told[0].startswith("error: ") and "apt-get install bubblewrap" in told[0]
    assert "--config.environment.allow_unisolated=True" in told[0]
    assert not (tmp_path / "run").exists(), "before anything costs time"
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "ml_collections" in imported and "jax" not in imported


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bwrap: setting up uid map: Permission denied", "docker run --cap-add SYS_ADMIN"),
        ("bwrap: Unknown option --size", "0.7 or newer"),
        ("bwrap: execvp /opt/python: Permission denied", "readable for other users"),
        ("PermissionError: [Errno 13] Permission denied: '/opt/python/site.py'", "readable for other users"),
    ],
)
def test_what_forbids_isolation_is_told_with_what_allows_it(
    words: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(isolation, "_try", lambda *arguments: words)
    reason = isolation.why_not_isolated.__wrapped__()
    assert words in reason and told in reason


def run_filter(program: bytes, machine: str, number: int, argument: int, third: int = 0) -> int:
    """The filter's verdict on a call, computed as the kernel does."""
    audit = system_calls.ARCHITECTURES[machine].audit
    data = struct.pack("=IIQQQQ", number, audit, 0, argument, 0, third)
    instructions = list(struct.iter_unpack("=HBBI", program))
    position, loaded = 0, 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            true = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            position += if_true if true else if_false


@pytest.mark.parametrize("machine", list(system_calls.ARCHITECTURES))
def test_the_filter_decides_as_it_says(machine: str) -> None:
    program = system_calls.build_filter(machine)
    assert program is not None
    known = system_calls.ARCHITECTURES[machine]
    refused, allowed = 0x00050000 | errno.EPERM, 0x7FFF0000
    special = {known.clone, known.clone3, known.prlimit, known.setsockopt, *known.sockets}
    assert not special & set(known.denied) and len(set(known.denied)) == len(known.denied)
    for number in set(range(460)) - special:
        assert run_filter(program, machine, number, 0) == (refused if number in known.denied else allowed)
    assert run_filter(program, machine, known.clone3, 0) == 0x00050000 | errno.ENOSYS
    assert run_filter(program, machine, known.clone, 0x1200011) == allowed  # what fork() asks for
    assert run_filter(program, machine, known.clone, 0x10000011) == refused
    assert run_filter(program, machine, known.prlimit, 0) == allowed
    assert run_filter(program, machine, known.prlimit, 1) == refused
    sizes = {option for option in range(80) if run_filter(program, machine, known.setsockopt, 1, option) == refused}
    assert sizes == {7, 8, 32, 33}  # SO_SNDBUF, SO_RCVBUF and their forced forms
    for number in known.sockets:
        assert [run_filter(program, machine, number, family) == allowed for family in (1, 2, 10, 16, 17, 38, 40)] == [
            *(True, False, False),
            *(False, False, False, False),
        ]
    if machine == "x86_64":
        assert run_filter(program, machine, 0x40000000 + 101, 0) == 0x00050000 | errno.ENOSYS


def test_an_unknown_architecture_has_no_filter() -> None:
    assert system_calls.build_filter("pdp11") is None


def test_folders_are_written_read_and_emptied_whatever_is_in_them(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    folders.write_file(str(root), "a/b/c.txt", b"text")
    (root / "link").symlink_to(outside / "kept")
    (root / "way").symlink_to(outside)
    os.mkfifo(root / "pipe")
    with os.fdopen(folders.open_file(str(root), "a/b/c.txt"), "rb") as file:
        assert file.read() == b"text"
    for name in ("link", "way/kept", "pipe", "a", "missing", "../outside/kept", "a//b", "x" * 300, "\0"):
        with pytest.raises(folders.FolderError):
            folders.open_file(str(root), name)
    with pytest.raises(folders.FolderError):
        folders.write_file(str(root), "way/new", b"x")
    folders.write_file(str(root), "link", b"new")
    assert (outside / "kept").read_text() == "kept"
    assert [name for name, _ in folders.digests(str(root), 10)] == ["a/b/c.txt", "link"]
    (root / "a" / "b").chmod(0)
    folders.empty_folder(str(root))
    assert list(root.iterdir()) == [] and (outside / "kept").exists()
    deep = root
    for _ in range(60):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(folders.FolderError, match="too deep"):
        folders.empty_folder(str(root))
