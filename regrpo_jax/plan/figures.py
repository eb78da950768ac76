"""What a program needs of each device, and how long it takes at least."""

import dataclasses
import re
import time
from collections import Counter, defaultdict
from typing import Any

import jax

from regrpo_jax.plan.chips import Chip
from regrpo_jax.plan.compiled_text import exchanges
from regrpo_jax.plan.devices import Target
from regrpo_jax.plan.programs import Program

UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of one device, in bytes, operations and seconds of one run of a program.

    Attributes:
      name: of the program.
      weights, optimizer, batch: its arguments; of a play program batch is its caches or prompts.
      beside: what lies there meanwhile.
      temporaries: what the compiler asks for besides; None where it gave up before it could say.
      needed: all of them, or what the compiler says that it would take.
      exchanged: kind of exchange -> bytes sent.
      exchange_counts: kind -> how often one runs.
      flops: what the hardware computes, recomputation included.
      model_flops: without it.
      compile_seconds: that compiling took here.
      failure: what the compiler said, "" where it compiled.
    """

    name: str
    weights: float
    optimizer: float
    batch: float
    beside: float
    temporaries: float | None
    needed: float
    exchanged: dict[str, float]
    exchange_counts: dict[str, int]
    flops: float
    model_flops: float
    compile_seconds: float
    failure: str = ""

    def fits(self, chip: Chip) -> bool:
        """Whether the memory of a device holds it."""
        return not self.failure and self.needed <= chip.memory

    def seconds(self, chip: Chip) -> dict[str, float]:
        """What bounds it -> seconds that it takes at the least, each as if the others cost nothing.

        Memory counts what is read once: weights, optimizer state, and batch or caches.
        """
        return {
            "compute": self.flops / chip.flops,
            "memory": (self.weights + self.optimizer + self.batch) / chip.memory_bandwidth,
            "network": sum(self.exchanged.values()) / chip.link_bandwidth,
        }


def figures(program: Program, target: Target, devices: int) -> Figures:
    """Compiles a program and reads what it needs."""
    began = time.monotonic()
    held = (program.weights, program.optimizer, program.batch, program.beside)
    flops, model_flops = (program.model_flops + program.extra_flops) / devices, program.model_flops / devices
    try:
        compiled = program.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed = _told_need(str(error), sum(held[:3])) + program.beside
        words, took = str(error).strip().splitlines()[0][:300], time.monotonic() - began
        return Figures(program.name, *held, None, needed, {}, {}, flops, model_flops, took, words)
    sent: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for one in exchanges(compiled.as_text() or ""):
        sent[one.kind] += one.bytes * one.times
        counts[one.kind] += one.times
    temporaries, kept = _memory(compiled)
    return Figures(
        program.name,
        *held,
        temporaries,
        kept + program.beside,
        dict(sent),
        dict(counts),
        flops,
        model_flops,
        compile_seconds=time.monotonic() - began,
    )


def _memory(compiled: Any) -> tuple[float, float]:
    """(temporaries, all that the program holds of a device)."""
    memory = compiled.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + max(new, 0)
    return float(temporaries), float(memory.argument_size_in_bytes + temporaries + memory.generated_code_size_in_bytes)


def _told_need(words: str, held: float) -> float:
    """From "Used 17.90G of 15.75G hbm", or "HLO temporaries (165.43G)" beside what is held; what is held without."""
    if used := re.search(r"[Uu]sed ([\d.]+)([KMGT]) of", words):
        return float(used[1]) * UNITS[used[2]]
    if temporaries := re.search(r"temporaries \(([\d.]+)([KMGT])\)", words):
        return held + float(temporaries[1]) * UNITS[temporaries[2]]
    return held
