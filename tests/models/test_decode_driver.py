"""Drawing in segments with finished branches dropped gives what drawing everything at once gives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.decode_driver import decode
from regrpo_jax.models.drawing import draw_compiled
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.models.sampler import Decoding, Prompt, append, generate, start
from regrpo_jax.models.token_choice import Sampling, sampling_controls

GROUPS, BRANCHES, LENGTH = 6, 4, 5
MAX_TOKENS = 12
# What each branch may draw: first single branches end, then groups, then all but one branch.
BUDGETS = np.array(
    [[1, 2, 9, 1], [2, 12, 1, 0], [5, 5, 2, 2], [0, 0, 0, 0], [3, 1, 1, 1], [2, 2, 9, 9]],
    np.int32,
)


class Setting:
    """Six prompts of four branches each; every call of `draw_compiled` is compiled for the first time in here."""

    def __init__(self, config: PolicyConfig, variables: dict[str, Any]) -> None:
        tokens = np.random.default_rng(2).integers(0, 20, (GROUPS, LENGTH)).astype(np.int32)
        order = np.broadcast_to(np.arange(LENGTH, dtype=np.int32)[:, None], (GROUPS, LENGTH, 3))
        segment_ids = (np.arange(LENGTH) >= np.arange(GROUPS)[:, None] % 3).astype(np.int32)  # [group, prefix]
        prefix = TokenBlock(tokens, segment_ids, order, np.full_like(tokens, -1))
        ids = np.arange(GROUPS, dtype=np.int32)
        self.prompt = Prompt(prefix, None, ids + 1, np.full(GROUPS, LENGTH + 1, np.int32), ids)
        self.functions: PolicyFunctions = policy_functions(config)
        self.variables = variables

    def begin(self) -> Decoding:
        key = jax.random.key(4)
        return start(self.functions, self.variables, self.prompt, key, branches=BRANCHES, capacity=2 * MAX_TOKENS + 3)

    def two_turns(self, write: Callable[..., Any], sampling: Sampling, **options: Any) -> list[Any]:
        """A turn, an observation for some, and another turn: everything that comes out, and the final state."""
        first, decoding = write(self.functions, self.variables, self.begin(), sampling, BUDGETS, **options)
        observation = np.full((GROUPS, BRANCHES, 3), 6, np.int32)
        lengths = np.arange(GROUPS * BRANCHES).reshape(GROUPS, BRANCHES) % 4
        decoding, _ = append(self.functions, self.variables, decoding, observation, lengths)
        second, decoding = write(self.functions, self.variables, decoding, sampling, BUDGETS[::-1], **options)
        state = (decoding.fed, decoding.position, decoding.done, decoding.cache.valid, decoding.cache.last_tokens)
        return jax.device_get([first, second, state])


@pytest.fixture(scope="module")
def setting(small_config: PolicyConfig, random_variables: Callable[..., dict[str, Any]]) -> Setting:
    return Setting(small_config, random_variables(small_config, 9))


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_segments_and_smaller_shapes_change_nothing(setting: Setting, temperature: float) -> None:
    sampling = sampling_controls(max_tokens=MAX_TOKENS, stops=((3,), (4, 4)), temperature=temperature, top_p=0.95)
    at_once = setting.two_turns(generate, sampling)
    in_segments = setting.two_turns(decode, sampling, segment=2)
    for expected, found in zip(jax.tree.leaves(at_once), jax.tree.leaves(in_segments), strict=True):
        if np.issubdtype(expected.dtype, np.floating):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        else:
            np.testing.assert_array_equal(found, expected)
    first, second, _ = in_segments
    assert np.all(first.lengths <= BUDGETS) and np.all(second.lengths <= BUDGETS[::-1])
    assert first.stopped.any() and second.stopped.any()
    assert (first.lengths == BUDGETS).sum() > 10, "branches should end in both ways"


def test_a_shape_is_compiled_once_and_shapes_shrink_with_what_is_left(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = sampling_controls(max_tokens=MAX_TOKENS, stops=(), temperature=1.5)
    shapes: list[tuple[int, ...]] = []
    traces: list[int] = []

    @functools.partial(jax.jit, static_argnums=0, static_argnames="slots", donate_argnums=2)
    def counted(*arguments: Any, slots: int) -> Any:
        traces.append(slots)  # a side effect that happens only while tracing
        return draw_compiled.__wrapped__(*arguments, slots=slots)

    def recorded(*arguments: Any, slots: int) -> Any:
        shapes.append(arguments[3].fed.shape)
        return counted(*arguments, slots=slots)

    monkeypatch.setattr("regrpo_jax.models.drawing.draw_compiled", recorded)
    decode(setting.functions, setting.variables, setting.begin(), sampling, BUDGETS, segment=2)
    # Live at first: five groups, four branches. After 2 tokens: groups 0, 1, 2, 4, 5 with at most two branches;
    # after 4: groups 0, 1, 2 and 5; after 6: 0, 1 and 5; after 10: one branch of group 1.
    assert shapes == [(6, 4), (6, 2), (6, 2), (6, 2), (6, 2), (1, 1)]
    assert len(traces) == 3
    for temperature in (0.0, 0.7):
        changed = sampling_controls(max_tokens=MAX_TOKENS, stops=(), temperature=temperature, top_k=3, top_p=0.5)
        decode(setting.functions, setting.variables, setting.begin(), changed, BUDGETS, segment=2)
    assert len(traces) == 3, "neither another number nor a second turn compiles anything"


def test_nothing_to_draw_runs_nothing(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrpo_jax.models.drawing.draw_compiled", None)
    sampling = sampling_controls(max_tokens=MAX_TOKENS, stops=(), temperature=0.0)
    samples, decoding = decode(
        setting.functions, setting.variables, setting.begin(), sampling, np.zeros((GROUPS, BRANCHES), np.int32)
    )
    assert not np.any(samples.lengths) and samples.tokens.shape == (GROUPS, BRANCHES, MAX_TOKENS)
    assert int(decoding.cache.length) == 0


def test_slots_that_cannot_be_in_use_are_not_looked_at(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache with room for a long session gives the same as a small one, and is compiled for powers of two."""
    sampling = sampling_controls(max_tokens=MAX_TOKENS, stops=(), temperature=1.0)
    expected = setting.two_turns(generate, sampling)
    seen: list[int] = []

    def recorded(*arguments: Any, slots: int) -> Any:
        seen.append(slots)
        return draw_compiled(*arguments, slots=slots)

    monkeypatch.setattr("regrpo_jax.models.drawing.draw_compiled", recorded)
    monkeypatch.setattr("regrpo_jax.models.drawing.FEWEST_SLOTS", 8)
    found = setting.two_turns(decode, sampling, segment=6)
    # The second turn starts after the 12 tokens of the first and 3 of an observation; there are 27 slots.
    assert seen == [8, 16, 27, 27]
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(np.asarray(other, float), np.asarray(one, float), atol=1e-5)
