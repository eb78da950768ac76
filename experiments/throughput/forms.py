"""The forms of an update that are compared: what each calls, and how many operations its arithmetic asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.group_update.benchmark import BRANCHES, naive_update
from experiments.throughput import ours
from experiments.throughput.ours import Policy
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.models.flops import Trained, Work, branch, forward_flops, recomputed_flops, sequence, training_flops

FROZEN = Trained(weights=False)


@dataclasses.dataclass(frozen=True)
class Timed:
    """A call and what it does.

    Attributes:
      tokens: of the group, or drawn: the same for all forms.
      flops: that the arithmetic of the form asks for.
      hardware_flops: with what is computed again, and the pairs that masks remove; None where nobody counted.
      is_update: the call returns a loss.
    """

    name: str
    call: Callable[[], Any]
    tokens: int
    flops: int
    hardware_flops: int | None = None
    is_update: bool = False


def our_forms(policy: Policy, batch: GroupBatch, folder: Path) -> list[Timed]:
    """The update of the stage `rl`, its reference pass, prefill and decode."""
    config, trained, (prefix, length) = policy.functions.config, policy.trained, _lengths(batch)
    work, visited = ours.group_work(prefix, length), ours.group_work(prefix, length, padded=True)
    forward, of_program = forward_flops(config, work, trained), forward_flops(config, visited, trained)
    again = recomputed_flops(config, visited, trained)
    reference = ours.reference_pass(policy, batch)
    batch = dataclasses.replace(batch, reference_logprobs=np.asarray(reference()))
    update = ours.update(policy, batch)
    prefill, decode = ours.prefill_and_decode(policy, batch, length)
    pieces = ours.parts(policy, batch)
    return [
        Timed("ours, update", update, work.tokens, training_flops(forward, trained),
              training_flops(of_program, trained) + again, is_update=True),
        Timed("ours, reference pass", reference, work.tokens, forward_flops(config, work, FROZEN).total,
              forward_flops(config, visited, FROZEN).total),
        Timed("ours, prefill", prefill, prefix, forward_flops(config, sequence(prefix - 1), trained).total),
        Timed("ours, prefill and decode", decode, BRANCHES * length, _decoding_flops(policy, prefix, length)),
        *(Timed(f"ours, forward of the {name}", call, work.tokens, flops.total)
          for name, (call, flops) in pieces.items()),
    ]  # fmt: skip


def naive_form(policy: Policy, batch: GroupBatch, folder: Path) -> list[Timed]:
    """Five full sequences and full-vocabulary log-probs in jax, reference included, without an optimizer."""
    update, advantages = naive_update(policy.functions), jnp.asarray(ours.advantages_of(batch))

    def call() -> jax.Array:
        return update(policy.trainable, policy.frozen, policy.frozen, batch, advantages)[0]

    return [_full_sequences("naive, update with reference", call, policy, batch, scored_all=True)]


def authors_form(policy: Policy, batch: GroupBatch, folder: Path) -> list[Timed]:
    """The arithmetic of the authors' minimal trainer, in torch."""
    from experiments.throughput import theirs

    group = theirs.TorchGroup.of(batch, ours.advantages_of(batch))
    trained, frozen = theirs.with_adapter(folder / "model", folder / "adapter"), theirs.frozen(folder / "model")
    call = theirs.authors_update(trained, frozen, group)
    return [_full_sequences("authors' arithmetic, update with reference", call, policy, batch, scored_all=True)]


def transformers_form(policy: Policy, batch: GroupBatch, folder: Path) -> list[Timed]:
    """`generate` of transformers on as many copies of the prompt as there are branches."""
    from experiments.throughput import theirs

    prefix, length = _lengths(batch)
    prompt = np.concatenate([batch.prefix.tokens, batch.branches.tokens[:, 0, :1]], axis=1)
    model = theirs.with_adapter(folder / "model", folder / "adapter").eval()
    prefill, decode = theirs.transformers_decoding(model, prompt, length)
    config, trained = policy.functions.config, policy.trained
    copies = sum([sequence(prefix, scored=1)] * BRANCHES, Work())
    return [
        Timed("transformers, prefill", prefill, prefix, forward_flops(config, copies, trained).total),
        Timed("transformers, prefill and decode", decode, BRANCHES * length,
              _decoding_flops(policy, prefix, length, copies=BRANCHES)),
    ]  # fmt: skip


def trl_form(policy: Policy, batch: GroupBatch, folder: Path) -> list[Timed]:
    """TRL's GRPO step; nothing where it is not installed."""
    from experiments.throughput import theirs

    group = theirs.TorchGroup.of(batch, ours.advantages_of(batch))
    try:
        call = theirs.trl_update(theirs.with_adapter(folder / "model", folder / "adapter"), group, folder)
    except ImportError as error:
        print(f"trl is left out: {error}", flush=True)
        return []
    return [_full_sequences("TRL, update with reference (a loss of its own)", call, policy, batch, scored_all=False)]


FORMS: Mapping[str, Callable[[Policy, GroupBatch, Path], list[Timed]]] = {
    "ours": our_forms,
    "naive": naive_form,
    "authors": authors_form,
    "transformers": transformers_form,
    "trl": trl_form,
}
OF_TORCH = {"authors", "transformers", "trl"}


def _lengths(batch: GroupBatch) -> tuple[int, int]:
    """Tokens of the prefix, the one that leads the branches included, and of a branch."""
    return batch.prefix.tokens.shape[1] + 1, batch.targets.shape[-1]


def _full_sequences(
    name: str, call: Callable[[], Any], policy: Policy, batch: GroupBatch, *, scored_all: bool
) -> Timed:
    config, trained, (prefix, length) = policy.functions.config, policy.trained, _lengths(batch)
    scored = prefix + length - 1 if scored_all else length
    work = sum([sequence(prefix + length, scored=scored)] * BRANCHES, Work())
    flops = training_flops(forward_flops(config, work, trained), trained) + forward_flops(config, work, FROZEN).total
    return Timed(name, call, ours.group_work(prefix, length).tokens, flops, is_update=True)


def _decoding_flops(policy: Policy, prefix: int, new: int, *, copies: int = 1) -> int:
    work = sum([sequence(prefix)] * copies, Work())
    work += sum([branch(new, prefix=prefix, scored=new)] * BRANCHES, Work())
    return forward_flops(policy.functions.config, work, policy.trained).total
