"""Run as a program: the weaker mode still limits. Prints the users that its workers are, one a line."""

from __future__ import annotations

from pathlib import Path

from regrpo_jax.records.types import Status
from tests.toolbox.sandbox_checks import INPUTS, pool, workers_of

FORKS = "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(999)"


def main() -> None:
    with pool(workers=2, allow_unisolated=True) as weak:
        workers = workers_of(weak)
        workspaces = [Path(worker.command.workspace) for worker in workers]
        assert all(worker.command.weak for worker in workers) and all(path.is_dir() for path in workspaces)
        with weak.open(INPUTS) as session:
            print(session.run("import os\nos.getuid()").text)
            assert session.run("import os\nos.listdir('.')").text == "['notes.txt']"
            assert session.run("x = bytearray(2**33)").status is Status.TOOL_ERROR
            reached = session.run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)")
            assert reached.status is Status.TOOL_ERROR
            assert session.run(FORKS).status is Status.OK
            assert session.run("while True: pass").status is Status.TIMEOUT
            assert session.run("open('new', 'w').write('x')").status is Status.OK
        with weak.open() as session:
            assert session.run("import os\nos.listdir('.')").text == "[]"
            print(session.run("import os\nos.getuid()").text)
    assert not any(path.exists() for path in workspaces)


if __name__ == "__main__":
    main()
