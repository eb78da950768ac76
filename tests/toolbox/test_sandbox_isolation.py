"""How workers are started, with namespaces and without; the filter; the folders of an episode."""

from __future__ import annotations

import errno
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.sandbox import folders, isolation, system_calls
from regrpo_jax.toolbox.sandbox.pool import SandboxPool
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings
from tests.toolbox.sandbox_checks import INPUTS, LIMITS, LOADER, pool, probe, workers_of


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


@pytest.fixture
def weak_pool(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[SandboxPool]:
    monkeypatch.setattr(isolation, "why_not_isolated", lambda: "bubblewrap is not installed (tested)")
    isolation._warn_once.cache_clear()
    caplog.set_level(logging.WARNING)
    settings = SandboxSettings(**{**LIMITS, "require_isolation": False, "workers": 2})
    with SandboxPool(settings, loader=LOADER) as a_pool:
        yield a_pool


def test_the_weaker_mode_says_so_once_and_still_limits(
    weak_pool: SandboxPool, caplog: pytest.LogCaptureFixture
) -> None:
    told = [record.getMessage() for record in caplog.get_records("setup") if "WITHOUT isolation" in record.getMessage()]
    assert len(told) == 1 and "bubblewrap is not installed" in told[0]
    workspaces = [Path(worker.command.workspace) for worker in workers_of(weak_pool)]
    assert all(path.is_dir() for path in workspaces)
    with weak_pool.open(INPUTS) as session:
        assert session.run("import os\nos.listdir('.')").text == "['notes.txt']"
        assert session.run("x = bytearray(2**33)").status is Status.TOOL_ERROR
        assert session.run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)").status is Status.TOOL_ERROR
        code = (
            "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(999)"
        )
        assert session.run(code).status is Status.OK
        assert session.run("while True: pass").status is Status.TIMEOUT
        assert session.run("open('new', 'w').write('x')").status is Status.OK
    with weak_pool.open() as session:
        assert session.run("import os\nos.listdir('.')").text == "[]"
    weak_pool.close()
    assert not any(path.exists() for path in workspaces)


def test_required_isolation_refuses_the_weaker_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "why_not_isolated", lambda: "bubblewrap is not installed (tested)")
    with pytest.raises(UserError, match="require_isolation.*not installed"):
        pool(require_isolation=True)


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
