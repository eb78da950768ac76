"""The documents name what there is."""

import re
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from regrpo_jax.core.metrics import SEGMENTS, finalize_metrics
from regrpo_jax.evaluation.report import replay_metrics
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics
from regrpo_jax.models.config import tiny
from regrpo_jax.models.flops import Trained, Work
from regrpo_jax.rollouts.played_work import PlayedWork, play_flops
from regrpo_jax.suites.task_lines import KEYS
from regrpo_jax.training import batch_flops
from regrpo_jax.training.device_figures import device_figures

DOCS = Path(__file__).resolve().parents[1] / "docs"


def named(document: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (DOCS / document).read_text()))


def test_every_metric_is_documented() -> None:
    counts = ("token_count", "policy_token_count", "clipped_count", "capped_count")
    sums = ("logprob_sum", "kl_sum", "entropy_sum", "ratio_sum", "weight_sum")
    given = {f"{segment}/{name}": 1.0 for segment in SEGMENTS for name in (*counts, *sums)}
    of_updates = finalize_metrics(given | {"groups/dropped_count": 1.0, "groups/kept_count": 1.0})
    assert {*of_updates, *rollout_metrics([]), *replay_metrics([])} <= named("metrics.md")


def test_every_count_and_figure_of_a_line_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    told = SimpleNamespace(device_kind="TPU v4", process_index=0, memory_stats=lambda: {"peak_bytes_in_use": 1})
    figures = device_figures(1.0, [told]) | device_figures(1.0, jax.devices())
    monkeypatch.setattr(batch_flops, "batch_work", lambda batch: dict.fromkeys(("rows", "prefix", "branches"), Work()))
    config = tiny(40)
    of_updates = batch_flops.update_flops(None, config, Trained(), batch_flops.ONE_PASS)
    assert {*figures, *of_updates, *play_flops(PlayedWork(), config, Trained())} <= named("metrics.md")


def test_every_key_of_a_task_is_documented() -> None:
    assert set(KEYS) <= named("your_own_task.md")
