"""Tool calls that hang, crash or fail as infrastructure: the run goes on, soon, and none of it is ever trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrpo_jax.agent.policy import Branch, EpisodePrompt, Prefix
from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.config.command_line import load_config
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.online_batches import OnlineBatch
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.task import Task
from regrpo_jax.main import run_config
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts import update_groups
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.shared_play import Action, SharedPlay
from regrpo_jax.sandbox.session import RESTARTED, SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.stages import online as online_stage
from regrpo_jax.suites.toolrepair import make_suite
from tests.rollouts.injected_faults import KINDS, FaultyEnvironment, untouched
from tests.rollouts.scripted_policy import ScriptedPolicy, ScriptedSession
from tests.rollouts.troubled_tools import LOADER

TINY = Path(__file__).parents[1] / "tiny_config.py"
WALL = 5.0  # seconds of an action
UPDATES, TASKS, BRANCHES = 2, 4, 4


@contextlib.contextmanager
def faulty(rate: float, kinds: Sequence[str] = KINDS, wall: float = WALL) -> Iterator[FaultyEnvironment]:
    with FaultyEnvironment.start(SandboxSettings(workers=2, wall_seconds=wall), loader=LOADER) as made:
        assert isinstance(made, FaultyEnvironment)
        made.rate, made.kinds = rate, tuple(kinds)
        yield made


@pytest.fixture(scope="module")
def always() -> Iterator[FaultyEnvironment]:
    with faulty(1.0, wall=1.0) as made:
        yield made


def turn(code: str) -> str:
    return f"Thought: go on.\n\nCode:\n```py\n{code}\n```"


@pytest.mark.parametrize(
    ("kind", "status"), [("infra", Status.INFRA_ERROR), ("hang", Status.TIMEOUT), ("crash", Status.TOOL_ERROR)]
)
def test_trouble_of_ours_is_dropped_and_a_kill_that_repeats_is_the_policys(
    always: FaultyEnvironment, kind: str, status: Status
) -> None:
    always.kinds = (kind,)
    task = make_suite("train", 1, 3, "compact", chosen=("moved",), surprises=0.0)[0]
    caught = f"try:\n    {task.oracle[0].code}\nexcept Exception:\n    print('fine')"
    with SharedPlay(always, [task]) as play:
        played = play.play(
            [
                Action(0, (), task.oracle[0].turn()),
                Action(0, (), turn(caught)),
                Action(0, (), turn("while True:\n    pass")),
                Action(0, (), turn("print(1)")),
            ]
        )
    tool, catching, endless, calm = played
    assert tool.status == catching.status == status
    assert tool.outcome == ("infra_error" if kind == "infra" else "")
    assert endless.status == Status.TIMEOUT, "what hangs without a tool is the policy's own doing"
    assert calm.status == Status.OK and always.hits[kind] >= 6


# What a policy could do to have its failures dropped: none of it is an infra error, none of it ends the episode.
VANISHING = {
    "the words of a kill": ("{call}\nprint({killed!r})", Status.TOOL_ERROR),
    "the words of a kill, caught": ("try:\n    {call}\nexcept Exception:\n    print({killed!r})", Status.OK),
    "words of ours": ("print('infra_error: the sandbox failed: a sandbox worker is closed')", Status.OK),
    "an endless loop after a call": ("try:\n    {call}\nexcept Exception:\n    while True: pass", Status.TIMEOUT),
    "an end after a call": ("import os\ntry:\n    {call}\nexcept Exception:\n    os._exit(1)", Status.TOOL_ERROR),
    "a message of ours": (
        "import json, os, struct\n"
        "text = json.dumps({{'done': 'x', 'status': 'infra_error', 'ended': {{}}, 'killed': 'wall'}}).encode()\n"
        "for fd in range(3, 64):\n"
        "    try: os.write(fd, struct.pack('!II', len(text), 0) + text)\n"
        "    except OSError: pass\n"
        "{call}",
        Status.TOOL_ERROR,
    ),
    "the tools killed at work": (
        "import os, threading, time\n"
        "def kill():\n"
        "    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
        "        if pid not in (1, os.getpid()):\n"
        "            try: os.kill(pid, 9)\n"
        "            except OSError: pass\n"
        "threading.Timer(0.05, kill).start()\n"
        "while True:\n"
        "    try: {call}\n"
        "    except Exception: pass",
        Status.TOOL_ERROR,
    ),
    "the tools stopped": (
        "import os, signal\n"
        "for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):\n"
        "    if pid not in (1, os.getpid()):\n"
        "        os.kill(pid, signal.SIGSTOP)\n"
        "{call}",
        Status.TIMEOUT,
    ),
    "an answer of the tools that is not the same twice": (
        "import os\nprint(os.getpid(), os.stat('.').st_ctime_ns)\n{call}",
        Status.TOOL_ERROR,
    ),
}


@pytest.fixture(scope="module")
def calm() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=2, wall_seconds=1.5), loader=LOADER) as made:
        yield made


@pytest.mark.parametrize("name", VANISHING)
def test_a_failure_cannot_vanish(calm: Environment, name: str) -> None:
    task = make_suite("train", 1, 3, "compact", chosen=("moved",), surprises=0.0)[0]
    code, status = VANISHING[name]
    wrong = f"{task.tools[0] if task.tools else 'read'}('no such name')"
    killed = f"Timeout: killed after 10 seconds. {RESTARTED}"
    with SharedPlay(calm, [task]) as play:
        (first,) = play.play([Action(0, (), turn(code.format(call=wrong, killed=killed)))])
        assert (first.status, first.outcome) == (status, ""), first
        (second,) = play.play([Action(0, (turn(code.format(call=wrong, killed=killed)),), turn("print(1)"))])
        assert (second.status, second.text, second.outcome) == (Status.OK, "1", "")


def test_a_call_that_hangs_once_costs_a_moment_and_not_the_limit() -> None:
    task = make_suite("train", 1, 3, "compact", chosen=("moved",), surprises=0.0)[0]
    with faulty(1.0, ("hang",), wall=300.0) as environment, SharedPlay(environment, [task]) as play:
        opened, trouble = environment.open_session, iter([1.0])

        def open_session(episode: Episode) -> SandboxSession:
            environment.rate = next(trouble, 0.0)
            return opened(episode)

        environment.open_session = open_session  # type: ignore[method-assign]
        begun = time.monotonic()
        (played,) = play.play([Action(0, (), task.oracle[0].turn())])
        assert played.status == Status.OK and play.retried == 1
        while not environment.hits and time.monotonic() < begun + 200:  # what was broken off ends beside us
            time.sleep(0.05)
        assert environment.hits == {"hang": 1} and time.monotonic() - begun < 200, "the limit is 300"


def test_a_kill_while_earlier_turns_are_done_again_costs_nobody_his_variables() -> None:
    task = make_suite("train", 1, 3, "compact", chosen=("moved",), surprises=0.0)[0]
    first = turn(f"x = 5\n{task.oracle[0].code}")
    with faulty(1.0, ("crash",)) as environment, SharedPlay(environment, [task]) as play:
        opened, trouble = environment.open_session, iter([0.0, 1.0])  # the second episode is killed as it catches up

        def open_session(episode: Episode) -> SandboxSession:
            environment.rate = next(trouble, 0.0)
            return opened(episode)

        environment.open_session = open_session  # type: ignore[method-assign]
        assert play.play([Action(0, (), first)])[0].status == Status.OK
        found = play.play([Action(0, (first,), turn("print(x)")), Action(0, (first,), turn("print(x + 1)"))])
        assert [(one.status, one.text) for one in found] == [(Status.OK, "5"), (Status.OK, "6")]
        assert play.retried == 1 and environment.hits == {"crash": 1}


class Actors:
    """Branch 0 plays the oracle's script, 1 its first step for ever, 2 answers wrongly at once, 3 writes no code."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)

    def __call__(self, branch: Branch, opening: str, number: int) -> str:
        steps = self.tasks[branch[0]].oracle
        place = (min(number, len(steps) - 1), 0)[min(branch[1], 1)]
        said = {2: turn('final_answer("wrong")'), 3: "Thought: I do not know."}.get(branch[1], "")
        return (said or dataclasses.replace(steps[place], reflection=None).turn()).removeprefix(opening)


class Follower(ScriptedPolicy):
    """Knows which of the states were started, and what a trainer wants of a prefix."""

    def __init__(self, reader: ConversationReader, tasks: Sequence[Task], first_group: int) -> None:
        super().__init__(reader.renderer, Actors(tasks), version=0)
        self.reader, self.tasks, self.first_group = reader, tasks, first_group

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> ScriptedSession:
        self.script = Actors([self.tasks[prompt.draw_id - self.first_group] for prompt in prompts])
        session = super().start(prompts, branches, seed)
        session.prefixes = [Prefix(*self.reader.read_prompt(prompt.turns, prompt.images)) for prompt in prompts]
        return session


@dataclasses.dataclass
class Watch:
    """What went into the updates of a stage."""

    environment: FaultyEnvironment
    tasks: dict[str, Task] = dataclasses.field(default_factory=dict)
    batches: list[tuple[list[RolloutGroup], OnlineBatch]] = dataclasses.field(default_factory=list)
    retried: int = 0


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """The online stage over a faulty environment, with a policy that follows a script."""
    collate = online_stage.collate_rollouts

    def collected(environment: Environment, policy: Any, states: Any, settings: Any, **chosen: Any) -> Any:
        tasks = [state.task for state in states]
        watch.tasks |= {task.id: task for task in tasks}
        follower = Follower(policy.reader, tasks, chosen["first_group"])
        groups, counts = collect_groups(environment, follower, states, settings, **chosen)
        watch.retried += counts.retried
        return groups, counts

    def collated(groups: Sequence[RolloutGroup], **chosen: Any) -> OnlineBatch:
        batch = collate(groups, **chosen)
        watch.batches.append((list(groups), batch))
        return batch

    with faulty(0.2) as environment:
        watch = Watch(environment)
        monkeypatch.setattr(online_stage, "playing", lambda config: contextlib.nullcontext(environment))
        monkeypatch.setattr(update_groups, "collect_groups", collected)
        monkeypatch.setattr(online_stage, "collate_rollouts", collated)
        yield watch


def test_the_stage_goes_on_and_no_rollout_that_was_hit_is_trained(stage: Watch, tmp_path: Path) -> None:
    config = load_config(TINY)
    config.stages = ("online",)
    config.data.prefix_buckets, config.data.branch_buckets = (256,), (768,)
    config.agent.turn_tokens, config.agent.episode_tokens = 200, 700
    config.online.steps, config.online.tasks, config.online.branches = UPDATES, TASKS, BRANCHES
    config.suite.families, config.suite.surprises = ("moved", "service"), 0.5
    config.optimizer.warmup_steps = 1
    run_config(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["stage"] == "online"] == list(range(1, UPDATES + 1))
    assert sum(stage.environment.hits.values()) > 2 and stage.retried > 0
    trained = 0
    for groups, batch in stage.batches:
        rows = [group for group in groups if group.counted]
        has_trained = np.asarray(batch.segments != 0).any(axis=-1)  # [row, branch]
        assert not has_trained[len(rows) :].any()
        for group, row in zip(rows, has_trained, strict=False):
            for rollout, used in zip(group.rollouts, row, strict=True):
                assert not (rollout.dropped and used)
                assert rollout.dropped or untouched(stage.environment, stage.tasks[group.task_id], rollout), rollout
                trained += bool(used)
    assert trained > UPDATES * TASKS


def test_observations_are_those_of_tools_that_work(
    environment: Environment, stage: Watch, reader: Any, settings: Any
) -> None:
    tasks = make_suite("train", 4, 11, "compact", chosen=("moved", "service", "search"), surprises=0.7)
    rules = dataclasses.replace(settings, branches=BRANCHES)
    rules = dataclasses.replace(rules, loop=dataclasses.replace(rules.loop, turn_tokens=400, episode_tokens=3000))
    policy = ScriptedPolicy(reader.renderer, Actors(tasks))
    expected: dict = {}
    clean, _ = collect_groups(environment, policy, tasks, rules, seed=1, expected=expected)
    hit, counts = collect_groups(stage.environment, policy, tasks, rules, seed=1, expected=expected)
    same = killed = 0
    for task, one, other in zip(tasks, hit, clean, strict=True):
        for rollout, right in zip(one.rollouts, other.rollouts, strict=True):
            if rollout.dropped:
                continue
            if not stage.environment.unhurt(task, rollout):  # killed in each of its attempts: counted as its own
                killed += 1
                continue
            assert rollout.tokens.tolist() == right.tokens.tolist()
            assert rollout.statuses == right.statuses
            same += 1
    assert counts.dropped + killed + same == len(tasks) * BRANCHES and same > len(tasks)
    assert sum(stage.environment.hits.values()) > 0
