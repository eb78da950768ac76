"""The stage `benchmark`: a public suite is played whole, written down as its authors do, and scored from that.

workdir/benchmark/POLICY/tasks/task-ID.json  what was played of a task, as soon as it is over
workdir/benchmark/POLICY/predictions.json    all of it in the authors' format
workdir/benchmark/POLICY/score.json          the numbers, each with its scorer and its denominator, and every record
workdir/benchmark/POLICY/score.html          the same, for a browser

Tasks are played in parts of `config.played_at_once`; a start that finds a part complete does not play it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrpo_jax.agent.policy import Policy
from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import Outcome
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.benchmark_files import PlayedFolder, played_of
from regrpo_jax.evaluation.decoding import TurnRequest, TurnWriter
from regrpo_jax.evaluation.score_table import print_score, write_score
from regrpo_jax.report.files import slug
from regrpo_jax.report.score_page import write_score_page
from regrpo_jax.rollouts.collect import CannotBegin, collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.players import Player
from regrpo_jax.run.run import Run
from regrpo_jax.stages.online import collect_settings, playing
from regrpo_jax.stages.recovery import played_digest
from regrpo_jax.stages.table import title_of
from regrpo_jax.suites.benchmark import STEPS, Benchmark, PlayedTask, PlayedTurn, Question, Score
from regrpo_jax.suites.find import benchmark_of
from regrpo_jax.training.loop import RunFolder
from regrpo_jax.training.metrics import StageProgress

FOLDER = "benchmark"
INFRA_ERROR = str(Outcome.INFRA_ERROR)
NO_PROMPT = "no_prompt"  # outcome of a task that the policy cannot begin with


def run(run: Run) -> None:
    """Plays the policy as it stands, or takes what an earlier start has played."""
    played, suite = run.played, benchmark_of(run.config)
    measure = run.measure("benchmark", lambda: Played(played.context, suite, played.player, played.reader))
    measure.measure(played.variables, run.trained)


class Played:
    """A suite, and the scores of the policies that have played it."""

    def __init__(self, context: RunFolder, suite: Benchmark, player: Player, reader: ConversationReader | None) -> None:
        self._context, self._suite, self._player, self._reader = context, suite, player, reader
        self._scores: dict[str, Score] = {}

    def measure(self, variables: dict[str, Any], trained: Mapping[str, int]) -> None:
        """Plays what is not there yet, and scores all of it.

        Args:
          trained: the stages that made the policy, in order, and their updates.
        Raises:
          UserError: the suite cannot be played, or no task of it can be begun.
        """
        config, suite = self._context.config, self._suite
        mode, title = config.eval.mode, "before"
        if mode not in suite.modes:
            raise UserError(f"config.eval.mode is {mode!r}; {config.suite.name} knows {', '.join(suite.modes)}")
        if trained:
            title = f"after {title_of(list(trained)[-1], config.online.algorithm)}"
        folder = self._context.workdir / FOLDER / slug(title)
        settings = collect_settings(config, self._context.workdir, self._reader, branches=1)
        tasks = suite.all_tasks()
        kept = PlayedFolder(folder / f"tasks-{mode}")
        kept.begin({**trained, "mode": mode, "temperature": config.eval.temperature, "seed": config.seed,
                    "at_once": config.played_at_once, "played": played_digest(config, tasks, settings)})  # fmt: skip
        for words in suite.notes:
            print(f"benchmark: {words}", flush=True)
        policy = self._player(variables, version=trained.get("online", 0), temperature=config.eval.temperature)
        if mode == STEPS:
            played = asked(suite.questions(), policy, kept, config)
        else:
            played = Episodes(policy, settings, kept, config).play(tasks)
        predictions = folder / suite.predictions_file
        suite.write_predictions(mode, played, predictions)
        score = suite.score([predictions])
        notes = (*lost(played, kept.folder.name), *suite.notes, *score.notes)
        self._scores[title] = score = replace(score, notes=tuple(dict.fromkeys(notes)))
        write_score(score, folder / "score.json")
        write_score_page(score, folder / "score.html")
        percents = {f"{figure.name}, {figure.scorer}": figure.percent for figure in score.figures}
        values = {name: percent for name, percent in percents.items() if percent is not None}
        self._context.writer.drop_after("benchmark", sum(trained.values()) - 1)
        self._context.writer.write("benchmark", sum(trained.values()), values)

    def print_tables(self) -> None:
        """What a run ends with."""
        for title, score in self._scores.items():
            print(f"{title}: {self._context.workdir / FOLDER / slug(title) / 'score.html'}", flush=True)
            print_score(score)


def lost(played: Sequence[PlayedTask], folder: str) -> list[str]:
    """What counts as wrong and is not the policy's doing, or may not be: a sentence a kind."""
    found = []
    for outcome, words in (
        (INFRA_ERROR, "ended in trouble of ours"),
        (NO_PROMPT, "could not be asked, or got no turn"),
    ):
        names = [one.id for one in played if one.outcome == outcome]
        if names:
            shown = ", ".join(names[:10]) + (" .." if len(names) > 10 else "")
            found.append(
                f"{len(names)} of {len(played)} {words} and count like unanswered ones ({shown}); remove their files "
                f"in {folder} to play them again"
            )
    return found


def asked(questions: Sequence[Question], policy: Policy, kept: PlayedFolder, config: Any) -> list[PlayedTask]:
    """A turn for each question, in order; those of a part that is there already are not asked for again."""
    writer = TurnWriter(policy, config.played_at_once, config.agent.turn_tokens, config.seed)
    with StageProgress("benchmark", len(questions)) as progress:
        for part in _parts(questions, config.played_at_once):
            if not kept.has(question.id for question in part):
                requests = [TurnRequest(one.id, one.conversation, one.images, one.opening) for one in part]
                for one, turn in zip(part, writer.write(requests), strict=True):
                    outcome = "asked" if turn.text else NO_PROMPT
                    kept.keep(PlayedTask(one.id, (PlayedTurn(turn.text),) if turn.text else (), outcome=outcome))
            progress.advance(len(part))
    return [kept.read(question.id) for question in questions]


@dataclass(frozen=True)
class Episodes:
    """Plays tasks from their beginning to their end, once each."""

    policy: Policy
    settings: CollectSettings
    kept: PlayedFolder
    config: Any

    def play(self, tasks: Sequence[Task]) -> list[PlayedTask]:
        """What was played of each, in order. UserError when none can be begun."""
        with playing(self.config) as environment, StageProgress("benchmark", len(tasks)) as progress:
            for start, part in zip(
                range(0, len(tasks), self.config.played_at_once), _parts(tasks, self.config.played_at_once), strict=True
            ):
                if not self.kept.has(task.id for task in part):
                    self._play_part(environment, part, start)
                progress.advance(len(part))
        played = [self.kept.read(task.id) for task in tasks]
        if played and all(one.outcome == NO_PROMPT for one in played):
            raise UserError(f"no task of the suite can be begun; the first: {played[0].error}")
        return played

    def _play_part(self, environment: Environment, part: Sequence[Task], first: int) -> None:
        try:
            self._collect(environment, part, first)
        except CannotBegin:  # which one is found out alone; other trouble ends the run, which goes on at its next start
            for number, task in enumerate(part):
                try:
                    self._collect(environment, [task], first + number)
                except CannotBegin as error:
                    self.kept.keep(PlayedTask(task.id, (), outcome=NO_PROMPT, error=str(error)))

    def _collect(self, environment: Environment, part: Sequence[Task], first: int) -> None:
        journal = _Journal(self.kept)
        _, counts = collect_groups(
            environment, self.policy, part, self.settings, seed=self.config.seed, first_group=first, journal=journal
        )
        for task in part:
            if not self.kept.has([task.id]):
                self.kept.keep(PlayedTask(task.id, (), outcome=NO_PROMPT, error="; ".join(counts.refused)))


@dataclass(frozen=True)
class _Journal:
    kept: PlayedFolder

    def begun(self, group: RolloutGroup, planned: int) -> None:
        """Nothing is kept of a task that has only begun."""

    def finished(self, rollout: Rollout) -> None:
        """An episode is over."""
        self.kept.keep(played_of(rollout))


def _parts(things: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [things[start : start + size] for start in range(0, len(things), size)]
