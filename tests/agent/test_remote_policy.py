"""A served model as a player, against a real HTTP server: its own tokens, retries, failures, adapters, pictures."""

from __future__ import annotations

import dataclasses
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.plain_tokens import PlainTokens
from regrpo_jax.agent.policy import EpisodePrompt, PolicyError, WriteRequest
from regrpo_jax.agent.remote_engine import EngineSettings, exchange_adapter
from regrpo_jax.agent.remote_policy import RemotePolicy, chat_messages
from regrpo_jax.agent.rollout import Rollout, check_rollout
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.records.types import ImageReference, Status, Turn
from regrpo_jax.rollouts.engine_tokens import EngineTokens
from tests.agent.chat_server import Engine, serving
from tests.rollouts.templates import renderer

PROMPT = (Turn("system", "Call one tool at each step."), Turn("user", "Task: What is the total?"))
ACTION = ' open it, ünïcödé 思.\n\nCode:\n```py\nread("a.txt")\n```'
REPAIR = f' ArgInvalid\n- Evidence: "a.txt" is "b.txt"\n- FixPlan: read("b.txt").\nThought:{ACTION}'
texts = st.text(max_size=60)
TOKENS = EngineTokens(ConversationReader(renderer("chatml"), None, None))


def script(messages: list[dict[str, Any]], opening: str) -> str:
    return REPAIR if opening.startswith("Reflection") else ACTION if opening else f"Thought:{ACTION}"


def made_engine(**changes: Any) -> Engine:
    return Engine(renderer("chatml"), script, **changes)


def policy_at(address: str, **changes: Any) -> RemotePolicy:
    return RemotePolicy(EngineSettings(address, "base", first_wait=0.01, **changes), TOKENS)


def played(policy: RemotePolicy) -> tuple[Rollout, np.ndarray, list[Turn]]:
    """An episode of a failure, its repair and an answer: its books, its prefix, and what was said."""
    session = policy.start([EpisodePrompt(PROMPT, (), 0)], 1, seed=7)
    loop = EpisodeLoop(LoopSettings(turn_tokens=500, episode_tokens=5000))
    said = list(PROMPT)
    results = [
        Played(Status.TOOL_ERROR, 'NotFound. "a.txt" is "b.txt".'),
        Played(Status.OK, "17"),
        Played(Status.OK, "17", "answered", True),
    ]
    for result in results:
        turn = session.write([WriteRequest((0, 0), loop.opening(), loop.budget)])[0]
        said.append(Turn("assistant", turn.text))
        assert loop.write_down(turn) is Move.PLAY, turn.error
        loop.observed(result)
        if not loop.done:
            said.append(Turn("user", loop.user_turn().text))
            loop.heard(session.observe([((0, 0), loop.user_turn())])[0])
    session.finish([(0, 0)])
    rollout = loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=7)
    check_rollout(rollout)
    return rollout, session.prefixes[0].tokens, said


@given(texts)
def test_pieces_of_a_text_make_it_again(text: str) -> None:
    tokens = PlainTokens()
    again, starts = tokens.text_of(tokens.encode(text))
    assert again == text and sorted(starts) == list(starts)
    assert all(text[start:] for start in starts) and set(starts[:1]) <= {0}


@given(texts, st.data())
def test_a_server_may_cut_a_character_in_two(text: str, data: st.DataObject) -> None:
    tokens, content = PlainTokens(), text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(len(content) - 1, 1)))) if len(content) > 1 else ())
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    again, starts = tokens.text_of([tokens.token_of(piece) for piece in pieces])
    assert again == text and sorted(starts) == list(starts) and max(starts) <= len(text)


@pytest.mark.parametrize("shows", ["ids", "bytes", "nothing"])
def test_a_model_that_is_not_here_plays(shows: str) -> None:
    with serving(made_engine(shows=shows)) as address:
        rollout, _, said = played(dataclasses.replace(policy_at(address), tokens=PlainTokens()))
    assert (
        rollout.success
        and not rollout.scored
        and [turn.text for turn in rollout.turns] == [turn.content for turn in said if turn.role == "assistant"]
    )
    assert len(rollout.turns) == 3 and rollout.turns[1].reflection_tokens > 5


def test_a_run_measures_a_model_that_is_not_here(tmp_path: Path) -> None:
    with serving(made_engine()) as address:
        main(
            [
                f"--config={Path(__file__).parents[1] / 'tiny_config.py'}",
                f"--workdir={tmp_path}",
                "--config.stages=recovery",
                '--config.suite.families=("moved",)',
                "--config.recovery.tasks=2",
                "--config.agent.turn_tokens=200",
                "--config.agent.episode_tokens=900",
                f"--config.player.server={address} base",
            ]
        )
    told = json.loads((tmp_path / "recovery.json").read_text())["before"]["metrics"]
    assert told["episodes"] == 4 and told["tokens"] > 50 and told["dropped"] == 0
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("shows", ["ids", "bytes", "nothing"])
def test_an_episode_keeps_the_tokens_that_the_engine_tells(shows: str) -> None:
    engine = made_engine(shows=shows)
    if shows == "bytes":  # no single token says half a character
        engine.script = lambda messages, opening: script(messages, opening).replace(" 思", "").replace("ünïcödé", "x")
    with serving(engine) as address:
        rollout, prefix, said = played(policy_at(address))
    rendered = TOKENS.reader.renderer.render(said)
    whole = np.concatenate([prefix, rollout.tokens])
    ends = rendered.spans[-1][1] + (shows == "ids")
    assert TOKENS.reader.renderer.tokenizer.decode(whole) == TOKENS.reader.renderer.tokenizer.decode(
        rendered.tokens[:ends]
    )
    assert rollout.scored == (shows != "nothing") and rollout.trained.any() == rollout.scored
    if rollout.scored:
        told = -0.01 * (rollout.tokens[rollout.trained] % 50)
        np.testing.assert_allclose(rollout.logprobs[rollout.trained], told, atol=1e-6)
        end = rollout.tokens == TOKENS.end_of_turn
        # The end of a turn is trained exactly where the engine gave its log-prob.
        assert (end & rollout.trained).sum() == (3 if shows == "ids" else 0)
    assert [turn.text.startswith("Reflection") for turn in rollout.turns] == [False, True, False]
    seeds = [body["seed"] for body in engine.asked]
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**31 for seed in seeds)


def test_the_same_seed_asks_the_same() -> None:
    engine = made_engine()
    with serving(engine) as address:
        first, second = played(policy_at(address))[0], played(policy_at(address))[0]
    assert engine.asked[:3] == engine.asked[3:]
    np.testing.assert_array_equal(first.tokens, second.tokens)


def test_what_may_pass_is_tried_again_and_what_will_not_is_told() -> None:
    engine = made_engine(failures=[503, 429, 500])
    with serving(engine) as address:
        assert played(policy_at(address))[0].success
        assert len(engine.asked) == 6
        engine.failures = [503] * 2
        session = policy_at(address, retries=0, concurrency=1).start([EpisodePrompt(PROMPT, (), 0)], 3, seed=0)
        turns = session.write([WriteRequest((0, branch), "Thought:", 50) for branch in range(3)])
        assert [bool(turn.error) for turn in turns] == [True, True, False] and "503" in turns[0].error
        engine.failures = [400] * 9
        before = len(engine.asked)
        assert "400" in session.write([WriteRequest((0, 2), "Thought:", 50)])[0].error  # it was understood before
        assert len(engine.asked) == before + 1, "a wrong request stays wrong"
        session = policy_at(address).start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
        with pytest.raises(UserError, match="nothing at all.*400"):
            session.write([WriteRequest((0, 0), "Thought:", 50)])
    loop = EpisodeLoop(LoopSettings())
    loop.opening()
    assert loop.write_down(turns[0]) is Move.END
    assert loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=0).dropped


def test_an_engine_that_is_not_there_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        session = policy_at(address, retries=1).start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
        with pytest.raises(UserError, match="did not answer"):
            session.write([WriteRequest((0, 0), "Thought:", 50)])


def test_a_turn_that_runs_out_of_tokens_has_no_end() -> None:
    with serving(made_engine()) as address:
        session = policy_at(address).start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
        turn = session.write([WriteRequest((0, 0), "Thought:", 4)])[0]
    assert not turn.finished and len(turn.tokens) == 4 and turn.scored


def test_an_engine_of_the_plain_api_opens_turns_as_it_likes_and_is_sent_nothing_else() -> None:
    engine = made_engine(strict=True, shows="nothing")
    with serving(engine) as address:
        policy = policy_at(address, extended=False)
        session = policy.start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
        turn = session.write([WriteRequest((0, 0), "Thought:", 500)])[0]
    assert len(turn.opening) == 0 and turn.text == f"Thought:{ACTION}" and len(turn.tokens) == len(turn.starts)


def test_many_conversations_go_at_once_and_no_more_than_allowed() -> None:
    engine = made_engine()
    with serving(engine) as address:
        session = policy_at(address, concurrency=3).start([EpisodePrompt(PROMPT, (), n) for n in range(4)], 5, seed=0)
        branches = [(group, branch) for group in range(4) for branch in range(5)]
        turns = session.write([WriteRequest(branch, "Thought:", 500) for branch in branches])
    assert len(turns) == 20 and all(turn.finished for turn in turns)
    assert 1 <= engine.most_at_once <= 3
    assert len({body["seed"] for body in engine.asked}) == 20


def test_adapters_are_exchanged_while_the_engine_runs() -> None:
    engine = made_engine()
    with serving(engine) as address:
        settings = EngineSettings(address, "base", first_wait=0.01)
        exchange_adapter(settings, "", "update-1", "/a")
        exchange_adapter(settings, "update-1", "update-2", "/b")
        assert engine.adapters == {"update-2": "/b"}
        exchange_adapter(settings, "", "update-2", "/c")  # one that a stopped run left there is replaced
        assert engine.adapters == {"update-2": "/c"}
        engine.hot_reload = False
        with pytest.raises(UserError, match="no LoRA hot reload"):
            exchange_adapter(settings, "update-2", "update-3", "/d")


def test_an_adapter_whose_acknowledgement_was_lost_is_loaded_again() -> None:
    engine = made_engine(adapters={"update-1": "/stale"})
    answer, lost = engine.answer, [True]

    def losing(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("unload_lora_adapter") and body["lora_name"] == "update-1" and lost:
            return 500, "busy"  # so that the stale one stays
        told = answer(path, body)
        return (502, "lost") if path.endswith("/load_lora_adapter") and lost and not lost.clear() else told

    engine.answer = losing  # type: ignore[method-assign]
    with serving(engine) as address:
        exchange_adapter(EngineSettings(address, "base", first_wait=0.001, retries=1), "", "update-1", "/new")
    assert engine.adapters == {"update-1": "/new"}


def test_the_key_goes_along_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = made_engine()
    monkeypatch.setenv("SOME_KEY", "secret")
    with serving(engine) as address:
        played(policy_at(address, key_variable="SOME_KEY"))
        engine.answer = lambda path, body: (400, {"error": f"you sent Bearer {'secret'}"})  # type: ignore[method-assign]
        with pytest.raises(UserError, match="you sent") as caught:
            played(policy_at(address, key_variable="SOME_KEY"))
    assert {headers["Authorization"] for headers in engine.headers} == {"Bearer secret"}
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("SOME_KEY", "two\nwords")
    with pytest.raises(UserError, match="SOME_KEY holds no key"):
        policy_at("http://localhost:1/v1", key_variable="SOME_KEY")
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(UserError, match="SOME_KEY"):
        policy_at("http://localhost:1/v1", key_variable="SOME_KEY")


@pytest.mark.parametrize(
    "wrong", [{"base_url": "localhost:8000"}, {"timeout": 0.0}, {"concurrency": 0}, {"retries": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="engine"):
        dataclasses.replace(EngineSettings("http://localhost:8000/v1", "base"), **wrong)


def test_pictures_stand_at_their_placeholders(tmp_path: Path) -> None:
    path = tmp_path / "sign.png"
    path.write_bytes(b"pixels")
    turns = (Turn("system", "s"), Turn("user", "<image_00>\nTask: read <image_01> too."))
    images = [ImageReference("<image_00>", str(path)), ImageReference("<image_01>", str(path))]
    parts = chat_messages(turns, images)[1]["content"]
    assert [part["type"] for part in parts] == ["image_url", "text", "image_url", "text"]
    assert parts[0]["image_url"]["url"] == "data:image/png;base64,cGl4ZWxz" and parts[3]["text"] == " too."
    with pytest.raises(PolicyError, match="cannot be read"):
        chat_messages(turns, [ImageReference("<image_00>", str(tmp_path / "gone.png"))])
    with pytest.raises(PolicyError, match="no user turn"):
        chat_messages(turns, [ImageReference("<image_07>", str(path))])
