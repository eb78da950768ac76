"""An update, prefill and decode: tokens a second, and the share of what matrix products reach in the same run.

    python -m experiments.throughput.benchmark                                  # all forms, a small policy
    python -m experiments.throughput.benchmark --shape=qwen2.5-0.5b --forms=ours --repeats=2 --remat=dots

One contrastive group: a prefix of 1,000 tokens, five branches of 80, all scored; float32, LoRA of rank 8 on attention
projections. Every form has the same weights and the same adapter, and tells its first loss before anything is timed.
Calls are timed in turns, a measurement of the peak beside each; compilation is excluded. Medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.group_update.benchmark import make_group
from experiments.throughput.forms import FORMS, OF_TORCH, Timed
from experiments.throughput.matmul_peak import Spent, matmul_peak, model_products, spent
from experiments.throughput.ours import Policy
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import policy_functions

SMALL = PolicyConfig(
    vocab_size=151_936,
    hidden_size=256,
    intermediate_size=688,
    num_layers=4,
    num_heads=4,
    num_key_value_heads=2,
    head_dim=64,
)
SHAPES = {
    "small": SMALL,
    "qwen2.5-0.5b": dataclasses.replace(
        SMALL, hidden_size=896, intermediate_size=4864, num_layers=24, num_heads=14, num_key_value_heads=2
    ),
}


def main() -> None:
    """Prints what was timed as a table."""
    arguments = _arguments()
    config = dataclasses.replace(SHAPES[arguments.shape], remat=arguments.remat)
    batch = make_group(np.random.default_rng(0), arguments.prefix, arguments.branch, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        policy = _policy(config, Path(folder), shared=bool(OF_TORCH.intersection(arguments.forms)))
        timed = [one for form in arguments.forms for one in FORMS[form](policy, batch, Path(folder))]
        timed = [one for one in timed if arguments.only in one.name]
        seconds, peaks = _measured(timed, model_products(config, arguments.prefix), arguments.repeats)
    _show(timed, seconds, peaks)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--forms", type=lambda text: text.split(","), default=list(FORMS), help=", ".join(FORMS))
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each; the median counts")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
    parser.add_argument("--only", default="", help="time what has this in its name, such as update")
    parser.add_argument("--prefix", type=int, default=1000)
    parser.add_argument("--branch", type=int, default=80)
    arguments = parser.parse_args()
    if unknown := set(arguments.forms) - set(FORMS):
        parser.error(f"no form is called {', '.join(sorted(unknown))}; there are {', '.join(FORMS)}")
    return arguments


def _policy(config: PolicyConfig, folder: Path, *, shared: bool) -> Policy:
    """Random weights and an adapter away from zero; shared: both are written to `folder` too, for torch."""
    functions = policy_functions(config)
    if shared:
        from experiments.throughput.theirs import random_model
        from regrpo_jax.models.huggingface import load_policy

        random_model(config).save_pretrained(folder / "model")
        loaded, params = load_policy(folder / "model", dtype="float32", param_dtype="float32", remat=config.remat)
        functions = policy_functions(loaded)
    else:
        params = jax.jit(functions.init)(jax.random.key(0))["params"]
    adapter = init_adapter(jax.random.key(1), params, AdapterSettings(rank=8))
    policy = Policy(functions, {"lora": jax.tree.map(lambda x: x + 0.01, adapter)}, {"params": params})
    if shared:
        from regrpo_jax.models.peft import export_adapter

        export_adapter(folder / "adapter", policy.variables, functions.config, base_model=str(folder / "model"))
    return policy


def _measured(
    timed: Sequence[Timed], products: Sequence[tuple[int, int, int]], repeats: int
) -> tuple[dict[str, list[Spent]], list[Spent]]:
    """What each call took, by name, and the peaks that were measured between them."""
    for one in timed:
        result = jax.block_until_ready(one.call())
        if one.is_update:
            print(f"{one.name}: first loss {float(result):.5f}", flush=True)
    seconds: dict[str, list[Spent]] = {one.name: [] for one in timed}
    peaks = []
    for _ in range(repeats):
        for one in timed:
            peaks.append(matmul_peak(products))
            seconds[one.name].append(spent(one.call))
            print(f"{one.name}: {seconds[one.name][-1]}, beside it {1e-9 / peaks[-1].wall:.0f} GFLOP/s", flush=True)
    return seconds, peaks


def _show(timed: Sequence[Timed], seconds: dict[str, list[Spent]], peaks: Sequence[Spent]) -> None:
    """Medians; the last column has the operations of processor seconds over those of the peak's."""
    peak = _median(peaks)
    print(f"matmul peak: {1e-9 / peak.wall:.0f} GFLOP/s on the clock, {1e-9 / peak.processors:.0f} a processor second")
    table = Table("", "seconds", "tokens/s", "GFLOP", "GFLOP/s", "of the peak", "hardware", "of a processor")
    for one in timed:
        median = _median(seconds[one.name])
        visited = one.flops if one.hardware_flops is None else one.hardware_flops
        table.add_row(
            one.name,
            f"{median.wall:.3g}",
            f"{one.tokens / median.wall:,.0f}",
            f"{one.flops / 1e9:,.0f}",
            f"{one.flops / median.wall / 1e9:.1f}",
            f"{one.flops * peak.wall / median.wall:.0%}",
            f"{visited * peak.wall / median.wall:.0%}",
            f"{visited * peak.processors / median.processors:.0%}",
        )
    Console(width=140).print(table)


def _median(values: Sequence[Spent]) -> Spent:
    return Spent(*(float(np.median([getattr(one, name) for one in values])) for name in ("wall", "processors")))


if __name__ == "__main__":
    main()
