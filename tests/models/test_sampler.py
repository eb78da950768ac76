"""Batched decoding against a slow loop that re-runs the whole sequence for every token."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.models.sampler import Prompt, Samples, sample

STOP, BANNED = 2, (9, 22)
MAX_TOKENS = 10
BUCKET = 7  # padded prefix, without its last token
PROMPT_LENGTHS = (8, 5)
# Openings of different lengths, none at all included; a forced stop token must not stop a branch.
OPENINGS: tuple[tuple[list[int], ...], ...] = (([], [4, STOP, 6], [22, 7]), ([11], [], [1, 2, 3, 5]))
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Two prompts with three branches each and a policy to decode them with, compiled once."""

    functions: PolicyFunctions
    variables: Variables
    tokens: tuple[np.ndarray, ...]  # per group: the prompt
    positions: tuple[np.ndarray, ...]  # per group: [prompt, 3]
    prompt: Prompt

    def draw(self, temperature: float, seed: int = 0) -> Samples:
        drawn = sample(
            self.functions,
            self.variables,
            self.prompt,
            jax.random.key(seed),
            jnp.asarray(temperature, jnp.float32),
            max_tokens=MAX_TOKENS,
            stop_id=STOP,
            banned_ids=BANNED,
        )
        return jax.device_get(drawn)


@pytest.fixture(scope="module")
def setting(small_config: PolicyConfig, random_variables: Callable[..., Variables]) -> Setting:
    random = np.random.default_rng(0)
    tokens = tuple(random.integers(0, 22, length).astype(np.int32) for length in PROMPT_LENGTHS)
    # The second prompt's positions jump, as they do after an image.
    counts = (np.arange(8), np.array([0, 1, 6, 7, 8]))
    positions = tuple(np.repeat(count[:, None], 3, axis=-1).astype(np.int32) for count in counts)
    shape = (2, BUCKET)
    prefix = TokenBlock(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros((*shape, 3), np.int32),
        np.full(shape, -1, np.int32),
    )
    for row, (prompt_tokens, prompt_positions) in enumerate(zip(tokens, positions, strict=True)):
        prefix.tokens[row, BUCKET + 1 - len(prompt_tokens) :] = prompt_tokens[:-1]
        prefix.segment_ids[row, BUCKET + 1 - len(prompt_tokens) :] = 1
        prefix.positions[row, BUCKET + 1 - len(prompt_tokens) :] = prompt_positions[:-1]
    forced = np.zeros((2, 3, 4), np.int32)
    for row, openings in enumerate(OPENINGS):
        for column, opening in enumerate(openings):
            forced[row, column, : len(opening)] = opening
    prompt = Prompt(
        prefix=prefix,
        images=None,
        last_token=np.array([prompt_tokens[-1] for prompt_tokens in tokens]),
        next_position=np.array([count[-1] + 1 for count in counts], np.int32),
        forced=forced,
        forced_lengths=np.array([[len(opening) for opening in openings] for openings in OPENINGS], np.int32),
    )
    variables = random_variables(small_config, 7, rank=2)
    return Setting(policy_functions(small_config), variables, tokens, positions, prompt)


def slow_logprobs(setting: Setting) -> Callable[[int, list[int]], np.ndarray]:
    """(group, tokens so far) -> log pi of every possible next token, from the whole sequence anew.  # [vocab]"""
    longest = max(PROMPT_LENGTHS) + MAX_TOKENS

    @jax.jit
    def run(variables: Variables, block: TokenBlock, last: jax.Array) -> jax.Array:
        hidden, _ = setting.functions.run_prefix(variables, block, None)
        return jax.nn.log_softmax(setting.functions.head(variables) @ hidden[0, last])

    def next_logprobs(group: int, generated: list[int]) -> np.ndarray:
        tokens = np.concatenate([setting.tokens[group], np.array(generated, np.int32)])
        first = setting.positions[group][-1, 0] + 1
        later = np.repeat(first + np.arange(len(generated), dtype=np.int32)[:, None], 3, axis=-1)
        positions = np.concatenate([setting.positions[group], later])
        unused = longest - len(tokens)  # padded on the right to compile once: causal attention can't see it
        block = TokenBlock(
            np.pad(tokens, (0, unused))[None],
            np.pad(np.ones_like(tokens), (0, unused))[None],
            np.pad(positions, ((0, unused), (0, 0)))[None],
            np.full((1, longest), -1, np.int32),
        )
        return np.asarray(run(setting.variables, block, len(tokens) - 1))

    return next_logprobs


def test_greedy_tokens_are_those_of_the_slow_loop(setting: Setting) -> None:
    next_logprobs = slow_logprobs(setting)
    drawn = setting.draw(0.0)
    for group, openings in enumerate(OPENINGS):
        for branch, opening in enumerate(openings):
            generated: list[int] = []
            scores: list[float] = []
            stopped = False
            while len(generated) < MAX_TOKENS and not stopped:
                logprobs = next_logprobs(group, generated)
                is_forced = len(generated) < len(opening)
                allowed = np.where(np.isin(np.arange(len(logprobs)), BANNED), -np.inf, logprobs)
                token = opening[len(generated)] if is_forced else int(np.argmax(allowed))
                stopped = not is_forced and token == STOP
                generated.append(token)
                scores.append(logprobs[token])
            length = len(generated)
            assert drawn.tokens[group, branch].tolist() == generated + [0] * (MAX_TOKENS - length)
            assert drawn.lengths[group, branch] == length
            assert drawn.stopped[group, branch] == stopped
            np.testing.assert_allclose(drawn.logprobs[group, branch, :length], scores, atol=1e-5)
    assert 0 < drawn.stopped.sum() < drawn.stopped.size, "this should see branches that stop and ones that do not"


@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_returned_logprobs_are_those_of_a_scoring_pass(setting: Setting, temperature: float) -> None:
    """As the trainer scores branches: at temperature 1, forced and sampled tokens alike, with nothing banned."""
    drawn = setting.draw(temperature, seed=3)
    real = np.arange(MAX_TOKENS) < drawn.lengths[..., None]  # [group, branch, token]
    last = np.broadcast_to(setting.prompt.last_token[:, None, None], (2, 3, 1))
    fed = np.concatenate([last, drawn.tokens[..., :-1]], axis=-1).astype(np.int32)
    order = setting.prompt.next_position[:, None, None, None] - 1 + np.arange(MAX_TOKENS)[:, None]
    positions = np.broadcast_to(order, (*fed.shape, 3)).astype(np.int32)
    branches = TokenBlock(fed, real.astype(np.int32), positions, np.full_like(fed, -1))

    @jax.jit
    def score(variables: Variables, prefix: TokenBlock, branches: TokenBlock, targets: jax.Array) -> jax.Array:
        _, cache = setting.functions.run_prefix(variables, prefix, None)
        hidden = setting.functions.run_branches(variables, branches, cache)
        return token_logprobs(
            hidden, setting.functions.head(variables), targets, branches.segment_ids > 0, chunk_size=7
        )

    scored = score(setting.variables, setting.prompt.prefix, branches, drawn.tokens)
    np.testing.assert_allclose(drawn.logprobs, scored, atol=1e-5)
    assert not np.any(drawn.logprobs[~real])
    assert not np.any(drawn.tokens[~real])


def test_openings_bans_and_stops_hold_at_any_temperature(setting: Setting) -> None:
    ends = set()
    for seed, temperature in enumerate([0.3, 1.0, 2.0, 5.0, 50.0, 50.0]):
        drawn = setting.draw(temperature, seed)
        for group, openings in enumerate(OPENINGS):
            for branch, opening in enumerate(openings):
                tokens = drawn.tokens[group, branch, : drawn.lengths[group, branch]].tolist()
                assert tokens[: len(opening)] == opening
                own = tokens[len(opening) :]
                assert not set(own) & set(BANNED)
                assert STOP not in own[:-1]
                stopped = bool(drawn.stopped[group, branch])
                assert stopped == (own[-1] == STOP)
                assert stopped or len(tokens) == MAX_TOKENS
                ends.add(stopped)
    assert ends == {True, False}


def test_the_key_decides_the_samples(setting: Setting) -> None:
    first, again, other = setting.draw(2.0, seed=1), setting.draw(2.0, seed=1), setting.draw(2.0, seed=2)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(first.tokens != other.tokens)
    greedy, greedy_again = setting.draw(0.0, seed=1), setting.draw(0.0, seed=2)
    jax.tree.map(np.testing.assert_array_equal, greedy, greedy_again)


def test_frequencies_are_the_tempered_probabilities(setting: Setting) -> None:
    draws = 4000
    one_group = jax.tree.map(lambda array: array[:1], setting.prompt)
    prompt = dataclasses.replace(
        one_group, forced=np.zeros((1, draws, 0), np.int32), forced_lengths=np.zeros((1, draws), np.int32)
    )
    logprobs = slow_logprobs(setting)(0, [])
    allowed = ~np.isin(np.arange(len(logprobs)), BANNED)
    for temperature in (1.0, 3.0):
        drawn = sample(
            setting.functions,
            setting.variables,
            prompt,
            jax.random.key(11),
            jnp.asarray(temperature, jnp.float32),
            max_tokens=1,
            stop_id=STOP,
            banned_ids=BANNED,
        )
        weights = np.exp(logprobs / temperature) * allowed
        probabilities = weights / weights.sum()
        counts = np.bincount(np.asarray(drawn.tokens).ravel(), minlength=len(logprobs))
        # Within five standard deviations of the binomial count, and one for tokens that are hardly ever drawn.
        deviation = np.sqrt(draws * probabilities * (1 - probabilities))
        assert np.all(np.abs(counts - draws * probabilities) <= 5 * deviation + allowed)
        assert np.sum(probabilities > 0.01) >= 4, "a distribution on one token would prove nothing"
        np.testing.assert_array_equal(drawn.stopped[..., None], drawn.tokens == STOP)
