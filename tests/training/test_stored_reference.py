"""Reference log-probs are computed once: another start reads them, bit for bit, unless they are of something else."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.groups import Group
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.reference import kept_reference_logprobs, reference_logprobs
from regrpo_jax.training.stored_reference import StoredReference, group_digest
from tests.training.test_scoring import BUCKETS, make_groups

GROUPS = make_groups(5)


@pytest.fixture
def context(functions: PolicyFunctions, tmp_path: Path) -> RunContext:
    config = base_config()
    config.data.update(BUCKETS)
    return RunContext(config, tmp_path, MetricsWriter(tmp_path), functions, device_mesh(jax.devices()[:1]), -1)


def kept(context: RunContext, variables: dict, groups: list[Group]) -> list[np.ndarray]:
    return kept_reference_logprobs(context, "rl", variables, groups, at_once=2, microbatches=1)


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for logprobs, other in zip(found, expected, strict=True):
        assert logprobs.dtype == other.dtype and logprobs.tobytes() == other.tobytes()


def test_what_is_read_is_what_was_computed(
    context: RunContext, variables: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = reference_logprobs(context, variables, GROUPS, at_once=2, microbatches=1)
    assert_equal(kept(context, variables, GROUPS[:3]), expected[:3])
    path = context.workdir / "reference" / "rl.npz"
    first = path.read_bytes()
    assert_equal(kept(context, variables, GROUPS[2::-1]), expected[2::-1])
    assert path.read_bytes() == first, "nothing was computed, nothing is written"
    assert_equal(kept(context, variables, GROUPS), expected)  # those that are missing join the others
    stored = np.load(path)
    assert {group_digest(group) for group in GROUPS} < set(stored.files)

    changed = {**stored, group_digest(GROUPS[0]): np.full_like(expected[0], 7.0)}
    np.savez(path, **changed)
    assert_equal(kept(context, variables, GROUPS), [np.full_like(expected[0], 7.0), *expected[1:]])  # it is read
    assert capsys.readouterr().out == ""


def test_another_policy_or_other_settings_are_computed_again(
    context: RunContext, variables: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kept(context, variables, GROUPS[:2])
    other = jax.tree.map(lambda array: array * 1.5, variables)
    assert np.abs(kept(context, other, GROUPS[:2])[0] - first[0]).max() > 1e-3
    path = context.workdir / "reference" / "rl.npz"
    told = f"{path}: is of another policy or other settings; its log-probs are computed again\n"
    assert capsys.readouterr().out == told
    context.config.data.prefix_buckets = (16,)
    kept(context, other, GROUPS[:2])
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_damaged_file_is_made_again(
    context: RunContext, variables: dict, share: float, capsys: pytest.CaptureFixture[str]
) -> None:
    first = kept(context, variables, GROUPS[:2])
    path = context.workdir / "reference" / "rl.npz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_equal(kept(context, variables, GROUPS[:2]), first)
    assert "its log-probs are computed again" in capsys.readouterr().out
    flipped = bytearray(content)
    flipped[content.index(first[0].tobytes()) + 5] ^= 1
    path.write_bytes(flipped)
    assert_equal(kept(context, variables, GROUPS[:2]), first)


def test_a_group_is_told_by_everything_that_it_holds() -> None:
    one = GROUPS[0]
    other_token = dataclasses.replace(one.branches[0], tokens=one.branches[0].tokens + 1)
    others = [
        one,
        dataclasses.replace(one, prefix=one.prefix + 1),
        dataclasses.replace(one, positions=one.positions + 1),
        dataclasses.replace(one, branches=(other_token, *one.branches[1:])),
        dataclasses.replace(one, branches=one.branches[:1]),
        GROUPS[1],
    ]
    assert len({group_digest(group) for group in others}) == len(others)
    assert group_digest(make_groups(1)[0]) == group_digest(one)


def test_no_file_is_no_trouble(tmp_path: Path) -> None:
    assert StoredReference(tmp_path / "none.npz", "policy").read() == {}
    assert not list(tmp_path.iterdir())
