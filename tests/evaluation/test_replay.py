"""Replay with a policy whose words are given: the gate decides, and what counts as right is what was recorded."""

from collections.abc import Callable, Sequence

import pytest

from regrpo_jax.agent.policy import ACTION_OPENING, REFLECTION_OPENING
from regrpo_jax.evaluation.decoding import GeneratedTurn, TurnRequest
from regrpo_jax.evaluation.replay import Episode, replay
from regrpo_jax.evaluation.report import metrics_by_error_type, print_error_types, print_table, replay_metrics
from regrpo_jax.records import RotRecord, Turn

NOT_FOUND = "Error: File not found: b.csv"
RIGHT = 'inspect_file_as_text("a.csv")'
WRONG = 'inspect_file_as_text("b.csv")'
REFLECTION = f"Reflection:\n- ErrorType: ArgInvalid\n- Evidence: It says '{NOT_FOUND}'.\n- FixPlan: Read a.csv.\n"

Record = Callable[..., RotRecord]
Action = Callable[..., str]


class ScriptedWriter:
    """Says what it was given, call by call, and remembers what it was asked."""

    def __init__(self, *calls: Sequence[str | GeneratedTurn]) -> None:
        self._calls = list(calls)
        self.asked: list[list[TurnRequest]] = []

    def write(self, requests: Sequence[TurnRequest]) -> list[GeneratedTurn]:
        if not requests:
            return []
        turns = self._calls[len(self.asked)]
        self.asked.append(list(requests))
        assert len(turns) == len(requests)
        return [turn if isinstance(turn, GeneratedTurn) else said(turn) for turn in turns]

    @property
    def calls_left(self) -> int:
        return len(self._calls) - len(self.asked)


def said(text: str, *, logprob: float = -0.1, finished: bool = True) -> GeneratedTurn:
    return GeneratedTurn(text, 7 if text.startswith("Reflection:") else 0, (logprob, logprob), finished)


def test_every_turn_is_asked_for_in_the_context_of_the_paper(record: Record, action: Action) -> None:
    failing = record("alpha", NOT_FOUND)
    answer = action("final_answer(12)")
    writer = ScriptedWriter([action(RIGHT)], [REFLECTION + action(RIGHT)], [answer], [answer])
    (episode,) = replay([failing], [[0.9, 0.8]], writer)
    first, repair, after_first, after_repair = (requests[0] for requests in writer.asked)
    conversation = failing.conversation
    observed = conversation[failing.reflection_turn + 1]
    assert first == TurnRequest(failing.id, conversation[:4], (), ACTION_OPENING)
    assert repair == TurnRequest(failing.id, conversation[:6], (), REFLECTION_OPENING)
    assert after_first.turns == (*conversation[:4], Turn("assistant", action(RIGHT)), observed)
    assert after_repair.turns == (*conversation[:6], Turn("assistant", REFLECTION + action(RIGHT)), observed)
    assert after_first.opening == after_repair.opening == ACTION_OPENING
    assert episode.first_right and episode.repaired and episode.finished_alone and episode.finished_after_failure
    assert episode.reflection is not None and episode.grounded
    assert episode.gate.reason == "tool_error"


@pytest.mark.parametrize(
    ("observation", "steps_before", "confidences", "reason"),
    [
        (NOT_FOUND, 1, [0.1, 0.9], "tool_error"),
        ("Request timed out", 1, [0.1, 0.9], "timeout"),
        ("[]", 0, [0.9], "empty"),
        ("The page tells of an error: it was exceptional.", 1, [0.1, 0.9], "none"),
        ("total: 11", 1, [0.9, 0.5], "low_confidence"),
        ("total: 11", 2, [0.9, 0.3, 0.61], "none"),  # not below the mean of 0.9 and 0.3
        ("total: 11", 0, [0.01], "none"),  # a first step has nothing to be compared with
    ],
)
def test_the_gate_decides_whether_a_reflection_is_opened(
    record: Record, action: Action, observation: str, steps_before: int, confidences: list[float], reason: str
) -> None:
    writer = ScriptedWriter([action(WRONG)], [action(WRONG)])
    (episode,) = replay([record("alpha", observation, steps_before=steps_before)], [confidences], writer)
    opened = reason != "none"
    assert (episode.gate.open, episode.gate.reason) == (opened, reason)
    assert episode.gate.confidence == confidences[-1]
    assert writer.asked[1][0].opening == (REFLECTION_OPENING if opened else ACTION_OPENING)
    assert writer.calls_left == 0


@pytest.mark.parametrize(
    ("code", "finished", "right"),
    [
        ("inspect_file_as_text('a.csv')", True, True),  # the same call in other quotes
        (RIGHT, False, False),  # cut off by the budget
        (WRONG, True, False),
        ('ask_search_agent("a.csv")', True, False),
        ("", True, False),
    ],
)
def test_an_attempt_is_right_when_it_makes_the_recorded_calls(
    record: Record, action: Action, code: str, finished: bool, right: bool
) -> None:
    turn = said(action(code), finished=finished)
    calls = [[turn], [turn]] + ([["stop"], ["stop"]] if right else [])
    writer = ScriptedWriter(*calls)
    (episode,) = replay([record("alpha", NOT_FOUND)], [[0.9, 0.8]], writer)
    assert episode.first_right == episode.repaired == right
    assert not episode.finished_alone and not episode.finished_after_failure
    assert writer.calls_left == 0


def test_a_repair_may_be_right_with_a_malformed_reflection(record: Record, action: Action) -> None:
    malformed = "Reflection:\n- ErrorType: Misery\n- Evidence: none\n- FixPlan: Read a.csv.\n"
    writer = ScriptedWriter([action(WRONG)], [malformed + action(RIGHT)], [action("final_answer(12)")])
    (episode,) = replay([record("alpha", NOT_FOUND)], [[0.9, 0.8]], writer)
    assert episode.repaired and episode.finished_after_failure
    assert episode.reflection is None and not episode.grounded


def test_evidence_that_cites_nothing_is_not_grounded(record: Record, action: Action) -> None:
    invented = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: I am unsure.\n- FixPlan: Try it.\n"
    writer = ScriptedWriter([action(WRONG)], [invented + action(WRONG)])
    (episode,) = replay([record("alpha", NOT_FOUND)], [[0.9, 0.8]], writer)
    assert episode.reflection is not None and not episode.grounded


def test_a_needless_reflection_is_one_on_a_right_action(record: Record, action: Action) -> None:
    for logprob, needless in ((-0.1, False), (-2.0, True)):  # u = 0.90 and 0.14 against kappa = 0.5
        writer = ScriptedWriter([said(action(RIGHT), logprob=logprob)], [action(WRONG)], ["stop"])
        (episode,) = replay([record("alpha", NOT_FOUND)], [[0.5, 0.8]], writer)
        assert episode.needless == needless
    writer = ScriptedWriter([said(action(WRONG), logprob=-2.0)], [action(WRONG)])
    (episode,) = replay([record("alpha", NOT_FOUND)], [[0.5, 0.8]], writer)
    assert not episode.needless


@pytest.fixture
def episodes(record: Record, action: Action) -> list[Episode]:
    """Four records: repaired to the end, repaired and then wrong, not repaired, and one with a closed gate."""
    records = [
        record("alpha", NOT_FOUND),
        record("beta", NOT_FOUND),
        record("gamma", "[]", steps_before=0, error_type="InfoInsufficient"),
        record("delta", "total: 11"),
    ]
    answer, other = action("final_answer(12)"), action("final_answer(13)")
    writer = ScriptedWriter(
        [action(RIGHT), action(WRONG), action(RIGHT), action(WRONG)],
        [REFLECTION + action(RIGHT), REFLECTION + action(RIGHT), REFLECTION + action(WRONG), action(RIGHT)],
        [answer, said(answer, finished=False)],  # alpha and gamma on their own
        [answer, other, answer],  # alpha, beta and delta after the failure
    )
    result = replay(records, [[0.5, 0.9], [0.5, 0.9], [0.9], [0.5, 0.9]], writer)
    assert writer.calls_left == 0
    return result


def test_only_those_that_were_right_go_on(episodes: list[Episode]) -> None:
    assert [episode.first_right for episode in episodes] == [True, False, True, False]
    assert [episode.finished_alone for episode in episodes] == [True, False, False, False]
    assert [episode.repaired for episode in episodes] == [True, True, False, True]
    assert [episode.finished_after_failure for episode in episodes] == [True, False, False, True]


def test_metrics_are_shares_of_what_they_speak_of(episodes: list[Episode]) -> None:
    metrics = replay_metrics(episodes)
    expected = {
        "episodes": 4.0,
        "one_shot": 2 / 4,
        "task_success": 1 / 4,
        "gate_opened": 3 / 4,
        "recovery": 3 / 4,
        "recovery_gate_open": 2 / 3,
        "task_success_after_failure": 2 / 4,
        "reflection_tokens": 7.0,
        "well_formed": 1.0,
        "evidence_grounded": 2 / 3,  # gamma's observation is "[]"
        "error_type_right": 2 / 3,
        "needless_reflection": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert set(replay_metrics([])) == set(metrics) and set(replay_metrics([]).values()) == {0.0}


def test_metrics_by_error_type_split_the_episodes(episodes: list[Episode]) -> None:
    by_type = metrics_by_error_type(episodes)
    assert {kind: values["episodes"] for kind, values in by_type.items()} == {
        "ArgInvalid": 3.0,
        "InfoInsufficient": 1.0,
    }
    assert by_type["ArgInvalid"]["recovery"] == 1.0
    assert by_type["InfoInsufficient"]["recovery"] == 0.0


def test_tables_show_every_stage(episodes: list[Episode], capsys: pytest.CaptureFixture[str]) -> None:
    overall = replay_metrics(episodes) | {"correction_preferred": 0.875}
    print_table("offline replay", {"before training": overall, "after SFT": overall})
    print_error_types({"after SFT": metrics_by_error_type(episodes)})
    printed = capsys.readouterr().out
    for words in ("offline replay", "before training", "after SFT", "75.0%", "87.5%", "InfoInsufficient", "33% / 100%"):
        assert words in printed, words
