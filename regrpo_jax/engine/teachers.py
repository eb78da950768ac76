"""Who writes the reflections and who proposes near misses, as a config says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from regrpo_jax.config.servers import server_of
from regrpo_jax.engine.annotate import annotate
from regrpo_jax.engine.cases import Failure, NearMiss, Situation
from regrpo_jax.records.types import ErrorType, Reflection

if TYPE_CHECKING:
    from regrpo_jax.engine.teacher.teacher import Teacher

RULES, TEACHER = "rules", "teacher"


@dataclass(frozen=True)
class Teachers:
    """name: of the annotator, as records carry it. propose: None where only rules propose. threads: how many records
    may wait for the teacher at the same time."""

    name: str
    annotate: Callable[[Failure, random.Random], Reflection]
    propose: Callable[[Situation, ErrorType], Sequence[NearMiss]] | None
    threads: int


@contextmanager
def teaching(config: ConfigDict, workdir: Path, *, style: str) -> Iterator[Teachers]:
    """The teachers of a run; style: of the rules' reflections. UserError, TeacherStopped when one cannot be asked."""

    def by_rules(failure: Failure, rng: random.Random) -> Reflection:
        return annotate(failure, rng, style=style)

    asked = config.engine.teacher
    if not asked:
        yield Teachers(RULES, by_rules, None, threads=1)
        return
    with closing(_teacher(config, workdir)) as teacher, _told(teacher):

        def by_teacher(failure: Failure, rng: random.Random) -> Reflection:
            return teacher.annotate(failure)

        writes = "reflections" in asked
        yield Teachers(
            f"{TEACHER}:{teacher.settings.model}" if writes else RULES,
            by_teacher if writes else by_rules,
            teacher.propose if "near_misses" in asked else None,
            threads=config.requests.at_once,
        )


@contextmanager
def _told(teacher: Teacher) -> Iterator[None]:
    """Says at the end, however it comes, what has been asked of the teacher."""
    try:
        yield
    finally:
        spent = teacher.spent()
        print(f"teacher: {spent.requests} requests, {spent.dollars:.4f} dollars so far", flush=True)


def _teacher(config: ConfigDict, workdir: Path) -> Teacher:
    from regrpo_jax.engine.teacher.limits import TeacherSettings
    from regrpo_jax.engine.teacher.teacher import Teacher

    chosen, requests = config.teacher, config.requests
    url, model, key_variable = server_of(chosen.server)
    input_price, output_price = chosen.prices
    settings = TeacherSettings(
        base_url=url,
        model=model,
        key_variable=key_variable,
        cache=workdir / "teacher",
        timeout=requests.timeout,
        retries=requests.retries,
        requests_per_minute=chosen.requests_per_minute,
        max_concurrency=requests.at_once,
        most_requests=chosen.most_requests,
        most_dollars=chosen.most_dollars,
        dollars_per_million_input_tokens=input_price,
        dollars_per_million_output_tokens=output_price,
        max_tokens=chosen.max_tokens,
        seed=config.seed,
        images=chosen.images,
    )
    return Teacher(settings)
