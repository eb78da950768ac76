"""The stage `baselines` over real tools: a suite's tasks, a scripted policy, a table; needs no jax.

workdir/config.json      the configuration, versions and commit of the run
workdir/results.jsonl    one episode a line: turns, observations, answer; a repetition differs in "seconds" alone
workdir/tasks/           the tasks, so that the data engine can play them again (--config.data.source=workdir)
workdir/summary.json     the numbers of the table, and by difficulty
workdir/episodes.html    tasks, pictures, code and observations of some episodes, for a browser
"""

from __future__ import annotations

import json

from ml_collections import ConfigDict
from rich.progress import Progress

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.recovery import print_summary, summary, table_rows, to_json
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.environments.task import Task, write_tasks
from regrpo_jax.environments.viewer import write_run
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.run.record import prepare_workdir, record_run
from regrpo_jax.run.run import Run
from regrpo_jax.suites.find import suite_of
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair import BASELINES, Policy

_SHOWN = 50  # episodes that episodes.html shows, spread over the run


def run(run: Run) -> None:
    """Plays the tasks that `config.recovery` names, each once, and writes what became of them.

    Raises:
      UserError: for everything that a person can mend.
    """
    config, workdir = run.config, run.workdir
    policy, chosen, suite = config.baselines.policy, config.recovery, suite_of(config)
    (split,) = chosen.splits
    tasks = suite.tasks(split, chosen.tasks, chosen.seed)
    prepare_workdir(workdir)
    record_run(config, workdir)
    results = play(tasks, BASELINES[policy], config, suite.tools)
    lines = (json.dumps(to_json(result), ensure_ascii=False, sort_keys=True) for result in results)
    write_tasks(tasks, workdir / "tasks")
    replace_text(workdir / "results.jsonl", "".join(f"{line}\n" for line in lines))
    told = summary(results)
    replace_text(workdir / "summary.json", json.dumps(told, indent=2) + "\n")
    title = f"{policy} on {len(tasks)} tasks of {suite.name}, {split}"
    rows = {name: cells for section in table_rows(told) for name, cells in section.items()}
    write_run(workdir / "episodes.html", title, results, rows, most_episodes=_SHOWN)
    print_summary(title, told)
    print(f"everything was written to {workdir}", flush=True)


def play(tasks: list[Task], policy: Policy, config: ConfigDict, tools: SuiteTools) -> list[EpisodeResult]:
    """All episodes, in the order of the tasks; a bar shows how far it is."""
    with (
        start_environment(
            config.environment,
            tools.loader,
            tools.settings,
            max_steps=config.agent.max_steps,
            hidden=tools.hidden,
            workers=config.workers,
        ) as environment,
        Progress(transient=True) as bar,
    ):
        shown = bar.add_task("episodes", total=len(tasks))
        return run_episodes(environment, tasks, policy, progress=lambda done, _: bar.update(shown, completed=done))
