"""The documents name what there is."""

import re
from pathlib import Path

from regrpo_jax.core.metrics import SEGMENTS, finalize_metrics
from regrpo_jax.evaluation.report import replay_metrics
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics
from regrpo_jax.suites.task_lines import KEYS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def named(document: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", (DOCS / document).read_text()))


def test_every_metric_is_documented() -> None:
    counts = ("token_count", "policy_token_count", "clipped_count", "capped_count")
    sums = ("logprob_sum", "kl_sum", "entropy_sum", "ratio_sum", "weight_sum")
    given = {f"{segment}/{name}": 1.0 for segment in SEGMENTS for name in (*counts, *sums)}
    of_updates = finalize_metrics(given | {"groups/dropped_count": 1.0, "groups/kept_count": 1.0})
    assert {*of_updates, *rollout_metrics([]), *replay_metrics([])} <= named("metrics.md")


def test_every_key_of_a_task_is_documented() -> None:
    assert set(KEYS) <= named("your_own_task.md")
