"""Batched decoding against a slow loop that re-runs the whole sequence for every token, and against scoring passes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.data.batches import image_indices
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.models.sampler import Decoding, Prompt, Samples, append, generate, start
from regrpo_jax.models.token_choice import Sampling, sampling_controls

STOPS, BANNED = ((2,), (5,)), (9, 22)
IMAGE = 22  # the token that stands for one merged image feature
BUDGET = 10
BUCKET = 15  # padded prefix, without its last token
PROMPT_LENGTHS = (16, 5)
# Openings of different lengths, none at all included; an appended stop token must not stop a branch.
OPENINGS: tuple[tuple[list[int], ...], ...] = (([], [4, 2, 6], [22, 7]), ([11], [], [1, 2, 3, 5]))
WIDTH = 4
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Two prompts with three branches each, the first with an image, and a policy to decode them with."""

    functions: PolicyFunctions
    variables: Variables
    tokens: tuple[np.ndarray, ...]  # per group: the prompt
    positions: tuple[np.ndarray, ...]  # per group: [prompt, 3]
    prompt: Prompt

    def begin(self, *, seed: int = 0, capacity: int = WIDTH + BUDGET, branches: int = 3) -> Decoding:
        key = jax.random.key(seed)
        return start(self.functions, self.variables, self.prompt, key, branches=branches, capacity=capacity)

    def open(self, decoding: Decoding, openings: tuple[tuple[list[int], ...], ...]) -> tuple[Decoding, np.ndarray]:
        """Appends the openings; log-probs.  # [group, branch, token]"""
        decoding, logprobs = append(self.functions, self.variables, decoding, *padded(openings), scored=True)
        return decoding, np.asarray(logprobs)

    def generate(self, decoding: Decoding, sampling: Sampling, budget: Any = None) -> tuple[Samples, Decoding]:
        samples, decoding = generate(self.functions, self.variables, decoding, sampling, budget)
        return jax.device_get(samples), decoding

    def draw(self, sampling: Sampling, *, seed: int = 0) -> tuple[np.ndarray, Samples]:
        """Openings and one turn of BUDGET tokens, them included: their log-probs and the turn."""
        decoding, logprobs = self.open(self.begin(seed=seed), OPENINGS)
        return logprobs, self.generate(decoding, sampling, BUDGET - padded(OPENINGS)[1])[0]


def controls(temperature: float = 1.0, **changed: Any) -> Sampling:
    fields = {"max_tokens": BUDGET, "stops": STOPS, "banned_ids": BANNED, "temperature": temperature}
    return sampling_controls(**(fields | changed))


def padded(sequences: tuple[tuple[list[int], ...], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [group, branch, WIDTH] and lengths [group, branch]; the padding is no valid token."""
    tokens = [[row + [IMAGE] * (WIDTH - len(row)) for row in rows] for rows in sequences]
    return np.array(tokens, np.int32), np.array([[len(row) for row in rows] for rows in sequences], np.int32)


@pytest.fixture(scope="module")
def setting(small_config: PolicyConfig, random_variables: Callable[..., Variables]) -> Setting:
    random = np.random.default_rng(0)
    tokens = tuple(random.integers(0, 22, length).astype(np.int32) for length in PROMPT_LENGTHS)
    tokens[0][3:9] = IMAGE
    # An image of 2 x 3 takes the positions of three tokens, and the ones after it follow the largest.
    counts = np.repeat(np.concatenate([np.arange(9), np.arange(6, 13)])[:, None], 3, axis=-1)
    counts[3:9] = 3 + np.array([(0, row, column) for row in range(2) for column in range(3)])
    positions = (counts.astype(np.int32), np.repeat(np.arange(5, dtype=np.int32)[:, None], 3, axis=-1))
    shape = (2, BUCKET)
    prefix = TokenBlock(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros((*shape, 3), np.int32),
        np.full(shape, -1, np.int32),
    )
    for row, (prompt_tokens, prompt_positions) in enumerate(zip(tokens, positions, strict=True)):
        first = BUCKET + 1 - len(prompt_tokens)
        prefix.tokens[row, first:] = prompt_tokens[:-1]
        prefix.segment_ids[row, first:] = 1
        prefix.positions[row, first:] = prompt_positions[:-1]
        prefix.image_index[row, first:] = image_indices(prompt_tokens[:-1] == IMAGE)
    prompt = Prompt(
        prefix=prefix,
        images=image_patches(small_config),
        last_token=np.array([prompt_tokens[-1] for prompt_tokens in tokens]),
        next_position=np.array([count[-1, 0] + 1 for count in positions], np.int32),
        draw_ids=np.array([17, 4], np.int32),
    )
    variables = random_variables(small_config, 7, rank=2)
    return Setting(policy_functions(small_config), variables, tokens, positions, prompt)


def image_patches(config: PolicyConfig) -> ImagePatches:
    """The first prompt's picture of noise, of 2 x 3 image tokens, and none for the second."""
    assert config.vision is not None
    merge = config.vision.spatial_merge_size
    places = [(merge * r + i, merge * c + j) for r, c in np.ndindex(2, 3) for i, j in np.ndindex(merge, merge)]
    patches = np.random.default_rng(5).normal(size=(2, len(places), config.vision.patch_dim)).astype(np.float32)
    is_first = np.broadcast_to(np.array([[1], [0]], np.int32), patches.shape[:2])  # [group, patch]
    return ImagePatches(patches, is_first, np.array([places, places], np.int32), is_first)


@pytest.fixture(scope="module")
def next_logprobs(setting: Setting) -> Callable[[int, list[int]], np.ndarray]:
    """(group, tokens so far) -> log pi of every possible next token, from the whole sequence anew.  # [vocab]"""
    longest = max(PROMPT_LENGTHS) + BUDGET

    @jax.jit
    def run(variables: Variables, block: TokenBlock, images: ImagePatches, last: jax.Array) -> jax.Array:
        hidden, _ = setting.functions.run_prefix(variables, block, images)
        return jax.nn.log_softmax(setting.functions.head(variables) @ hidden[0, last])

    def after(group: int, generated: list[int]) -> np.ndarray:
        tokens = np.concatenate([setting.tokens[group], np.array(generated, np.int32)])
        first = setting.positions[group][-1, 0] + 1
        later = np.repeat(first + np.arange(len(generated), dtype=np.int32)[:, None], 3, axis=-1)
        positions = np.concatenate([setting.positions[group], later])
        unused = longest - len(tokens)  # padded on the right to compile once: causal attention can't see it
        is_image = (tokens == IMAGE) & (np.arange(len(tokens)) < len(setting.tokens[group]))
        block = TokenBlock(
            np.pad(tokens, (0, unused))[None],
            np.pad(np.ones_like(tokens), (0, unused))[None],
            np.pad(positions, ((0, unused), (0, 0)))[None],
            np.pad(image_indices(is_image), (0, unused), constant_values=-1)[None],
        )
        images = jax.tree.map(lambda array: array[group : group + 1], setting.prompt.images)
        return np.asarray(run(setting.variables, block, images, len(tokens) - 1))

    return after


def test_greedy_tokens_are_those_of_the_slow_loop(
    setting: Setting, next_logprobs: Callable[[int, list[int]], np.ndarray]
) -> None:
    opening_logprobs, drawn = setting.draw(controls(0.0))
    for group, openings in enumerate(OPENINGS):
        for branch, opening in enumerate(openings):
            sequence: list[int] = []
            scores: list[float] = []
            stopped = False
            while len(sequence) < BUDGET and not stopped:
                logprobs = next_logprobs(group, sequence)
                is_given = len(sequence) < len(opening)
                allowed = np.where(np.isin(np.arange(len(logprobs)), BANNED), -np.inf, logprobs)
                token = opening[len(sequence)] if is_given else int(np.argmax(allowed))
                stopped = not is_given and (token,) in STOPS
                sequence.append(token)
                scores.append(logprobs[token])
            own = len(sequence) - len(opening)
            assert drawn.tokens[group, branch].tolist() == sequence[len(opening) :] + [0] * (BUDGET - own)
            assert drawn.lengths[group, branch] == own
            assert drawn.stopped[group, branch] == stopped
            found = np.concatenate(
                [opening_logprobs[group, branch, : len(opening)], drawn.logprobs[group, branch, :own]]
            )
            np.testing.assert_allclose(found, scores, atol=1e-5)
    assert 0 < drawn.stopped.sum() < drawn.stopped.size, "this should see branches that stop and ones that do not"


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 0), (1.0, 3), (3.0, 0)])
def test_logprobs_of_several_turns_are_those_of_a_scoring_pass(
    setting: Setting, temperature: float, top_k: int
) -> None:
    """As the trainer scores whole branches: at temperature 1 with nothing banned, whoever wrote the tokens.

    An opening, a turn, an observation of another length for every branch, another turn.
    """
    sampling = controls(temperature, top_k=top_k, max_tokens=6)
    observations: tuple[tuple[list[int], ...], ...] = (([3], [], [8, 8, 1]), ([7, 2, 9, 1], [6, 22], []))
    decoding, opening_logprobs = setting.open(setting.begin(seed=3, capacity=2 * (WIDTH + 6)), OPENINGS)
    first, decoding = setting.generate(decoding, sampling)
    decoding, observation_logprobs = setting.open(decoding, observations)
    second, decoding = setting.generate(decoding, sampling)
    assert int(decoding.cache.length) <= decoding.cache.valid.shape[-1]

    longest = 2 * (WIDTH + 6)
    targets, found = np.zeros((2, 3, longest), np.int32), np.zeros((2, 3, longest))
    real = np.zeros((2, 3, longest), bool)
    for group in range(2):
        for branch in range(3):
            place = (group, branch)
            tokens: list[int] = []
            logprobs: list[float] = []
            for given, scores, samples in (
                (OPENINGS, opening_logprobs, first),
                (observations, observation_logprobs, second),
            ):
                words, drawn = given[group][branch], samples.lengths[place]
                tokens += [*words, *samples.tokens[place][:drawn].tolist()]
                logprobs += [*scores[place][: len(words)], *samples.logprobs[place][:drawn]]
            # A branch that stopped and was told nothing new stays as it is.
            if first.stopped[place] and not observations[group][branch]:
                assert second.lengths[place] == 0
            targets[place][: len(tokens)], found[place][: len(tokens)] = tokens, logprobs
            real[place][: len(tokens)] = True
            assert int(decoding.position[place].max()) == setting.prompt.next_position[group] - 1 + len(tokens)
            assert int(decoding.fed[place]) == tokens[-1]
    assert (second.lengths > 0).any() and (second.lengths == 0).any()

    last = np.broadcast_to(setting.prompt.last_token[:, None, None], (2, 3, 1))
    fed = np.concatenate([last, targets[..., :-1]], axis=-1).astype(np.int32)
    order = setting.prompt.next_position[:, None, None, None] - 1 + np.arange(longest)[:, None]
    positions = np.broadcast_to(order, (*fed.shape, 3)).astype(np.int32)
    branches = TokenBlock(fed, real.astype(np.int32), positions, np.full_like(fed, -1))

    @jax.jit
    def score(variables: Variables, prompt: Prompt, branches: TokenBlock, targets: jax.Array) -> jax.Array:
        _, cache = setting.functions.run_prefix(variables, prompt.prefix, prompt.images)
        hidden = setting.functions.run_branches(variables, branches, cache)
        mask = branches.segment_ids > 0
        return token_logprobs(hidden, setting.functions.head(variables), targets, mask, chunk_size=7)

    np.testing.assert_allclose(found, score(setting.variables, setting.prompt, branches, targets), atol=1e-4)


def test_bans_and_stops_hold_at_any_temperature(setting: Setting) -> None:
    ends = set()
    for seed, temperature in enumerate([0.3, 1.0, 2.0, 5.0, 50.0, 50.0]):
        _, drawn = setting.draw(controls(temperature), seed=seed)
        for place in np.ndindex(2, 3):
            own = drawn.tokens[place][: drawn.lengths[place]].tolist()
            assert not set(own) & set(BANNED)
            assert not {(token,) for token in own[:-1]} & set(STOPS)
            stopped = bool(drawn.stopped[place])
            assert stopped == ((own[-1],) in STOPS)
            assert stopped or len(own) == BUDGET - len(OPENINGS[place[0]][place[1]])
            assert not drawn.tokens[place][len(own) :].any() and not drawn.logprobs[place][len(own) :].any()
            ends.add(stopped)
    assert ends == {True, False}


def test_a_stop_sequence_of_several_tokens_ends_a_branch_where_it_is_complete(setting: Setting) -> None:
    """Made from what the policy says anyway, so that it is drawn; what was appended is no part of it."""
    free, _ = setting.generate(setting.begin(), controls(5.0, stops=(), banned_ids=()))
    stop = tuple(free.tokens[0, 1, 3:6].tolist())
    first = tuple(free.tokens[1, 2, :2].tolist())
    drawn, decoding = setting.generate(setting.begin(), controls(5.0, stops=(stop, first), banned_ids=()))

    def length_until_stop(tokens: list[int]) -> int:
        ends = [
            end
            for end in range(1, BUDGET + 1)
            if any(tokens[end - len(s) : end] == list(s) for s in (stop, first) if len(s) <= end)
        ]
        return min(ends, default=BUDGET)

    expected = np.array([[length_until_stop(row) for row in rows] for rows in free.tokens.tolist()])
    np.testing.assert_array_equal(drawn.lengths, expected)
    np.testing.assert_array_equal(decoding.done, drawn.stopped)
    assert drawn.stopped[0, 1] and drawn.lengths[0, 1] <= 6 and drawn.lengths[1, 2] == 2
    assert not drawn.stopped.all()

    # The same branch, its first four tokens appended: it goes on as before, and what was appended is not looked at.
    given = free.tokens[0, 1, :4].tolist()
    decoding, _ = setting.open(setting.begin(), (([], given, []), ([], [], [])))
    goes_on, _ = setting.generate(decoding, controls(5.0, stops=(stop,), banned_ids=(), max_tokens=4))
    assert goes_on.tokens[0, 1].tolist() == free.tokens[0, 1, 4:8].tolist()
    assert not goes_on.stopped[0, 1]


def test_draws_depend_on_key_and_branch_and_not_on_the_batch(setting: Setting) -> None:
    sampling = controls(2.0)
    first, again, other = (setting.draw(sampling, seed=seed)[1] for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(first.tokens != other.tokens)
    greedy, greedy_again = (setting.draw(controls(0.0), seed=seed)[1] for seed in (1, 2))
    jax.tree.map(np.testing.assert_array_equal, greedy, greedy_again)

    both, _ = setting.generate(setting.begin(), sampling)
    second_alone = dataclasses.replace(setting, prompt=jax.tree.map(lambda array: array[1:], setting.prompt))
    alone, _ = second_alone.generate(second_alone.begin(branches=5), sampling)
    np.testing.assert_array_equal(alone.tokens[0, :3], both.tokens[1])
    assert len({tuple(row) for row in alone.tokens[0].tolist()}) == 5


def test_frequencies_are_the_filtered_tempered_probabilities(
    setting: Setting, next_logprobs: Callable[[int, list[int]], np.ndarray]
) -> None:
    draws = 4000
    prompt = jax.tree.map(lambda array: array[:1], setting.prompt)
    logprobs = next_logprobs(0, [])
    allowed = ~np.isin(np.arange(len(logprobs)), BANNED)
    for temperature, top_k, top_p in ((1.0, 0, 1.0), (3.0, 0, 1.0), (3.0, 6, 1.0), (2.0, 0, 0.8), (4.0, 12, 0.7)):
        one_group = dataclasses.replace(setting, prompt=prompt)
        sampling = controls(temperature, top_k=top_k, top_p=top_p, max_tokens=1)
        drawn, _ = one_group.generate(one_group.begin(seed=11, capacity=1, branches=draws), sampling)
        weights = np.exp(logprobs / temperature) * allowed
        order = np.argsort(-weights)
        ranked = np.where(np.arange(len(weights)) < (top_k or len(weights)), weights[order], 0)
        before = np.cumsum(ranked) - ranked
        weights[order] = np.where(before < top_p * ranked.sum(), ranked, 0)
        probabilities = weights / weights.sum()
        counts = np.bincount(np.asarray(drawn.tokens).ravel(), minlength=len(logprobs))
        # Within five standard deviations of the binomial count, and one for tokens that are hardly ever drawn.
        deviation = np.sqrt(draws * probabilities * (1 - probabilities))
        assert np.all(np.abs(counts - draws * probabilities) <= 5 * deviation + (weights > 0))
        assert np.sum(probabilities > 0.01) >= 4, "a distribution on one token would prove nothing"
        assert (top_k == 0 and top_p == 1) or np.sum(weights > 0) < allowed.sum()
        np.testing.assert_array_equal(drawn.stopped[..., None], np.isin(drawn.tokens, STOPS))
        np.testing.assert_allclose(drawn.logprobs, logprobs[drawn.tokens], atol=1e-5)  # of the policy, not of the rest


def test_what_would_not_fit_is_refused(setting: Setting) -> None:
    decoding, _ = setting.open(setting.begin(capacity=13), OPENINGS)
    with pytest.raises(
        ValueError, match=r"drawing up to 10 tokens after the 4 slots in use exceeds the capacity of 13"
    ):
        setting.generate(decoding, controls())
    samples, decoding = setting.generate(decoding, controls(stops=(), max_tokens=6))
    assert samples.lengths.min() == 6
    with pytest.raises(
        ValueError, match="appending up to 4 tokens after the 10 slots in use exceeds the capacity of 13"
    ):
        setting.open(decoding, OPENINGS)
    tokens, lengths = padded(OPENINGS)
    with pytest.raises(ValueError, match="lengths to append go from 0 to 4; the width is 2"):
        append(setting.functions, setting.variables, decoding, tokens[..., :2], lengths)
    for wrong in ({"max_tokens": 0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match="max_tokens=.* must be at least 1"):
            controls(**wrong)
    with pytest.raises(ValueError, match="a stop sequence is empty"):
        controls(stops=((2,), ()))


def test_unscored_appends_meet_no_vocabulary_and_leave_the_same_branches(setting: Setting) -> None:
    scored, _ = setting.open(setting.begin(), OPENINGS)
    unscored, logprobs = append(setting.functions, setting.variables, setting.begin(), *padded(OPENINGS))
    assert not np.any(logprobs)
    assert all(
        np.array_equal(one, other)
        for one, other in zip(
            jax.tree.leaves(scored.replace(keys=None)), jax.tree.leaves(unscored.replace(keys=None)), strict=True
        )
    )
