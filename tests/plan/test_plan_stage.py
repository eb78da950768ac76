"""A plan of the smallest run, as a person asks for it."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.errors import UserError
from regrpo_jax.main import main
from regrpo_jax.plan.chips import CHIPS, GIB
from regrpo_jax.plan.devices import target
from regrpo_jax.plan.figures import Figures, _told_need
from regrpo_jax.plan.page import memory_rows, work_rows
from regrpo_jax.plan.settings import other_settings, setting_of, with_setting

TINY = Path(__file__).resolve().parents[1] / "tiny_config.py"


def test_it_is_written_and_tells_what_training_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([f"--config={TINY}", f"--workdir={tmp_path}", "--config.stages=plan", "--config.plan.steps=rl,decode"])
    plan = json.loads((tmp_path / "plan.json").read_text())
    steps = {step["name"]: step for step in plan["steps"]}
    assert list(steps) == ["rl", "decode"]
    assert steps["rl"]["needed"] >= steps["rl"]["weights"] + steps["rl"]["optimizer"] + steps["rl"]["temporaries"]
    assert steps["rl"]["temporaries"] > 0 and steps["rl"]["flops"] >= steps["rl"]["model_flops"] > 0
    # The stage online trains all weights here: two moments of each lie there while it plays, and the counts.
    assert steps["decode"]["beside"] == pytest.approx(2 * steps["decode"]["weights"], rel=1e-3)
    assert steps["rl"]["optimizer"] < steps["decode"]["beside"]  # of an adapter
    assert "| rl |" in (tmp_path / "plan.md").read_text()
    assert "whether it fits cannot be told" in capsys.readouterr().out
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["--config.plan.topology=v5e"], "'v5e:2x4'"),
        (["--config.plan.topology=v9z:2x4"], "v4, v5e, v5p, v6e"),
        (["--config.plan.topology=h200:8"], "one is planned: 'h200'"),
        (["--config.plan.steps=rl,teach"], "config.plan.steps"),
        (["--config.plan.steps=score", "--config.optimizer.microbatches=3"], "config.online.tasks=16"),
        (["--config.mesh.fsdp=3"], "does not divide the number of devices"),
        (["--config.plan.steps=rl", "--config.optimizer.microbatches=4"], "config.rl.groups_per_batch=2"),
    ],
)
def test_what_cannot_be_planned_is_told(tmp_path: Path, overrides: list[str], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        main([f"--config={TINY}", f"--workdir={tmp_path}", "--config.stages=plan", *overrides])


def test_it_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'plan' stands alone"):
        main([f"--config={TINY}", f"--workdir={tmp_path}", "--config.stages=plan,sft"])


@pytest.mark.parametrize(("topology", "told"), [("v5e:1x1", {"chips_per_host_bounds": (1, 1, 1)}), ("v5e:2x4", {})])
def test_a_single_chip_is_a_slice_too(monkeypatch: pytest.MonkeyPatch, topology: str, told: dict[str, object]) -> None:
    """libtpu, which the tests do without, refuses it where it is to divide it into hosts of four."""
    asked: list[tuple[object, ...]] = []

    def slice_of(name: str, platform: str, **options: object) -> SimpleNamespace:
        asked.append((name, platform, options))
        return SimpleNamespace(devices=[])

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", slice_of)
    assert target(topology).platform == "tpu"
    assert asked == [(topology, "tpu", told)]


def test_a_gpu_that_is_elsewhere_is_planned_by_analysis() -> None:
    where = target("h200")
    assert where.compiled_elsewhere and where.platform == "gpu" and where.chip is CHIPS["h200"]


def test_a_policy_whose_kernel_is_the_gpus_is_compiled_all_the_same(tmp_path: Path) -> None:
    """In bfloat16 a GPU attends with cuDNN, which no CPU has."""
    main(
        [f"--config={TINY}", f"--workdir={tmp_path}", "--config.stages=plan", "--config.plan.topology=h200"]
        + ["--config.plan.steps=prefill", "--config.model.dtype=bfloat16"]
    )
    told = (tmp_path / "plan.md").read_text()
    assert "NVIDIA H200" in told and "attention xla" in told and "- fits" in told


def figures_of(needed: float, **changed: object) -> Figures:
    made = Figures(
        "sft", 4 * GIB, 2 * GIB, GIB, 0.0, GIB, needed, {"all-gather": 2e9}, {"all-gather": 28}, 4e12, 3e12, 5
    )
    return Figures(**{**vars(made), **changed})


def test_verdicts_and_bounds() -> None:
    chip = CHIPS["v5e"]
    fits, over = figures_of(8 * GIB), figures_of(17.9 * GIB, temporaries=None, failure="RESOURCE_EXHAUSTED")
    assert [row[-1] for row in memory_rows([fits, over], chip)] == ["yes, 7.75 left", "no, 2.15 over"]
    seconds = fits.seconds(chip)
    assert seconds == {"compute": 4e12 / 197e12, "memory": 7 * GIB / 819e9, "network": 0.01}
    assert work_rows([fits], chip)[0][4:6] == ("20.3 ms", "compute")
    assert work_rows([fits], None)[0][4:6] == ("-", "-")


def test_what_the_compiler_says_that_it_would_take() -> None:
    words = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.90G of 15.75G hbm. Exceeded by 2.15G."
    assert _told_need(words, GIB) == pytest.approx(17.9 * GIB)
    words = "Ran out of memory on HBM, the total memory required for HLO temporaries (165.43G) exceeds available HBM"
    assert _told_need(words, GIB) == pytest.approx(166.43 * GIB)
    assert _told_need("RESOURCE_EXHAUSTED", GIB) == GIB


def test_other_settings_divide_the_batches_and_go_from_cheap_to_dear() -> None:
    config = base_config()
    config.sft.batch_rows, config.online.tasks = 32, 16
    found = list(other_settings(config, 8, ("sft", "online")))
    assert setting_of(config) not in found and len(found) == len(set(found))
    for setting in found:
        shards = 8 // setting.model * setting.microbatches
        assert 32 % shards == 16 % shards == 0 and 8 % (setting.fsdp * setting.model) == 0
    assert (found[0].fsdp, found[0].model, found[0].microbatches) == (1, 1, 2)
    changed = with_setting(config, found[-1])
    assert setting_of(changed) == found[-1] and setting_of(config) != found[-1]
    assert f"--config.mesh.fsdp={found[-1].fsdp} " in found[-1].told()
