"""The stage `score`: files of predictions that were made elsewhere are scored; no policy is needed, and nothing plays.

workdir/score.json   the numbers, each with its scorer and its denominator, and every record
workdir/score.html   the same, for a browser
"""

from __future__ import annotations

from pathlib import Path

from regrpo_jax.evaluation.score_table import print_score, write_score
from regrpo_jax.report.score_page import write_score_page
from regrpo_jax.run.record import prepare_workdir, record_run
from regrpo_jax.run.run import Run
from regrpo_jax.suites.find import benchmark_of


def run(run: Run) -> None:
    """Scores `config.eval.score_only`; several files are shards, in their order.

    Raises:
      UserError: a file is not there, or is none of the suite's.
    """
    score = benchmark_of(run.config).score([Path(name) for name in run.config.eval.score_only])
    prepare_workdir(run.workdir)
    record_run(run.config, run.workdir)
    write_score(score, run.workdir / "score.json")
    write_score_page(score, run.workdir / "score.html")
    print_score(score)
    print(f"written to {run.workdir / 'score.html'}", flush=True)
