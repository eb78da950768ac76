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
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.group_update.benchmark import make_group
from experiments.throughput.forms import FORMS, OF_TORCH, Timed
from experiments.throughput.matmul_peak import matmul_peak, model_products
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
        seconds, peaks = _measured(timed, model_products(config, arguments.prefix), arguments.repeats)
    _show(timed, seconds, peaks)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--forms", type=lambda text: text.split(","), default=list(FORMS), help=", ".join(FORMS))
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each; the median counts")
    parser.add_argument("--remat", choices=("none", "dots", "full"), default="none")
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
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of the calls by name, and the peaks that were measured between them."""
    for one in timed:
        _seconds(one.call)
    seconds: dict[str, list[float]] = {one.name: [] for one in timed}
    peaks = []
    for _ in range(repeats):
        for one in timed:
            peaks.append(matmul_peak(products))
            seconds[one.name].append(_seconds(one.call))
    return seconds, peaks


def _seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def _show(timed: Sequence[Timed], seconds: dict[str, list[float]], peaks: Sequence[float]) -> None:
    peak = float(np.median(peaks))
    spread = f"{min(peaks) / 1e9:.0f} .. {max(peaks) / 1e9:.0f}"
    print(f"matmul peak: {peak / 1e9:.0f} GFLOP/s (median of {len(peaks)}; {spread})")
    table = Table("", "seconds (all)", "tokens/s", "GFLOP", "GFLOP/s", "of the peak", "hardware")
    for one in timed:
        median = float(np.median(seconds[one.name]))
        hardware = "" if one.hardware_flops is None else f"{one.hardware_flops / median / peak:.0%}"
        table.add_row(
            one.name,
            f"{median:.3g} ({', '.join(f'{value:.3g}' for value in seconds[one.name])})",
            f"{one.tokens / median:,.0f}",
            f"{one.flops / 1e9:,.0f}",
            f"{one.flops / median / 1e9:.1f}",
            f"{one.flops / median / peak:.0%}",
            hardware,
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
