"""Trains and evaluates a tool-using policy as the stages of a config say.

    python -m regrpo_jax.main --config=FILE --workdir=DIR [--config.FIELD=VALUE ..]

  --config         a Python file with get_config(); configs/ holds some to start from
  --workdir        folder of the run: metrics, checkpoints, adapter; made if missing
  --config.FIELD   overrides a field, such as --config.rl.steps=50; regrpo_jax/config/base_config.py tells of each

Starting again with the same --workdir goes on where the last start stopped.
"""

import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.checks import check_config
from regrpo_jax.config.command_line import parse_command_line
from regrpo_jax.errors import Preempted, UserError, system_error
from regrpo_jax.hosts.endings import end, may_be_another, wait_for_news
from regrpo_jax.hosts.role import role
from regrpo_jax.hosts.supervisor import AGAIN, TOLD, is_supervised, supervise
from regrpo_jax.run.boards import check_boards
from regrpo_jax.run.corpus_files import with_corpus
from regrpo_jax.run.model_defaults import with_model_defaults
from regrpo_jax.run.record import identity_of
from regrpo_jax.run.run import Run
from regrpo_jax.sandbox.isolation import check_isolation
from regrpo_jax.sandbox.kernel import die_with_parent
from regrpo_jax.sandbox.results import SandboxError
from regrpo_jax.stages.table import STAGES, check_stages, plays_tools
from regrpo_jax.training.preemption import insist

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str]) -> None:
    """Runs what a person typed; one of several processes below one that has the last word, see `hosts.supervisor`.

    Args:
      arguments: what follows the program's name.
    Raises:
      UserError: for everything that a person can mend.
    """
    config, workdir = parse_command_line(arguments)
    check_config(config)
    if config.hosts.kind != "one" and not is_supervised():
        sys.exit(supervise(arguments, workdir))
    run_config(config, workdir)


def run_config(config: ConfigDict, workdir: Path) -> None:
    """Runs the stages of a config: first those that need no accelerator library, then those that have a policy.

    Raises:
      UserError: for everything that a person can mend.
    """
    check_config(config)
    if config.eval.score_only:
        config.stages = ("score",)  # only that
    check_stages(config)
    check_boards(config)
    if plays_tools(config) and config.workers.backend == "local":
        check_isolation(config.environment.allow_unisolated)  # a night's training must not end in this refusal
    run = Run(with_model_defaults(config), workdir)  # for all stages, because they share the record of the run
    if config.hosts.kind != "one":
        from regrpo_jax.hosts.connection import connect

        connect(config.hosts, workdir, identity_of(config))
    if "data" in config.stages:
        run.config = with_corpus(run.config, workdir)
    for name in config.stages:
        if STAGES[name].host:
            _on_first_process(run, name)
    if not all(STAGES[name].host for name in config.stages):
        from regrpo_jax.run.walk import walk  # jax takes seconds to import, a mistake is told at once

        walk(run, STAGES)
    if not role().alone:
        from regrpo_jax.hosts.connection import leave

        leave()


def _on_first_process(run: Run, name: str) -> None:
    """A stage without a policy; the other processes wait for what it writes."""
    if role().writes:
        STAGES[name].run(run)
    if not role().alone:
        from regrpo_jax.hosts.agreement import meet

        meet(f"the stage {name}")


def run_from_command_line() -> None:
    """`main`, with a person's mistakes told in one line instead of a traceback; exits with 2 after one."""
    arguments = sys.argv[1:]
    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    signal.signal(signal.SIGTERM, _told_to_end)  # a stage that trains has its own way to end
    insist()
    if is_supervised():
        die_with_parent()
    try:
        _run(arguments)
    except Preempted:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        print(f"told to end; {AGAIN}", file=sys.stderr)
        end(TOLD if is_supervised() else 0)
    except KeyboardInterrupt:
        print(f"stopped; {AGAIN}", file=sys.stderr)
        end(130)


def _run(arguments: Sequence[str]) -> None:
    try:
        main(arguments)
    except Exception as error:
        if may_be_another(error):
            wait_for_news()
        _tell(error)


def _tell(error: Exception) -> None:
    """What went wrong, as a person can mend it; a bug of ours in full."""
    number = system_error(error)
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    elif isinstance(error, SandboxError):
        print(f"error: {error}; {AGAIN}", file=sys.stderr)
    elif number in _NO_SPACE:
        where = getattr(error, "filename", None) or "--workdir"
        print(f"error: {where}: {os.strerror(number)}; free some space there and {AGAIN}", file=sys.stderr)
    elif role().alone:
        raise error
    else:
        traceback.print_exception(error)
        end(1)
    end(2)


def _told_to_end(*unused: object) -> None:
    raise Preempted


if __name__ == "__main__":
    run_from_command_line()
