"""The rule-based teacher: a reflection on a failure that was really run, without any network.

Evidence is the clause of the observation that tells most about what to do instead; the plan is read off the two
syntax trees. Where the observation tells nothing, no reflection is written, because a made-up one would teach to
make things up.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

from regrpo_jax.engine.cases import Failure
from regrpo_jax.engine.showing import without_places
from regrpo_jax.engine.wording import evidence_sentence, plan_sentence, short_plan
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.clauses import body_start, clauses, holds_value, values_in
from regrpo_jax.records.differences import Difference, difference
from regrpo_jax.records.reflection import telling_span
from regrpo_jax.records.types import Reflection, Status

STYLES = ("short", "sentences")
_MOST_WORDS = {"short": 14, "sentences": 30}  # of a span
_LONG_SHARE = 0.5  # of the reflections that write down the facts on the way to the fix
_ERROR_NAME = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Warning)\b|\b[A-Z][a-z]+[A-Z]\w*\b")
_MENU = re.compile(r"Tools?: ")  # what the runtime always adds; it tells no failure from another


class AnnotationRefused(Exception):
    """Why no reflection is written on a failure: "rule: sentence"."""


def annotate(failure: Failure, rng: random.Random, *, style: str) -> Reflection:
    """The reflection on a failure, the same for the same failure and state of `rng`.

    style: "short" gives the bare span and a plan of a few words, for policies that learn whole words; "sentences"
    gives both in changing wording. What the near miss's source knows of the repair is used first. Raises
    AnnotationRefused when no words of the observation tell the failure, UserError for another style.
    """
    if style not in STYLES:
        raise UserError(f"the style of reflections is {style!r}; choose one of {', '.join(STYLES)}")
    miss, hint = failure.near_miss, failure.near_miss.hint
    changed = failure_difference(failure)
    long = rng.random() < _LONG_SHARE
    told = "\n".join(filter(None, (without_places(failure.failed.text), failure.seen)))
    if hint is not None and hint.evidence in told:
        span = _known_span(hint.evidence, told, _MOST_WORDS[style])
        facts = hint.facts if long else ()
    elif failure.failed.status == Status.OK and failure.seen:  # nothing but its picture tells that it failed
        span, facts = failure.seen.splitlines()[0], ()
    else:
        span, facts = discriminating_span(failure, changed, _MOST_WORDS[style]), ()
    if style == "sentences":
        evidence = evidence_sentence(miss.error_type, span, rng)
        return Reflection(miss.error_type, evidence, plan_sentence(changed.changes, facts, rng))
    fix = short_plan(changed.changes) if hint is None else hint.fix
    return Reflection(miss.error_type, span, ", ".join((*facts, fix)))


def failure_difference(failure: Failure) -> Difference:
    """How the action that is right differs from the near miss."""
    situation = failure.situation
    return difference(failure.near_miss.code, situation.step.code, frozenset(situation.tools) | {FINAL_ANSWER})


def discriminating_span(failure: Failure, changed: Difference, most_words: int) -> str:
    """The words of the failed observation that best tell it from the repaired one; never its header alone.

    First come clauses that hold a value of the right action, then those with a value of the failed one, then those
    with the name of an error, and of equals the first. Raises AnnotationRefused when none is long enough to tell
    anything.
    """
    text, repaired = without_places(failure.failed.text), set(clauses(failure.repaired.text))
    new, old = changed.new_values, (*changed.old_values, *values_in(failure.near_miss.code))
    known = {*new, *old, *changed.tools}
    found = [clause for clause in clauses(text) if clause not in repaired and not _beside_the_point(clause, known)]
    found.sort(key=lambda clause: _rank(clause, new, old))
    body = text[body_start(text) :].strip()
    for clause in (*found, *([] if _beside_the_point(body, known) else [body])):
        span = _shortened(clause, (*new, *old), most_words)
        if telling_span(span, body):
            return span
    raise AnnotationRefused("no_telling_span: no words of the failed observation tell the failure")


def _rank(clause: str, new: Sequence[str], old: Sequence[str]) -> tuple[bool, bool, bool, bool]:
    """Smaller is better."""
    return (
        _MENU.match(clause) is not None,
        not any(holds_value(clause, value) for value in new),
        not any(holds_value(clause, value) for value in old),
        _ERROR_NAME.search(clause) is None,
    )


def _beside_the_point(clause: str, known: Collection[str]) -> bool:
    """Whether the clause speaks only of names that neither action has: it is of the world, not of the failure."""
    named = values_in(clause)
    about = any(holds_value(clause, value) for value in known) or _ERROR_NAME.search(clause) is not None
    return bool(named) and not about


def _shortened(clause: str, values: Sequence[str], most_words: int) -> str:
    """At most so many words in a row, one of the values among them where the clause has one."""
    words = list(re.finditer(r"\S+", clause))
    if len(words) <= most_words:
        return clause
    places = [at for value in values for at, word in enumerate(words) if holds_value(word.group(), value)]
    first = max(0, min(places[0] - most_words // 2 if places else 0, len(words) - most_words))
    return clause[words[first].start() : words[first + most_words - 1].end()]


def _known_span(evidence: str, observation: str, most_words: int) -> str:
    """The evidence, with the rest of its clause where it is too short to tell anything alone."""
    body = observation[body_start(observation) :]
    around = (_shortened(clause, (evidence,), most_words) for clause in clauses(observation) if evidence in clause)
    for span in (evidence, *around):
        if telling_span(span, body):
            return span
    raise AnnotationRefused("no_telling_span: the known evidence is too short to tell the failure")
