"""Every hostile action is held, named rightly, ends in time, and leaves nothing for the next episode."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from tests.toolbox.hostile_actions import HOSTILE, Hostile
from tests.toolbox.sandbox_checks import INPUTS, files_of_uids, pool, probe, processes_left, workers_of

WRAP = "tests.toolbox.sandbox_tools:break_tools"


@dataclass
class Host:
    """What the actions aim at, and a pool they run in."""

    pool: SandboxPool
    expected: Any
    secret: str
    canary: Path
    port: int
    abstract: str
    uids: set[int]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    secret, abstract = "secret" + secrets.token_hex(8), secrets.token_hex(8)
    canary = tmp_path_factory.mktemp("host") / "canary"
    canary.write_text(secret)
    canary.chmod(0o666)
    os.environ["CANARY_KEY"] = secret
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as unix:
        server.bind(("127.0.0.1", 0))
        server.listen()
        unix.bind(f"\0{abstract}")
        unix.listen()
        with pool() as a_pool:
            yield Host(a_pool, probe(a_pool), secret, canary, server.getsockname()[1], abstract, set())
    del os.environ["CANARY_KEY"]


def aimed(action: Hostile, host: Host) -> str:
    code = action.code.replace("{canary}", str(host.canary)).replace("{port}", str(host.port))
    code = code.replace("{abstract}", host.abstract).replace("{pid}", str(os.getpid()))
    # An error quotes the line it came from: the word is spelled so that only running the line writes it.
    return code.replace("'LEAK", "'LE' 'AK").replace('"LEAK', '"LE" "AK')


def test_the_corpus_is_large_and_its_names_are_distinct() -> None:
    assert len({action.name for action in HOSTILE}) == len(HOSTILE) >= 60
    assert len({action.code for action in HOSTILE}) == len(HOSTILE)


@pytest.mark.parametrize("action", HOSTILE, ids=lambda action: action.name)
def test_hostile_action(host: Host, action: Hostile) -> None:
    settings = host.pool.settings
    host.uids |= {worker.command.uid for worker in workers_of(host.pool)} - {0}
    hidden = {"tool": "no_tool", "status": "ok", "secret": host.secret}
    behind = {"answers.csv": host.secret.encode()}
    with host.pool.open(INPUTS, seed=7, wrap=WRAP, wrap_settings=hidden, behind=behind) as session:
        started = time.monotonic()  # not before: a worker that the last action broke may still be on its way
        result = session.run(aimed(action, host))
        assert time.monotonic() - started < settings.wall_seconds + 60, "not ended by its deadline"
        again = session.run("print('still here')")  # whatever happened, the session goes on
        session.files()
    print(action.name, result.status, result.text[:200])
    assert result.status in action.statuses, result
    assert again.status is not Status.INFRA_ERROR
    shown = f"{result.text} {result.final_answer!r} {result.tool_calls} {again.text}"
    assert host.secret not in shown
    assert "LEAK" not in shown
    assert len(result.text.encode()) <= settings.output_bytes
    assert probe(host.pool) == host.expected, "the next episode sees it"
    assert host.canary.read_text() == host.secret
    assert processes_left(host.pool) == []


def test_nothing_is_left_on_the_host(host: Host) -> None:
    assert files_of_uids(host.uids) == []
