"""Online updates and preference updates on hand-made rollouts: ratios, epochs, staleness, devices, and the buffer."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, with_images
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer, StoredRollouts
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.online_step import OnlineSettings, ScoredBatch, online_step, online_update
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.preference_step import preference_step
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.state import TrainState, initial_state
from regrpo_jax.training.steps import group_scores
from tests.data.rollout_groups import IMAGE, make_group
from tests.many_devices import DEVICES, run_on_many_devices

ROOT = Path(__file__).resolve().parents[2]
OPTIMIZER = optax.sgd(0.1)
SETTINGS = OnlineSettings(
    beta=0.1, kl_estimator="k3", clip_low=0.2, clip_high=0.28, weight_cap=None, zero_variance="skip"
)
ROWS, BRANCHES = 4, 4
GROUPS = [make_group(7, number, branches=BRANCHES, dropped=(1,) if number else ()) for number in range(3)]


def collate(groups: list[Any], **changes: Any) -> OnlineBatch:
    options: dict[str, Any] = {
        "rows": ROWS,
        "branches": BRANCHES,
        "credit": CreditSettings("step", "shared", normalize=True),
        "policy_version": 0,
        "image_token_id": IMAGE,
        "prefix_buckets": (16,),
        "branch_buckets": (64,),
    }
    return collate_rollouts(groups, **(options | changes))


@pytest.fixture(scope="module")
def score(functions: PolicyFunctions) -> Callable[..., np.ndarray]:
    """(variables, batch) -> log pi of the sampled tokens."""
    scorer = logprob_scorer(functions, device_mesh(jax.devices()[:1]), microbatches=2, chunk_size=64)
    return lambda variables, batch: np.asarray(scorer(variables, batch))


@pytest.fixture(scope="module")
def step_of(functions: PolicyFunctions) -> Callable[..., Any]:
    """Changes of the settings -> a step, compiled once for each."""
    made: dict[OnlineSettings, Any] = {}

    def make(**changes: Any) -> Any:
        chosen = dataclasses.replace(SETTINGS, **changes)
        if chosen not in made:
            mesh = device_mesh(jax.devices()[:1])
            made[chosen] = online_step(functions, OPTIMIZER, mesh, chosen, microbatches=1, chunk_size=64)
        return made[chosen]

    return make


@pytest.fixture(scope="module")
def fresh(score: Callable[..., np.ndarray], variables: dict) -> OnlineBatch:
    """Rollouts whose log-probs are those of the policy."""
    batch = collate(GROUPS)
    assert batch.keep.any() and (batch.segments[~batch.keep] > 0).any()  # both kinds of steps
    return jax.tree.map(jnp.asarray, dataclasses.replace(batch, behaviour_logprobs=score(variables, batch)))


def moved(variables: dict, scale: float) -> dict:
    """Another policy."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + scale * jnp.asarray(rng.normal(size=x.shape), x.dtype), variables)


def difference(first: Any, second: Any) -> float:
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in pairs)


def test_first_update_has_ratio_one_and_the_gradient_of_the_plain_loss(
    functions: PolicyFunctions, step_of: Callable[..., Any], fresh: OnlineBatch, variables: dict
) -> None:
    # The reference is where the update starts, so that the KL and its gradient are 0.
    scored = ScoredBatch(fresh, fresh.behaviour_logprobs, fresh.behaviour_logprobs)
    state, metrics = step_of()(initial_state(variables, OPTIMIZER), {}, scored)
    assert (fresh.segments == 1).any()
    for segment in ("reflection", "action"):
        assert metrics[f"{segment}/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert metrics[f"{segment}/clip_share"] == 0.0
        assert metrics[f"{segment}/kl"] == pytest.approx(0.0, abs=1e-6)
        assert metrics[f"{segment}/weight"] == 1.0
        assert metrics[f"{segment}/token_count"] == (fresh.keep & (fresh.segments == 1 + (segment == "action"))).sum()

    def plain(trained: dict) -> jax.Array:
        logprobs = group_scores(functions, trained, fresh, None, chunk_size=64).logprobs
        return -jnp.sum(jnp.where(fresh.keep, logprobs * fresh.advantages, 0.0)) / fresh.keep.sum()

    gradient = jax.jit(jax.grad(plain))(variables)
    expected = jax.tree.map(lambda x, g: x - 0.1 * g, variables, gradient)
    assert difference(state.trainable, expected) < 2e-6
    assert difference(variables, expected) > 1e-3
    assert metrics["gradient_norm"] == pytest.approx(float(optax.global_norm(gradient)), rel=1e-4)


def reflected(rollout: Rollout, step: int) -> int:
    return sum(turn.reflection_tokens for turn in rollout.turns if turn.step == step)


def worth(rollout: Rollout, step: int) -> bool:
    """Where nobody knows what the step should do, what ran is worth what the episode came to."""
    last = [turn for turn in rollout.turns if turn.step == step][-1]
    return last.went_right and (last.right is not None or rollout.success)


def test_counts_and_rewards_are_of_what_was_played(
    step_of: Callable[..., Any], fresh: OnlineBatch, variables: dict
) -> None:
    scored = ScoredBatch(fresh, fresh.behaviour_logprobs, fresh.behaviour_logprobs)
    _, metrics = step_of()(initial_state(variables, OPTIMIZER), {}, scored)
    pairs, learnable, rewards = 0, 0, []
    for group in GROUPS:
        counted = [rollout for rollout in group.rollouts if not rollout.dropped]
        for step in range(max(len(rollout.step_success) for rollout in counted)):
            there = [rollout for rollout in counted if len(rollout.step_success) > step]
            found = [worth(rollout, step) - 0.1 * reflected(rollout, step) / 100 for rollout in there]
            pairs, learnable, rewards = pairs + 1, learnable + (len(set(found)) > 1), rewards + found
    assert metrics["groups/kept_count"] == learnable > 0
    assert metrics["groups/dropped_count"] == pairs - learnable > 0
    assert metrics["reward"] == pytest.approx(np.mean(rewards), rel=1e-5)
    assert metrics["branches/count"] == sum(len(group.counted) for group in GROUPS) == 10


def test_dropped_rollouts_change_nothing_at_all(
    step_of: Callable[..., Any], score: Callable[..., np.ndarray], variables: dict
) -> None:
    states = []
    for seed in (0, 1):  # what the dropped rollout holds
        other = make_group(50 + seed, 1, branches=BRANCHES, dropped=(1,)).rollouts[1]
        rollouts = (GROUPS[1].rollouts[0], other, *GROUPS[1].rollouts[2:])
        batch = collate([GROUPS[0], dataclasses.replace(GROUPS[1], rollouts=rollouts)])
        scored = ScoredBatch(batch, score(variables, batch), batch.behaviour_logprobs)
        states.append(step_of()(initial_state(variables, OPTIMIZER), {}, scored)[0])
    assert difference(states[0], states[1]) == 0.0


@pytest.mark.parametrize("zero_variance", ["skip", "keep_kl"])
def test_steps_that_prefer_nothing_are_skipped_or_held(
    step_of: Callable[..., Any], fresh: OnlineBatch, variables: dict, zero_variance: str
) -> None:
    nothing = dataclasses.replace(fresh, keep=np.zeros_like(fresh.keep))
    reference = fresh.behaviour_logprobs - 0.5 * (fresh.segments > 0)
    step = step_of(zero_variance=zero_variance)
    state, metrics = step(initial_state(variables, OPTIMIZER), {}, ScoredBatch(nothing, reference, reference))
    held = zero_variance == "keep_kl"
    assert (difference(state.trainable, variables) > 1e-5) == held
    assert metrics["action/token_count"] == ((fresh.segments == 2).sum() if held else 0)
    assert metrics["action/policy_token_count"] == 0


def test_epochs_move_on_from_one_batch_and_count_as_one_update(
    step_of: Callable[..., Any], score: Callable[..., np.ndarray], fresh: OnlineBatch, variables: dict
) -> None:
    reference = moved(variables, 0.01)
    once = online_update(step_of(), score, reference, epochs=1, recompute_stale=False)
    thrice = online_update(step_of(), score, reference, epochs=3, recompute_stale=False)
    first, alone = once(initial_state(variables, OPTIMIZER), {}, fresh)
    state, metrics = thrice(initial_state(variables, OPTIMIZER), {}, fresh)
    assert int(first.step) == int(state.step) == 1
    assert alone["action/ratio"] == pytest.approx(1.0, abs=1e-6)
    by_hand = initial_state(variables, OPTIMIZER)
    scored = ScoredBatch(fresh, score(reference, fresh), fresh.behaviour_logprobs)
    ratios = []
    for _ in range(3):
        by_hand, found = step_of()(by_hand, {}, scored)
        ratios.append(float(found["action/ratio"]))
    assert difference(state.trainable, by_hand.trainable) == 0.0
    assert difference(state.trainable, first.trainable) > 1e-4
    assert metrics["action/ratio"] == pytest.approx(np.mean(ratios), rel=1e-6)
    assert len({round(ratio, 6) for ratio in ratios}) == 3


def test_stale_rollouts_get_capped_weights_and_fresh_ones_do_not(
    step_of: Callable[..., Any], score: Callable[..., np.ndarray], fresh: OnlineBatch, variables: dict
) -> None:
    cap = 1.1
    sampler = score(moved(variables, 0.3), fresh)
    stale = np.zeros_like(fresh.stale)
    stale[:, 0] = True
    behaviour = np.where(stale[..., None], sampler, fresh.behaviour_logprobs)
    batch = dataclasses.replace(fresh, stale=stale, behaviour_logprobs=behaviour)
    update = online_update(step_of(weight_cap=cap), score, variables, epochs=1, recompute_stale=True)
    _, metrics = update(initial_state(variables, OPTIMIZER), {}, batch)
    weight = np.where(stale[..., None], np.minimum(np.exp(fresh.behaviour_logprobs - sampler), cap), 1.0)
    actions = np.asarray(fresh.keep & (fresh.segments == 2))
    assert metrics["action/ratio"] == pytest.approx(1.0, abs=1e-6)  # pi is where the update starts
    assert metrics["action/weight"] == pytest.approx(weight[actions].mean(), rel=1e-5)
    assert 0 < metrics["action/cap_share"] == pytest.approx((weight[actions] > cap - 1e-6).mean(), abs=1e-6)
    assert metrics["branches/stale_share"] == pytest.approx(3 / 10)
    as_if_fresh = online_update(step_of(), score, variables, epochs=1, recompute_stale=False)
    _, plain = as_if_fresh(initial_state(variables, OPTIMIZER), {}, batch)
    assert plain["action/weight"] == 1.0 and plain["action/ratio"] != pytest.approx(1.0, abs=1e-4)


def test_updates_raise_what_was_better_than_its_siblings(
    step_of: Callable[..., Any], score: Callable[..., np.ndarray], fresh: OnlineBatch, variables: dict
) -> None:
    update = online_update(step_of(), score, variables, epochs=4, recompute_stale=False)
    state, _ = update(initial_state(variables, OPTIMIZER), {}, fresh)
    change = score(state.trainable, fresh) - fresh.behaviour_logprobs
    kept, advantages = np.asarray(fresh.keep), np.asarray(fresh.advantages)
    better, worse = kept & (advantages > 0.1), kept & (advantages < -0.1)
    assert change[better].mean() > 1e-3 > -1e-3 > change[worse].mean()


def test_an_update_from_the_buffer_is_the_one_from_memory_bit_for_bit(
    step_of: Callable[..., Any], score: Callable[..., np.ndarray], variables: dict, tmp_path: Path
) -> None:
    with RolloutBuffer(tmp_path) as buffer:
        for group in GROUPS:
            buffer.add_group(0, group, planned=BRANCHES)
        for branch in reversed(range(BRANCHES)):
            for group in GROUPS:
                buffer.add_rollout(0, group.rollouts[branch])
        buffer.add_update(1, [GroupKey(0, group.group) for group in GROUPS])
    repeated = [with_images(group, None, None) for group in StoredRollouts(tmp_path).update(1)]
    update = online_update(step_of(), score, variables, epochs=2, recompute_stale=False)
    (first, one), (second, other) = (
        update(initial_state(variables, OPTIMIZER), {}, collate(groups)) for groups in (GROUPS, repeated)
    )
    assert difference((first, one), (second, other)) == 0.0
    assert difference(first.trainable, variables) > 1e-4


@pytest.fixture(scope="module")
def pairs(group_batch: Callable[..., GroupBatch]) -> GroupBatch:
    batch = group_batch(1, 4)
    two = jax.tree.map(lambda x: x[:, :2], dataclasses.replace(batch, prefix=None, images=None))
    return dataclasses.replace(two, prefix=batch.prefix)


def test_preference_updates_open_a_margin(
    functions: PolicyFunctions, variables: dict, pairs: GroupBatch, score: Callable[..., np.ndarray]
) -> None:
    pairs = dataclasses.replace(pairs, reference_logprobs=score(variables, pairs))
    mesh, optimizer = device_mesh(jax.devices()[:1]), optax.adam(3e-3)
    step = preference_step(functions, optimizer, mesh, beta=0.1, microbatches=1, chunk_size=64)
    state, history = initial_state(variables, optimizer), []
    for _ in range(20):
        state, metrics = step(state, {}, pairs)
        history.append({name: float(value) for name, value in metrics.items()})
    assert history[0]["loss"] == pytest.approx(np.log(2), rel=1e-4)
    assert history[0]["preference/margin"] == pytest.approx(0.0, abs=1e-5)
    assert history[-1]["preference/accuracy"] == 1.0
    assert history[-1]["loss"] < 0.6 and history[-1]["preference/margin"] > 0.2
    change = np.sum(score(state.trainable, pairs) - pairs.reference_logprobs, axis=-1)  # [pair, side]
    np.testing.assert_allclose(0.1 * (change[:, 0] - change[:, 1]).mean(), step_margin(step, state, pairs), rtol=1e-4)


def step_margin(step: Any, state: TrainState, pairs: GroupBatch) -> float:
    return float(step(state, {}, pairs)[1]["preference/margin"])


SPLITS = {"online": ("8x1x1x1", "4x1x2x2", "1x2x2x4"), "preference": ("1x8x1x1", "2x1x2x2")}
# As in test_parallel: the largest difference to one device, relative to the largest number of each array.
SCRIPT = """
import dataclasses, json, runpy, sys
import jax, numpy as np
from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.data.online_batches import collate_rollouts
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.models.lora import AdapterSettings
from regrpo_jax.models.sharding import place
from regrpo_jax.training.online_step import OnlineSettings, online_step, online_update
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import device_mesh, shard_batch
from regrpo_jax.training.preference_step import preference_step
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.state import initial_state, split_variables
from tests.data.rollout_groups import IMAGE, make_group

made = runpy.run_path("tests/training/conftest.py")
ROWS, BRANCHES = 8, 3
functions = made["make_functions"]("float64", images=True)
variables = made["make_variables"](functions)
optimizer = make_optimizer(stage_section(base_config(), "rl"), steps=10)
adapter = AdapterSettings(rank=2, targets=("q_proj", "o_proj"), vision_rank=2, vision_targets=("fc1",))
trained, frozen = split_variables(variables, "lora", jax.random.key(1), functions.config, adapter)
trained = jax.tree.map(lambda x: x.astype(float) + 0.01, trained)
groups = [
    make_group(7, number, branches=BRANCHES, images=1, dropped=(2,) if number % 3 == 0 else (), versions=(0, 1, 1))
    for number in range(6)
]
online = collate_rollouts(
    groups, rows=ROWS, branches=BRANCHES, credit=CreditSettings("step", "shared", normalize=True), policy_version=1,
    image_token_id=IMAGE, prefix_buckets=(16,), branch_buckets=(64,),
)
pairs = made["make_group_batch"](3, ROWS, images=True)
of_branches = {"branches", "targets", "segments", "success", "verifier_value", "reference_logprobs"}
pairs = dataclasses.replace(
    pairs, **{name: jax.tree.map(lambda x: x[:, :2], getattr(pairs, name)) for name in of_branches}
)
online, pairs = jax.tree.map(lambda x: x.astype(float) if x.dtype == np.float32 else x, (online, pairs))
settings = OnlineSettings(
    beta=0.05, kl_estimator="k3", clip_low=0.2, clip_high=0.28, weight_cap=1.5, zero_variance="keep_kl"
)


def updated(name, split):
    data, fsdp, model, microbatches = map(int, split.split("x"))
    mesh = device_mesh(jax.devices()[: data * fsdp * model], fsdp=fsdp, model=model)
    state, below, reference = place((initial_state(trained, optimizer), frozen, variables), mesh)
    shared = {"microbatches": microbatches, "chunk_size": 16}
    if name == "online":
        scorer = logprob_scorer(functions, mesh, **shared)
        step = online_step(functions, optimizer, mesh, settings, **shared)
        update, batch = online_update(step, scorer, reference, epochs=2, recompute_stale=True), online
    else:
        step = update = preference_step(functions, optimizer, mesh, beta=0.1, **shared)
        batch = pairs
    for _ in range(2):
        state, metrics = update(state, below, shard_batch(batch, mesh))
    assert step._cache_size() == 1, "compiled more than once"
    return jax.device_get((state, metrics))


def difference(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), 1e-9)) for a, b in pairs)


report = {"devices": jax.device_count()}
for name, splits in json.loads(sys.argv[1]).items():
    single = updated(name, "1x1x1x1")
    report[name] = {"metrics": {key: float(value) for key, value in single[1].items()}}
    for split in splits:
        report[name][split] = [difference(a, b) for a, b in zip(single, updated(name, split))]
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report() -> dict:
    done = run_on_many_devices(SCRIPT, json.dumps(SPLITS), float64=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("step", "split"), [(step, split) for step, splits in SPLITS.items() for split in splits])
def test_update_is_the_same_for_every_split(report: dict, step: str, split: str) -> None:
    assert report["devices"] == DEVICES
    state, metrics = report[step][split]
    assert state < 1e-10
    assert metrics < 1e-10


def test_what_was_compared_did_train(report: dict) -> None:
    online, preference = report["online"]["metrics"], report["preference"]["metrics"]
    assert online["gradient_norm"] > 1e-3 and preference["gradient_norm"] > 1e-4
    assert online["reflection/token_count"] > 5 and online["action/token_count"] > 50
    assert 0 < online["branches/stale_share"] < 1
    assert online["action/weight"] != pytest.approx(1.0, abs=1e-3)
    assert online["groups/dropped_count"] > 0 < online["groups/kept_count"]
