"""Episodes: turns in, typed observations out, budgets, and the same again when repeated or parked."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from PIL import Image

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.episode_result import EpisodeLimits, Outcome
from regrpo_jax.environments.faults import Fault, FaultKind
from regrpo_jax.environments.task import Followup
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType, Observation, Status
from regrpo_jax.sandbox.pool import SandboxPool
from tests.environments.conftest import SANDBOX, make_task, png, turn
from tests.environments.small_tools import LOADER
from tests.toolbox.sandbox_checks import workers_of
from tests.workers.own_checks import CHECK

REFLECTION = 'Reflection:\n- ErrorType: ArgInvalid\n- Evidence: "sum.txt"\n- FixPlan: Read it.\n'


def limited(environment: Environment, limits: EpisodeLimits) -> Environment:
    return Environment(environment.pool, limits)


def test_an_episode_from_failure_to_success(environment: Environment) -> None:
    task = make_task(faults=(Fault(FaultKind.RENAMED_FILE, "a.txt", {"name": "sum.txt"}),))
    with environment.reset(task) as episode:
        failed = episode.step(turn('text = read_text("a.txt")', "Read the file."))
        assert (failed.status, failed.images) == (Status.TOOL_ERROR, ())
        assert '"sum.txt"' in failed.text and failed.size >= len(failed.text) and failed.elapsed > 0
        assert not episode.done and not episode.success
        ended = episode.step(REFLECTION + turn('text = read_text("sum.txt")\nfinal_answer(int(text.split()[1]))'))
        assert ended.status == Status.OK
    assert (episode.done, episode.success, episode.answer) == (True, True, 42)
    first, second = episode.steps
    assert (first.index, first.thought, first.code) == (0, "Read the file.", 'text = read_text("a.txt")')
    assert [call.name for call in second.tool_calls] == ["read_text", "final_answer"]
    assert second.reflection is not None and second.reflection.error_type == ErrorType.ARG_INVALID
    assert second.observation == ended
    assert [run.status for runs in episode.tool_runs for run in runs] == [Status.TOOL_ERROR, Status.OK, Status.OK]
    result = episode.result
    assert (result.outcome, result.success, result.dropped) == (Outcome.ANSWERED, True, False)
    with pytest.raises(UserError, match="is over"):
        episode.step(turn("1"))


@pytest.mark.parametrize(
    "text", ["", "Thought: nothing", "Thought: x\nCode:\n```py\nprint(1)", "```bash\nls\n```", "```py\n\n```"]
)
def test_a_turn_without_code_is_told_what_is_expected(environment: Environment, text: str) -> None:
    with environment.reset(make_task()) as episode:
        seen = episode.step(text)
    assert seen.status == Status.INVALID_ACTION
    assert "```py" in seen.text and "final_answer" in seen.text and len(episode.steps) == 1


def test_an_unknown_tool_is_told_with_the_tools_there_are(environment: Environment) -> None:
    with environment.reset(make_task(tools=("search", "count"))) as episode:
        for code in ("fly(3)", 'read_text("a.txt")'):
            seen = episode.step(turn(code))
            assert seen.status == Status.INVALID_ACTION
            assert seen.text.endswith("Tools: count, final_answer, search.")


def test_a_wrong_answer_ends_the_episode_without_success(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        episode.step(turn('final_answer("17")'))
    assert (episode.done, episode.success, episode.outcome) == (True, False, Outcome.ANSWERED)


def test_none_is_an_answer(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        episode.step(turn("final_answer(None)"))
    assert (episode.outcome, episode.success) == (Outcome.ANSWERED, False)


def test_steps_run_out(environment: Environment) -> None:
    with limited(environment, EpisodeLimits(max_steps=2)).reset(make_task()) as episode:
        episode.step(turn("1"))
        assert not episode.done
        episode.step("no code")
        assert (episode.outcome, episode.success) == (Outcome.OUT_OF_STEPS, False)
    with limited(environment, EpisodeLimits(max_steps=1)).reset(make_task()) as episode:
        episode.step(turn("final_answer(42)"))
        assert episode.success


def test_a_check_sees_the_workspace_that_the_answer_left_though_others_want_the_place(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An episode is idle, and may be parked, from the moment on in which its action is over."""
    release = Environment._release

    def released(self: Environment, episode: Episode) -> None:
        release(self, episode)
        episode.park()

    monkeypatch.setattr(Environment, "_release", released)
    task = make_task(tools=(), checker=AnswerChecker(CheckKind.FUNCTION, CHECK))
    with environment.reset(task) as episode:
        episode.step(turn("paint('blue')\nfinal_answer(42)"))
        assert episode.success


def test_time_runs_out(environment: Environment) -> None:
    with limited(environment, EpisodeLimits(seconds=0.001)).reset(make_task()) as episode:
        episode.step(turn("sum(range(1000))"))
        late = episode.step(turn("final_answer(42)"))
        assert (late.status, episode.outcome, episode.success) == (Status.TIMEOUT, Outcome.OUT_OF_TIME, False)


def test_a_long_text_keeps_head_and_tail(environment: Environment) -> None:
    with limited(environment, EpisodeLimits(observation_characters=100)).reset(make_task()) as episode:
        seen = episode.step(turn('print("a" * 500 + "the end")'))
    assert seen.text.startswith("aaa") and seen.text.endswith("the end") and "characters omitted" in seen.text
    assert len(seen.text) < 160 and seen.size >= 507


def test_images_come_back_as_names_and_bytes(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        seen = episode.step(turn('paint("blue")'))
        assert seen.images == ("paint_1.png",)
    assert Image.open(io.BytesIO(episode.image("paint_1.png"))).getpixel((0, 0)) == (0, 0, 255)
    assert list(episode.images) == [(0, "paint_1.png")]
    assert episode.image("sign.png") == png()
    with pytest.raises(KeyError):
        episode.image("nothing.png")


def test_images_that_are_too_large_are_left_out(environment: Environment) -> None:
    with limited(environment, EpisodeLimits(image_bytes=10)).reset(make_task()) as episode:
        assert episode.step(turn('paint("blue")')).images == ()


def test_images_have_a_budget_of_a_step_and_of_an_episode(environment: Environment) -> None:
    made = "from PIL import Image\nimport os\nfor n in range(3):\n    open(f'{n}.png', 'wb').write(bytes([n]) * 1000)"
    limits = EpisodeLimits(image_bytes=1000, step_image_bytes=2000, episode_image_bytes=3000)
    with limited(environment, limits).reset(make_task()) as episode:
        first = episode.step(turn(made))
        assert first.images == ("0.png", "1.png") and first.text.endswith("no room for so large an image: 2.png)")
        second = episode.step(turn("for n in range(3):\n    open(f'{n}.png', 'wb').write(b'x' * (998 + n))"))
        assert second.images == ("0.png",) and "1.png, 2.png" in second.text
        assert sum(map(len, episode.images.values())) == 2998


def test_a_killed_worker_is_an_infra_error_and_the_next_episode_is_not_touched() -> None:
    with Environment.start(replace(SANDBOX, workers=1), loader=LOADER) as environment:
        with environment.reset(make_task()) as episode:
            assert episode.step(turn("1 + 1")).text == "2"
            for worker in workers_of(environment.pool):
                worker.kill()
            seen = episode.step(turn("final_answer(42)"))
            assert seen.status == Status.INFRA_ERROR
            assert (episode.done, episode.outcome, episode.success) == (True, Outcome.INFRA_ERROR, False)
            assert episode.result.dropped and episode.error == seen.text
        with environment.reset(make_task()) as episode:
            episode.step(turn("final_answer(42)"))
            assert episode.success


def play(environment: Environment, codes: list[str], park: bool = False) -> tuple[list[Observation], object]:
    faults = (Fault(FaultKind.TIMEOUT, "search", calls=(2,)), Fault(FaultKind.STALE_VALUE, "read_text", seed=3))
    with environment.reset(make_task(faults=faults, tools=())) as episode:
        seen = []
        for code in codes:
            if park:
                environment.leave(episode)
            seen.append(episode.step(turn(code)))
        return seen, episode.result


CODES = [
    "import random\nnumbers = [random.random() for _ in range(3)]\nprint(numbers)",
    'search("Rome")',
    'search("Rome")',
    'x = read_text("a.txt")\nprint(x)\npaint("red")',
    "undefined + 1",
    "crash()",
    'search("Rome")',
    "print(x)\nfinal_answer(numbers)",
]


def test_the_same_actions_give_the_same_observations(environment: Environment) -> None:
    first, second = play(environment, CODES), play(environment, CODES)
    assert first == second
    statuses = [seen.status for seen in first[0]]
    assert statuses[1:4] == [Status.OK, Status.TIMEOUT, Status.OK]
    assert statuses[4:6] == [Status.INVALID_ACTION, Status.TOOL_ERROR]
    assert "restarted" in first[0][5].text
    assert statuses[6] == Status.OK  # the calls before the restart still count


def test_a_parked_episode_goes_on_as_if_it_had_not_been(environment: Environment) -> None:
    assert play(environment, CODES, park=True) == play(environment, CODES)


def test_the_seed_decides_random_numbers(environment: Environment) -> None:
    seen = set()
    for seed in (1, 1, 2):
        with environment.reset(make_task(), seed=seed) as episode:
            seen.add(episode.step(turn(CODES[0])).text)
    assert len(seen) == 2


def test_what_the_policy_saw_stands_when_an_action_does_not_repeat(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        seen = episode.step(turn("import os\nx = 1\nprint(os.stat('.').st_ino, os.getpid())"))
        environment.leave(episode)
        code, before, tape = episode._since_start[0]
        episode._since_start[0] = (code, replace(before, text="something else", status=Status.EMPTY), tape)
        assert episode.step(turn("x")).text == "1"
        assert (episode.differed, episode.done, episode.steps[0].observation) == (1, False, seen)


def test_an_episode_goes_on_when_bringing_it_back_kills_it(environment: Environment) -> None:
    with environment.reset(make_task()) as episode:
        episode.step(turn("x = 1\nprint(x)"))
        environment.leave(episode)
        _, before, tape = episode._since_start[0]
        episode._since_start[0] = ("import os\nos._exit(0)", before, tape)
        assert episode.step(turn("final_answer(42)")).status == Status.OK
        assert (episode.differed, episode.success) == (1, True)


def test_more_episodes_than_workers_may_be_open(environment: Environment) -> None:
    episodes = [environment.reset(make_task(id=str(number))) for number in range(5)]
    for number, episode in enumerate(episodes):
        episode.step(turn(f"x = {number}"))
    for number, episode in enumerate(episodes):
        assert episode.step(turn("x")).text == str(number)
        assert len(environment._with_worker) <= environment.pool.settings.workers
    for episode in episodes:
        episode.close()
    assert not environment._with_worker


def test_tools_of_the_host_are_asked_once_however_often_an_episode_is_parked() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return f"{question} {len(asked)}"

    settings = replace(SANDBOX, workers=1, spares=0)
    with SandboxPool(settings, loader=LOADER, remote_tools={"ask": ask}) as pool, Environment(pool) as environment:
        episodes = [environment.reset(make_task(id=str(number), tools=())) for number in range(4)]
        seen: list[list[str]] = [[] for _ in episodes]
        for turn_number in range(3):
            for number, episode in enumerate(episodes):
                seen[number].append(episode.step(turn(f"x = ask('{number} {turn_number}')\nprint(x)")).text)
        assert len(asked) == 12 and sorted(text for texts in seen for text in texts) == sorted(
            f"{question} {place}" for place, question in enumerate(asked, 1)
        )
        assert [episode.step(turn("x")).text for episode in episodes] == [texts[-1] for texts in seen]
        assert len(asked) == 12 and not any(episode.differed for episode in episodes)


def test_giving_up_ends_an_episode(environment: Environment) -> None:
    episode = environment.reset(make_task(checker=AnswerChecker(CheckKind.EXACT, "x")))
    episode.step(turn("1"))
    episode.give_up("no more")
    assert (episode.outcome, episode.error) == (Outcome.INFRA_ERROR, "no more")
    episode.close()


def test_a_closed_environment_ends_its_episodes() -> None:
    pool = SandboxPool(replace(SANDBOX, workers=1, spares=0), loader=LOADER)
    try:
        with Environment(pool) as environment:
            episode = environment.reset(make_task())
            episode.step(turn("1"))
        assert episode.outcome == Outcome.INFRA_ERROR
        with pool.open() as session:
            assert session.run("1").text == "1"
    finally:
        pool.close()


def test_further_messages_of_the_user_come_in_the_place_of_the_end(environment: Environment) -> None:
    task = make_task(followups=(Followup("And of b?"), Followup("Paint it.", ("paint",))), tools=("read_text",))
    with limited(environment, EpisodeLimits(max_steps=2)).reset(task) as episode:
        assert "Tools: final_answer, read_text." in episode.step(turn("stop()")).text
        seen = episode.step(turn('print(read_text("a.txt"))\nfinal_answer(1)'))
        assert (seen.status, seen.text) == (Status.OK, "total 42\nTask: And of b?")
        assert episode.asked_again and not episode.done and episode.answer is None
        episode.environment.leave(episode)  # parked, and brought back by the same actions
        assert episode.step(turn("x = 1")).text == "" and not episode.asked_again
        assert episode.step(turn("final_answer(x)")).text == "Task: Paint it."
        assert "Tools: final_answer, paint, read_text." in episode.step(turn("stop()")).text
        episode.step(turn("final_answer(42)"))
        assert (episode.outcome, episode.success, episode.answer) == (Outcome.ANSWERED, True, 42)
    with limited(environment, EpisodeLimits(max_steps=2)).reset(task) as episode:
        episode.step(turn("final_answer(42)"))
        episode.step(turn("1"))
        episode.step(turn("1"))
        assert episode.outcome == Outcome.OUT_OF_STEPS and not episode.success
