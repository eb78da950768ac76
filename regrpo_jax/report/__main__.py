"""Writes `report.html` into the folder of a run, and says what is alarming about it.

python -m regrpo_jax.report WORKDIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.report.page import run_alarms, write_report


def main(arguments: Sequence[str]) -> None:
    """The command. UserError: the folder holds no run, or cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m regrpo_jax.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("workdir", type=Path, help="folder of the run")
    workdir = parser.parse_args(arguments).workdir
    path = write_report(workdir)
    for words in run_alarms(workdir):
        print(f"alarm: {words}")
    print(f"report written to {path}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        sys.exit(2)
