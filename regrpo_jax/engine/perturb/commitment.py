"""NonCommit: the answer is at hand and not given, or two answers are given in the place of one."""

from __future__ import annotations

from collections.abc import Iterator

from regrpo_jax.engine.perturb.rule import Change, Rule, other_value
from regrpo_jax.engine.perturb.scene import Role, Scene
from regrpo_jax.engine.perturb.source import Span, literal, rendered
from regrpo_jax.engine.perturb.words import word_kind
from regrpo_jax.records.syntax import syntax_of_expression
from regrpo_jax.records.types import ErrorType

_MOST_OTHERS = 3


def missing_final_answer(scene: Scene) -> Iterator[Change]:
    """The answer is printed, left as an expression or put into a variable, and final_answer is not called."""
    for span, answer in _answers(scene):
        yield Change(scene.source.replaced(span, answer))
        yield Change(scene.source.replaced(span, f"print({answer})"))
        yield Change(scene.source.replaced(span, f"answer = {answer}"))


def undecided_answer(scene: Scene) -> Iterator[Change]:
    """The answer and another value of its kind are both named, and neither is committed to."""
    for span, answer in _answers(scene):
        tree = syntax_of_expression(answer) if answer.strip() else None
        value = literal(tree.body) if tree is not None else None
        if isinstance(value, str | int | float):
            for other in _others(scene, str(value)):
                both = rendered(f"{value} or {other}", answer)
                yield Change(scene.source.replaced(span, both))
                yield Change(scene.source.replaced(span, f"print({both})"))


def _answers(scene: Scene) -> Iterator[tuple[Span, str]]:
    """The calls of final_answer that are the only one of the step, and the source of what they give."""
    if len(scene.answers) != 1:
        return
    call = scene.answers[0]
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    span, inner = scene.source.span(call), scene.source.span(given[0]) if len(given) == 1 else None
    if span is not None and inner is not None:
        yield span, scene.source.text(inner)


def _others(scene: Scene, value: str) -> list[str]:
    kind = word_kind(value)
    others = [word for word in scene.told if word_kind(word) == kind and word != value]
    return sorted(others, key=lambda word: abs(len(word) - len(value)))[:_MOST_OTHERS]


def undecided(scene: Scene) -> Iterator[Change]:
    """A tool that wants one value is handed two, with "or" between."""
    for role in (Role.NUMBER, Role.NAME):
        for _, argument in scene.given(role):
            if isinstance(argument.value, str) and not argument.shape.optional:
                for other in _others(scene, argument.value):
                    yield other_value(scene, argument, f"{argument.value} or {other}")


def restated_plan(scene: Scene) -> Iterator[Change]:
    """The step says what is to be done and does nothing."""
    thought = " ".join(scene.situation.step.thought.split())
    if thought and scene.source.code.strip():
        yield Change(f"print({rendered(thought)})")
        yield Change(rendered(thought))
        yield Change(f"plan = {rendered(thought)}")


RULES = (
    Rule("missing_final_answer", ErrorType.NON_COMMIT, missing_final_answer),
    Rule("undecided_answer", ErrorType.NON_COMMIT, undecided_answer),
    Rule("restated_plan", ErrorType.NON_COMMIT, restated_plan),
    Rule("undecided", ErrorType.NON_COMMIT, undecided, rare=True),
)
