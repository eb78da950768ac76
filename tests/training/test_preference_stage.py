"""The stage on hand-made groups: it prefers the corrected action, and leaves groups with nothing to prefer out."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.data.preference_pairs import preference_pairs
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.stages.preference import run_preference
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh

TINY = Path(__file__).resolve().parents[1] / "tiny_config.py"


def make_groups(count: int, *, alike: tuple[int, ...] = ()) -> list[Group]:
    """Groups whose failed action, in those of `alike`, is the corrected one."""
    chance = np.random.default_rng(0)
    groups = []
    for number in range(count):
        prefix = chance.integers(1, 20, 6).astype(np.int32)
        branches = []
        for label in GROUP_LABELS:
            first = 20 if label == "correct" or number in alike else 30
            tokens = np.array([first, first + 1, first + 2], np.int32)
            branches.append(Branch(label, tokens, np.full(3, 2, np.int8), label != "failed", 0.0))
        positions = rotary_positions(np.zeros(6, bool), ())
        groups.append(Group(f"record {number}", prefix, positions, pack_images([], None), tuple(branches)))
    return groups


def test_pairs_are_chosen_then_rejected_and_never_alike() -> None:
    pairs = preference_pairs(make_groups(3, alike=(1,)))
    assert [pair.record_id for pair in pairs] == ["record 0", "record 2"]
    for pair in pairs:
        assert [branch.label for branch in pair.branches] == ["correct", "failed"]


def make_context(functions: PolicyFunctions, workdir: Path) -> RunContext:
    config = base_config()
    config.log_every = 5
    config.preference.update({"steps": 20, "pairs_per_batch": 2})
    config.optimizer.trainable = "full"
    config.optimizer.warmup_steps = 0
    config.preference.learning_rate = 3e-3
    config.data.update({"prefix_buckets": (8,), "branch_buckets": (4,)})
    return RunContext(config, workdir, MetricsWriter(workdir), functions, device_mesh(jax.devices()[:1]), -1)


def test_a_run_opens_the_margin_and_is_complete_afterwards(
    functions: PolicyFunctions, variables: dict, tmp_path: Path
) -> None:
    context = make_context(functions, tmp_path)
    after = run_preference(context, variables, lambda: make_groups(4, alike=(3,)), after={})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10, 15, 20]
    assert lines[0]["preference/margin"] < lines[-1]["preference/margin"]
    assert lines[-1]["preference/accuracy"] == 1.0 and lines[-1]["loss"] < lines[0]["loss"] < np.log(2) + 1e-3

    def no_groups() -> list[Group]:
        raise AssertionError("a complete stage asks for no data")

    again = run_preference(context, variables, no_groups, after={})
    for first, second in zip(jax.tree.leaves(after), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_run_without_pairs_is_told(functions: PolicyFunctions, variables: dict, tmp_path: Path) -> None:
    context = make_context(functions, tmp_path)
    with pytest.raises(UserError, match="there are no pairs to prefer one side of"):
        run_preference(context, variables, lambda: make_groups(2, alike=(0, 1)), after={})


def test_the_stage_of_a_run_and_an_online_stage_that_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        f"--config={TINY}",
        f"--workdir={tmp_path}",
        "--config.stages=('preference', 'online', 'eval')",
        "--config.online.algorithm=none",
        "--config.preference.steps=8",
        "--config.preference.pairs_per_batch=4",
        "--config.optimizer.warmup_steps=0",
        "--config.preference.learning_rate=5e-3",
        "--config.preference.beta=1.0",
    ]
    main(arguments)
    told = capsys.readouterr().out
    assert "online: config.online.algorithm is 'none', the policy stays as it is" in told
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["stage"] == "preference"]
    assert [line["step"] for line in trained] == [2, 4, 6, 8]
    assert trained[0]["preference/margin"] < trained[-1]["preference/margin"]
    assert {line["stage"] for line in lines} == {"preference", "eval"}
    assert list(json.loads((tmp_path / "evaluation.json").read_text())) == ["after DPO"]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "checkpoints" / "online").exists() and not (tmp_path / "rollouts").exists()

    with pytest.raises(UserError, match=r"config\.preference\.pairs_per_batch"):
        main([*arguments, "--config.preference.pairs_per_batch=3", "--config.optimizer.microbatches=2"])
