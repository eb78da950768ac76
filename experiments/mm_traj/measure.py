"""How many trajectories of a file yield a record of the data engine, and what refuses the others.

    python -m experiments.mm_traj.measure FILE [gta_names] [old=new ..]

A trajectory yields when one of its near misses passes execution, annotation and all gates, which is what a slot of the
data stage asks; each step, type of failure and near miss is tried until one does.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from regrpo_jax.engine.annotate import AnnotationRefused, annotate
from regrpo_jax.engine.cases import Situation
from regrpo_jax.engine.execute import Refused, play_clean, play_failure
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.engine.perturb.near_misses import near_misses
from regrpo_jax.engine.trajectory_source import trajectory_source
from regrpo_jax.engine.writing import rot_record
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.records.reasons import rule_of
from regrpo_jax.records.types import ErrorType
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.suite import LOADER, SuiteTools
from regrpo_jax.toolbox.toolset import ToolsetSettings

MOST_OF_A_KIND = 4  # near misses of a type that are tried of a step


def first_record(places: Environment, steps: list[Situation], loader: str, refused: Counter[str]) -> str:
    """The kind of the first record that a trajectory yields; "" for none."""
    for kind in ErrorType:
        for step in steps:
            rng = random.Random(f"{step.source_id}/{step.index}/{kind}")
            for miss in near_misses(step, kind, rng)[:MOST_OF_A_KIND]:
                try:
                    failure = play_failure(places, step, miss)
                    reflection = annotate(failure, rng, style="sentences")
                except (Refused, AnnotationRefused) as refusal:
                    refused[rule_of(str(refusal))] += 1
                    continue
                written = rot_record(failure, reflection, number=0, annotator="rules", loader=loader, seed=0)
                reasons = gate_reasons(written)
                if not reasons:
                    return f"{written['execution']['kind']} {kind}"
                refused.update(rule_of(reason) for reason in reasons)
    return ""


def main(path: Path, options: list[str]) -> None:
    """Print the counts."""
    roots = [option for option in options if "=" in option]
    tools = SuiteTools(LOADER, ToolsetSettings(gta_names="gta_names" in options))
    keywords: dict[str, Any] = {"tools": tools}
    if roots:
        from regrpo_jax.records.path_roots import path_roots

        keywords["roots"] = path_roots(roots)
    source = trajectory_source(path, seed=0, **keywords)
    for note in getattr(source, "notes", ()):
        print(note)
    by_source: dict[str, list[Situation]] = {}
    for one in source.situations:
        by_source.setdefault(one.source_id, []).append(one)
    runnable = {name: steps for name, steps in by_source.items() if steps[0].executable}
    settings = SandboxSettings(workers=1, wall_seconds=30)
    replayed, yields, rejected, none = 0, Counter[str](), Counter[str](), list[str]()
    limits = EpisodeLimits(max_steps=64)
    with Environment.start(settings, source.tools.settings, limits, loader=source.tools.loader) as places:
        for name, steps in runnable.items():
            try:
                play_clean(places, steps[0])
                replayed += 1
            except Refused as refusal:
                rejected[rule_of(str(refusal))] += 1
                none.append(f"{name}: {refusal}")
                continue
            refused = Counter[str]()
            kind = first_record(places, steps, source.tools.loader, refused)
            yields[kind or "nothing"] += 1
            if not kind:
                none.append(f"{name}: {dict(refused)}")
            print(f"{name}: {kind or 'nothing'} {dict(refused)}", flush=True)
    print(f"clean {len(by_source)}, run {len(runnable)}, replayed {replayed} {dict(rejected)}")
    print(f"records of {sum(yields.values()) - yields['nothing']} trajectories: {dict(yields)}")
    print("without a record:", *none, sep="\n  ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
