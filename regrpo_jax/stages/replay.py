"""The stage `eval`: measures the policy wherever the config's list of stages says so, and keeps the numbers."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.corpus import Corpus, replayable, rot_groups
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.decoding import TurnWriter
from regrpo_jax.evaluation.replay import replay
from regrpo_jax.evaluation.report import metrics_by_error_type, print_error_types, print_table, replay_metrics
from regrpo_jax.evaluation.scoring import recorded_confidences
from regrpo_jax.records import RotRecord
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.rollouts.sampler_policy import CHUNK, SamplerPolicy
from regrpo_jax.run.run import Run
from regrpo_jax.stages.table import title_of
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.reference import reference_logprobs

_OPENING = 64  # tokens of the words that a turn is made to begin with, at most


def run(run: Run) -> None:
    """Measures the policy as it stands, or takes the numbers of an earlier start."""
    learner = run.learner
    measure = run.measure("eval", lambda: Evaluation(learner.context, learner.corpus, learner.reader))
    measure.measure(learner.variables, run.trained)


def with_room(buckets: Sequence[int]) -> tuple[int, ...]:
    """Padded lengths that hold every prompt which `replayable` lets pass, and what a session keeps free behind it."""
    *others, largest = sorted(buckets)
    return (*others, largest + 2 * CHUNK)


class Evaluation:
    """Columns of the table so far, kept in `evaluation.json` so that a second start need not measure again."""

    def __init__(self, context: RunContext, corpus: Corpus, reader: ConversationReader) -> None:
        self._context, self._reader, self._corpus = context, reader, corpus
        self._source = context.config.data.eval_rot or context.config.data.rot
        self._path = context.workdir / "evaluation.json"
        self._columns: dict[str, dict[str, Any]] = {}

    @functools.cached_property
    def _records(self) -> list[RotRecord]:
        """What is replayed; a record that cannot be is named and skipped, or fatal, as `config.data` says."""
        chosen = self._corpus.eval_rot[: self._context.config.eval.records]
        return replayable(chosen, self._reader, self._context.config.data, self._source)

    def measure(self, variables: dict[str, Any], trained: Mapping[str, int]) -> None:
        """Measures a policy, or reads the numbers of an earlier start.

        Args:
          trained: the stages that made it, in order, and their updates.
        """
        config = self._context.config
        name = f"after {title_of(list(trained)[-1], config.online.algorithm)}" if trained else "untrained"
        identity = json.loads(
            json.dumps({**trained, "eval": config.eval.to_dict(), "turn_tokens": config.agent.turn_tokens})
        )
        earlier = self._earlier_columns()
        if earlier.get(name, {}).get("identity") == identity:
            self._columns[name] = earlier[name]
            return
        print(f"eval: {len(self._records)} records, {name}", flush=True)
        overall, by_type = self._replay(variables)
        self._columns[name] = {"identity": identity, "overall": overall, "by_error_type": by_type}
        step = sum(trained.values())
        self._context.writer.drop_after("eval", step - 1)
        self._context.writer.write("eval", step, overall)
        replace_text(self._path, json.dumps(earlier | self._columns, indent=2) + "\n")

    def print_tables(self) -> None:
        """The table a run ends with."""
        if not self._columns:
            return
        count = len(self._records)
        where = "held-out records" if self._corpus.held_out else "records, the ones it was trained on"
        print_table(f"offline replay of {count} {where}", {name: c["overall"] for name, c in self._columns.items()})
        print_error_types({name: column["by_error_type"] for name, column in self._columns.items()})

    def _earlier_columns(self) -> dict[str, Any]:
        if not self._path.exists():
            return {}
        try:
            return json.loads(self._path.read_text())
        except ValueError as error:
            raise UserError(f"{self._path}: not valid JSON any more; remove it to measure again") from error

    def _replay(self, variables: dict[str, Any]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        context, config = self._context, self._context.config
        confidences = recorded_confidences(
            context.functions,
            variables,
            self._reader,
            self._records,
            batch=config.played_at_once,
            chunk_size=context.logprob_chunk,
        )
        policy = SamplerPolicy(
            context.functions,
            variables,
            self._reader,
            prefix_buckets=with_room(config.data.prefix_buckets),
            branch_tokens=_OPENING + config.agent.turn_tokens,
            lanes=1,
            temperature=config.eval.temperature,
            top_k=config.eval.top_k,
            top_p=config.eval.top_p,
        )
        writer = TurnWriter(policy, config.played_at_once, config.agent.turn_tokens, config.seed)
        episodes = replay(self._records, confidences, writer)
        overall = replay_metrics(episodes) | self._preference(variables)
        return overall, metrics_by_error_type(episodes)

    def _preference(self, variables: dict[str, Any]) -> dict[str, float]:
        """Is the correction, after its reflection, likelier than the failed action was?"""
        data = self._context.config.data
        groups = rot_groups(self._records, self._reader, data, self._source)
        margins = []
        rl = stage_section(self._context.config, "rl")
        scored = reference_logprobs(
            self._context, variables, groups, at_once=rl.groups_per_batch, microbatches=rl.microbatches
        )
        for group, logprobs in zip(groups, scored, strict=True):
            totals = {}
            for branch, values in zip(group.branches, logprobs, strict=True):
                action = branch.segments == Segment.ACTION
                totals[branch.label] = float(np.sum(values[: len(action)][action]))
            margins.append(totals["reflect_correct"] - totals["failed"])
        return {
            "correction_preferred": float(np.mean(np.array(margins) > 0)),
            "correction_margin": float(np.mean(margins)),
        }
