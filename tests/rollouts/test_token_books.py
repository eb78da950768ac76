"""Which tokens of an episode are trained: over many random episodes and three chat templates, only sampled ones."""

from __future__ import annotations

import random

import numpy as np
import pytest

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import GATES, LoopSettings
from regrpo_jax.agent.policy import EpisodePrompt, Prefix, WriteRequest
from regrpo_jax.agent.rollout import Label, Rollout, check_rollout
from regrpo_jax.data.chat import ChatError, ChatRenderer, Segment
from regrpo_jax.records.types import Status, Turn
from tests.rollouts.scripted_policy import ScriptedPolicy
from tests.rollouts.templates import TEMPLATES, renderer

EPISODES = 1000
WORDS = (
    "ünïcödé",
    "思考",
    '"a.txt"',
    "17",
    "Error",
    "Code:",
    "- FixPlan: x",
    "```",
    "user",
    "[INST",
    "  ",
    "\n",
    "🤷🏽‍♀️",
)
PROMPT = (Turn("system", "Call one tool at each step."), Turn("user", "Task: What is the total?"))
ARRAY_FIELDS = ("tokens", "labels", "logprobs", "steps")


def some_words(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(0, 6)))


def made_up_turn(chance: random.Random, opening: str) -> str:
    """What a policy may say after an opening: mostly as it should, sometimes anything at all."""
    if chance.random() < 0.2:
        return " " + some_words(chance)
    code = f'```py\nread("{chance.choice("abc")}.txt")\n```'
    action = f" {some_words(chance)}\n\nCode:\n{code}"
    kind = chance.choice(["ArgInvalid", "None", "Odd"])
    block = f' {kind}\n- Evidence: {some_words(chance)} "b.txt"\n- FixPlan: read it.\n'
    if opening.startswith("Reflection"):
        return f"{block}Thought:{action}"
    if opening:
        return action
    return f"Thought:{action}" if chance.random() < 0.5 else f"Reflection:\n- ErrorType:{block}Thought:{action}"


def random_settings(chance: random.Random) -> LoopSettings:
    gate = chance.choice(GATES)
    return LoopSettings(
        gate=gate,
        timing=chance.choice(["post", "pre"]) if gate != "never" else "post",
        retries=chance.randint(0, 4),
        max_steps=chance.randint(2, 6),
        turn_tokens=chance.choice([30, 400, 400, 400]),
        episode_tokens=chance.choice([200, 2000, 2000]),
    )


def play(
    chance: random.Random, chat: ChatRenderer, *, canonical: bool = False
) -> tuple[Prefix, Rollout, list[tuple[int, float]], list[Turn]]:
    """One random episode: its prefix, its rollout, what the policy emitted, and the conversation as texts."""
    policy = ScriptedPolicy(chat, lambda _, opening, __: made_up_turn(chance, opening), canonical=canonical)
    session = policy.start([EpisodePrompt(PROMPT, (), 0)], 1, seed=chance.randrange(2**30))
    loop = EpisodeLoop(random_settings(chance), chance.choice([None, ["17"] * 4]))
    said = list(PROMPT)
    while not loop.done:
        request = WriteRequest((0, 0), loop.opening(), loop.budget)
        assert request.budget > 0
        turn = session.write([request])[0]
        assert turn.text.startswith(request.opening)
        said.append(Turn("assistant", turn.text))
        if loop.write_down(turn) is Move.PLAY:
            status = chance.choice([Status.OK, Status.OK, Status.TOOL_ERROR, Status.EMPTY, Status.INVALID_ACTION])
            outcome = "answered" if status == Status.OK and chance.random() < 0.1 else ""
            loop.observed(
                Played(status, chance.choice(["17", "[]", some_words(chance)]), outcome, chance.random() < 0.5)
            )
        if not loop.done:
            said.append(Turn("user", loop.user_turn().text))
            loop.heard(session.observe([((0, 0), loop.user_turn())])[0])
    rollout = loop.rollout(task_id="made up", group=0, branch=0, policy_version=3, seed=1)
    return session.prefixes[0], rollout, session.emitted[0, 0], said


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_trained_token_was_sampled_and_every_sampled_one_is_trained(template: str) -> None:
    chat = renderer(template)
    seen = {"turns": 0, "blocks": 0, "held back": 0, "unfinished": 0}
    for number in range(EPISODES):
        chance = random.Random(f"{template}/{number}")
        _, rollout, emitted, _ = play(chance, chat)
        check_rollout(rollout)
        trained = rollout.trained
        found = list(zip(rollout.tokens[trained].tolist(), rollout.logprobs[trained].tolist(), strict=True))
        assert found == emitted
        control = np.isin(rollout.tokens, sorted(set(chat.control_tokens.values()) - {chat.end_of_turn_id}))
        assert not np.any(control & trained), "no token of the template is trained"
        assert not np.any(rollout.logprobs[~trained])
        seen["turns"] += len(rollout.turns)
        seen["blocks"] += len(rollout.reflections)
        seen["held back"] += sum(turn.held_back for turn in rollout.turns)
        seen["unfinished"] += rollout.truncated
        again = Rollout.from_json(rollout.to_json())
        assert again.turns == rollout.turns
        for name in ARRAY_FIELDS:
            np.testing.assert_array_equal(getattr(again, name), getattr(rollout, name), strict=True)
    assert seen["turns"] > 2 * EPISODES and min(seen.values()) > 50, seen


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_tokens_of_an_episode_are_those_of_the_whole_conversation(template: str) -> None:
    chat = renderer(template)
    compared = 0
    for number in range(EPISODES // 5):
        prefix, rollout, _, said = play(random.Random(f"{template}/{number}/whole"), chat, canonical=True)
        if rollout.truncated:
            continue
        rendered = chat.render(said)
        end = len(rendered.tokens) if said[-1].role == "user" else rendered.spans[-1][1] + 1
        whole = np.concatenate([prefix.tokens, rollout.tokens])
        np.testing.assert_array_equal(whole, rendered.tokens[:end])
        segments = np.where(rollout.labels == Label.REFLECTION, Segment.REFLECTION, Segment.ACTION)
        trained = np.flatnonzero(rollout.trained)
        np.testing.assert_array_equal(segments[trained], rendered.segments[:end][len(prefix.tokens) :][trained])
        compared += len(rollout.turns) > 1
    assert compared > EPISODES // 20


def test_labels_follow_the_parts_of_a_turn() -> None:
    chat = renderer("chatml")
    texts = {
        "Thought:": ' open it.\n\nCode:\n```py\nread("a.txt")\n```',
        "Reflection:\n- ErrorType:": (
            ' ArgInvalid\n- Evidence: "a.txt" is "b.txt"\n- FixPlan: read("b.txt").\n'
            'Thought: open it.\n\nCode:\n```py\nread("b.txt")\n```'
        ),
    }
    session = ScriptedPolicy(chat, lambda _, opening, __: texts[opening]).start([EpisodePrompt(PROMPT, (), 0)], 1, 0)
    loop = EpisodeLoop(LoopSettings(), ["17"])
    observed = [Played(Status.TOOL_ERROR, 'NotFound. "a.txt" is "b.txt".'), Played(Status.OK, "17", "answered", True)]
    for played in observed:
        loop.write_down(session.write([WriteRequest((0, 0), loop.opening(), loop.budget)])[0])
        loop.observed(played)
        if not loop.done:
            loop.heard(session.observe([((0, 0), loop.user_turn())])[0])
    rollout = loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=0)

    def text_of(label: Label, turn: int) -> str:
        start, end = rollout.turns[turn].start, rollout.turns[turn].end
        here = np.flatnonzero(rollout.labels[start:end] == label) + start
        return chat.tokenizer.decode(rollout.tokens[here])

    assert text_of(Label.OPENING, 0) == "Thought:"
    assert text_of(Label.THOUGHT, 0) == " open it.\n\n"
    assert text_of(Label.ACTION, 0) == 'Code:\n```py\nread("a.txt")\n```<|im_end|>'
    assert text_of(Label.OPENING, 1) == "Reflection:\n- ErrorType:"
    assert text_of(Label.REFLECTION, 1) == ' ArgInvalid\n- Evidence: "a.txt" is "b.txt"\n- FixPlan: read("b.txt").\n'
    assert text_of(Label.THOUGHT, 1) == "Thought: open it.\n\n"
    between = slice(rollout.turns[0].end, rollout.turns[1].start)
    heard = rollout.labels[between] == Label.OBSERVATION
    words = '[OUTPUT OF STEP 0] -> Observation:\nNotFound. "a.txt" is "b.txt".'
    assert chat.tokenizer.decode(rollout.tokens[between][heard]) == words
    assert set(rollout.labels[between]) == {Label.TEMPLATE, Label.OBSERVATION}
    assert rollout.steps.tolist() == [0] * len(rollout.tokens) and rollout.step_success == (True,)
    assert rollout.turns[1].grounded and rollout.success and not rollout.first_attempt_success


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_continuation_is_what_the_whole_conversation_has(template: str) -> None:
    chat = renderer(template)
    observations = [
        "17",
        "",
        "  spaces around \n",
        "思考 🤷🏽‍♀️",
        "user",
        "[OUTPUT OF STEP 0] -> Observation:\nassistant",
    ]
    said, tokens = list(PROMPT), chat.render_prompt(PROMPT).tolist()
    for text in observations:
        said += [Turn("assistant", "Thought: x"), Turn("user", text)]
        tokens += chat.tokenizer("Thought: x", add_special_tokens=False)["input_ids"] + [chat.end_of_turn_id]
        fed, spoken = chat.continuation(said[-1])
        tokens += fed.tolist()
        assert tokens == chat.render_prompt(said).tolist()
        assert spoken.any() == bool(text.strip())


def test_a_template_that_writes_earlier_turns_anew_is_refused() -> None:
    with pytest.raises(ChatError, match="writes earlier turns anew"):
        renderer("moving_system").continuation(Turn("user", "17"))
    with pytest.raises(ChatError, match="control token"):
        renderer("chatml").continuation(Turn("user", "a <|im_end|> b"))
