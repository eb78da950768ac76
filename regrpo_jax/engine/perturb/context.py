"""InfoInsufficient: asking with too little, and acting on what is not known yet."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator

from regrpo_jax.engine.cases import CleanStep
from regrpo_jax.engine.perturb.rule import Change, Rule, other_value
from regrpo_jax.engine.perturb.scene import Argument, Role, Scene, wanted_role
from regrpo_jax.engine.perturb.words import content_words, word_kind, word_set
from regrpo_jax.records.types import ErrorType

_LOOSE_ENDS = word_set("of in on at for the a an by to from with and or is was are")
_SQL_TEXT = re.compile(r"'([^']+)'")
_FORMULA_NUMBER = re.compile(r"(?<![\w.])\d[\d.]*(?![\w.])")
_MOST_WORDS = 60
_MOST_GENERAL = 4
_SENTENCE = 4  # words: from here on a capital may be that of a sentence


def dropped_context(scene: Scene) -> Iterator[Change]:
    """An optional detail is left out."""
    for use in scene.uses:
        positional = [one for one in use.arguments if not one.keyword]
        for argument in use.arguments:
            last = bool(argument.keyword) or argument is positional[-1]
            if argument.shape.optional and last and wanted_role(argument.shape) != Role.REGION:
                rest = [other.source for other in use.arguments if other is not argument]
                yield Change(scene.with_arguments(use, rest))


def shorter_query(scene: Scene) -> Iterator[Change]:
    """A query without one of its words: those that tell things apart first, else the last one."""
    yield from _shortened(scene, Role.QUERY)


def shorter_name(scene: Scene) -> Iterator[Change]:
    """A name of several words without one of them; things are left alone, as "square" finds red squares too."""
    yield from _shortened(scene, Role.NAME)


def _shortened(scene: Scene, role: Role) -> Iterator[Change]:
    for _, argument in scene.given(role):
        words = argument.value.split()
        for at, word in enumerate(words[:_MOST_WORDS]):
            if re.search(r"[A-Z\d]", word) and (at > 0 or len(words) < _SENTENCE):
                yield from _asking(scene, argument, words[:at] + words[at + 1 :])
        yield from _asking(scene, argument, words[:-1])


def vague_query(scene: Scene) -> Iterator[Change]:
    """A query that says what is wanted in general, and of whom or when no more."""
    for use, argument in scene.given(Role.QUERY):
        words = argument.value.split()[:_MOST_WORDS]
        plain = [
            word for at, word in enumerate(words) if not re.search(r"[A-Z\d]", word) or (at == 0 and len(words) > 3)
        ]
        yield from _asking(scene, argument, plain)
        yield from _asking(scene, argument, plain[:2])
        general = content_words(scene.situation.instruction)
        general = tuple(word for word in general if word not in argument.value and word not in scene.situation.tools)
        about_file = any(one.role == Role.FILE for one in use.arguments)
        for word in () if about_file else general[:_MOST_GENERAL]:
            yield from _asking(scene, argument, [word])


def _asking(scene: Scene, argument: Argument, words: list[str]) -> Iterator[Change]:
    while words and words[-1].lower().strip(".,;:") in _LOOSE_ENDS:
        words = words[:-1]
    if words and words != argument.value.split() and any(word.lower() not in _LOOSE_ENDS for word in words):
        yield other_value(scene, argument, " ".join(words))


def weaker_detail(scene: Scene) -> Iterator[Change]:
    """Another detail of the task than the one that tells things apart."""
    for use, argument in (*scene.given(Role.NAME), *scene.given(Role.NUMBER)):
        if argument.shape.optional and isinstance(argument.value, str):
            given = [one.value for one in use.arguments]
            told = [word for word in scene.told if word not in given and word_kind(word) not in ("file", "phrase")]
            yield from (other_value(scene, argument, other) for other in told)


def skipped_step(scene: Scene) -> Iterator[Change]:
    """A later step is tried at once, with a guess in the place of what this step would have told.

    In a world it is tried as it stands, because it may lack what this step would have brought about.
    """
    situation = scene.situation
    made = scene.source.names_bound()
    for at in range(situation.index + 1, len(situation.steps)):
        later = Scene(dataclasses.replace(situation, index=at))
        if not later.uses or later.answers:
            continue
        if situation.task.in_a_world or made & _names_read(later):
            yield Change(later.source.code, thought=situation.steps[at].thought)
        yield from _guessed(scene, later, situation.steps[at])


def _names_read(scene: Scene) -> frozenset[str]:
    nodes = ast.walk(scene.source.tree) if scene.source.tree is not None else ()
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))


def _guessed(scene: Scene, later: Scene, step: CleanStep) -> Iterator[Change]:
    """The later step with its only value that nobody told replaced by one that is known."""
    told = _known_text(scene)
    unknown = [(use, one) for use in later.uses for one in use.arguments if one.span and not _is_known(one, told)]
    if len(unknown) != 1:
        return
    _, argument = unknown[0]
    for guess in _guesses(scene, argument, told):
        change = other_value(later, argument, guess)
        yield dataclasses.replace(change, thought=step.thought)


def _known_text(scene: Scene) -> str:
    """Everything that was read before this step, and the step itself."""
    situation = scene.situation
    codes = (step.code for step in situation.steps[: situation.index + 1])
    return "\n".join((situation.instruction, *codes, *situation.observations[: situation.index], *scene.files))


def _is_known(argument: Argument, told: str) -> bool:
    if argument.role in (Role.SQL, Role.FORMULA):
        pattern = _SQL_TEXT if argument.role == Role.SQL else _FORMULA_NUMBER
        return all(match.group().strip("'") in told for match in pattern.finditer(argument.value))
    return str(argument.value) in told


def _how_apt(argument: Argument) -> tuple[bool, bool, int]:
    """Orders what a guess may be: the name of a thing first, a file last."""
    return argument.role == Role.FILE, argument.role in (Role.REGION, Role.BOX), len(argument.value)


def _guesses(scene: Scene, argument: Argument, told: str) -> list[str]:
    given = [one for use in scene.uses for one in use.arguments if isinstance(one.value, str)]
    known = [one.value for one in sorted(given, key=_how_apt)][:1]
    if argument.role == Role.FORMULA:
        numbers = [match for match in _FORMULA_NUMBER.finditer(argument.value) if match.group() not in told]
        if "=" in argument.value:  # an equation may have unknowns
            return []
        return [argument.value[: one.start()] + "x" + argument.value[one.end() :] for one in numbers[:1]]
    if argument.role == Role.SQL:
        texts = [match for match in _SQL_TEXT.finditer(argument.value) if match.group(1) not in told]
        return [argument.value[: one.start(1)] + guess + argument.value[one.end(1) :] for one in texts[:1]
                for guess in known if "'" not in guess]  # fmt: skip
    return known


_INSUFFICIENT = ErrorType.INFO_INSUFFICIENT
RULES = (
    Rule("dropped_context", _INSUFFICIENT, dropped_context, asks=True),
    Rule("weaker_detail", _INSUFFICIENT, weaker_detail, asks=True),
    Rule("vague_query", _INSUFFICIENT, vague_query, asks=True),
    Rule("shorter_query", _INSUFFICIENT, shorter_query, asks=True),
    Rule("skipped_step", _INSUFFICIENT, skipped_step),
    Rule("shorter_name", _INSUFFICIENT, shorter_name, rare=True, asks=True),
)
