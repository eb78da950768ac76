"""The remote player against a real server, `transformers serve`: what it is sent, what it says, and what that is worth.

Needs fastapi beside torch. A policy that sees needs torchvision as well; `experiments/remote_engine` plays one.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import EpisodePrompt, WriteRequest
from regrpo_jax.agent.remote_engine import EngineSettings, exchange_adapter, post
from regrpo_jax.agent.remote_policy import RemotePolicy, chat_messages
from regrpo_jax.agent.rollout import check_rollout
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.tokenizer import load_tokenizer, train_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import load_policy, save_policy
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.records.types import Status, Turn
from regrpo_jax.rollouts.engine_tokens import EngineTokens
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy

ROOT = Path(__file__).parents[2]
PROMPT = (Turn("system", "Call one tool at each step."), Turn("user", "Task: What is the total of the sheet?"))
START = (
    "import os, sys; os.environ['HF_HUB_OFFLINE'] = '1'; "
    "from transformers.cli.transformers import main; sys.argv = ['transformers', *sys.argv[1:]]; main()"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of random weights, as the exporter writes it."""
    folder = tmp_path_factory.mktemp("served")
    tokenizer = train_tokenizer([f"{turn.role}\n{turn.content}" for turn in PROMPT] * 4, vocab_size=320)
    config = PolicyConfig(len(tokenizer), 32, 48, 2, 4, 2, 8)
    params = jax.jit(policy_functions(config).init)(jax.random.key(0))["params"]
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    save_policy(folder, config, jax.tree.map(lambda array: 8 * array, params), token_ids=ids)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reader(model: Path) -> ConversationReader:
    """Of the directory, as a run from it has it: transformers splits words as the model's own kind does."""
    return ConversationReader(ChatRenderer(load_tokenizer(model)), None, None)


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "server.log"
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", START, *words], stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
        else:
            pytest.fail(log.read_text()[-3000:])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def policy_at(address: str, model: Path, reader: ConversationReader, **changes: object) -> RemotePolicy:
    chosen = {"temperature": 0.0, "extended": False, "retries": 0, "concurrency": 1} | changes
    return RemotePolicy(EngineSettings(address, str(model), **chosen), EngineTokens(reader))  # type: ignore[arg-type]


def test_the_prompt_is_the_same_and_so_is_what_is_likeliest(
    address: str, model: Path, reader: ConversationReader
) -> None:
    remote = policy_at(address, model, reader)
    prompt, request = EpisodePrompt(PROMPT, (), 0), WriteRequest((0, 0), "", 24)
    session = remote.start([prompt], 1, seed=0)
    turn = session.write([request])[0]
    body = {"model": str(model), "messages": chat_messages(PROMPT, ()), "max_tokens": 1}
    told = post(remote.settings, "/chat/completions", body)["usage"]["prompt_tokens"]
    assert told == len(session.prefixes[0].tokens)
    config, params = load_policy(model)
    here = SamplerPolicy(policy_functions(config), {"params": params}, reader, (128,), 128, temperature=0.0)
    ours = here.start([prompt], 1, seed=0).write([request])[0]
    # The server leaves special tokens out of its words, and byte tokens that are no character read as one another.
    assert turn.text and turn.text == reader.renderer.tokenizer.decode(
        [token for token in ours.tokens.tolist() if token != reader.renderer.end_of_turn_id], skip_special_tokens=True
    )
    assert not turn.error and turn.finished == ours.finished


def test_what_comes_without_log_probs_counts_and_never_trains(
    address: str, model: Path, reader: ConversationReader
) -> None:
    session = policy_at(address, model, reader).start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
    loop = EpisodeLoop(LoopSettings(turn_tokens=400, episode_tokens=500))
    turn = session.write([WriteRequest((0, 0), loop.opening(), 16)])[0]
    assert not turn.scored and len(turn.opening) == 0 and len(turn.tokens) == len(turn.starts)
    if loop.write_down(turn) is Move.PLAY:
        loop.observed(Played(Status.OK, "17", "answered", True))
    rollout = loop.rollout(task_id="t", group=0, branch=0, policy_version=0, seed=0)
    check_rollout(rollout)
    assert not rollout.dropped and not rollout.scored and not rollout.trained.any()
    np.testing.assert_array_equal(rollout.logprobs, 0)


@pytest.mark.parametrize(
    ("changes", "words"), [({"extended": True}, "422.*Unexpected fields"), ({"model": "other"}, "400.*pinned")]
)
def test_what_the_server_refuses_is_told(
    address: str, model: Path, reader: ConversationReader, changes: dict[str, object], words: str
) -> None:
    policy = policy_at(address, model, reader)
    settings = EngineSettings(**(vars(policy.settings) | changes))
    session = RemotePolicy(settings, policy.tokens).start([EpisodePrompt(PROMPT, (), 0)], 1, seed=0)
    with pytest.raises(UserError, match=f"nothing at all.*{words}"):
        session.write([WriteRequest((0, 0), "Thought:", 8)])


def test_it_has_no_hot_reload_and_says_so(address: str, model: Path, reader: ConversationReader) -> None:
    with pytest.raises(UserError, match="no LoRA hot reload"):
        exchange_adapter(policy_at(address, model, reader).settings, "", "update-1", "nowhere")


@pytest.mark.parametrize("known", [True, False])
def test_a_run_measures_what_a_server_serves(address: str, model: Path, tmp_path: Path, known: bool) -> None:
    options = (
        "--config.stages=recovery",
        f"--config.model.path={model if known else ''}",
        '--config.suite.families=("moved",)',
        "--config.agent.turn_tokens=16",
        "--config.agent.episode_tokens=32",
        "--config.recovery.tasks=2",
        f"--config.player.server={address} {model}",
        "--config.player.extended=False",
    )
    command = [sys.executable, "-m", "regrpo_jax.main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"]
    done = subprocess.run([*command, f"--workdir={tmp_path}", *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "recovery.json").read_text())["before"]
    assert told["metrics"]["episodes"] == 4 and told["metrics"]["tokens"] > 0
