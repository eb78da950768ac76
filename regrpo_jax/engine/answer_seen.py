"""Whether the tools of an episode gave its answer: what no observation holds, a constant at the end would "verify".

An answer is given where an observation holds it, where its parts stand in several observations, or where the code
computes it from what tools returned.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Collection, Iterable, Sequence

from regrpo_jax.engine.perturb.words import word_set
from regrpo_jax.records.actions import FINAL_ANSWER, parse_python
from regrpo_jax.records.syntax import evaluated_literal

_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = word_set(
    "the and are was were has have had this that there with from for not its they them their which who what when where "
    "you your image picture photo answer result total number based shows shown following both each one two first "
    "second third all yes"
)
_ENOUGH = 2 / 3  # of an answer's words


def answer_is_seen(
    values: Iterable[object], observations: Sequence[str], instruction: str, code: Sequence[str], tools: Collection[str]
) -> bool:
    """Whether tools gave the answer.

    Args:
      values: the right ones; one of them will do.
      observations: of the steps that count.
      code: of all steps, in order.
      tools: names of tools.
    """
    seen = "\n".join(observations).casefold()
    texts = [str(value) for value in values]
    if any(_stands_in(text.casefold(), seen) for text in texts) or computed_of_results(code, tools):
        return True
    asked = "\n".join([instruction, *code[:-1]])
    return any(_composed(text, observations, asked) for text in texts)


def _stands_in(text: str, seen: str) -> bool:
    """Whether the text stands there, and its numbers are no parts of longer ones."""
    left, right = r"(?<!\d)(?<!\d[.,])" * text[:1].isdigit(), r"(?!\d)" * text[-1:].isdigit()
    return re.search(left + re.escape(text) + right, seen) is not None


def computed_of_results(code: Sequence[str], tools: Collection[str]) -> bool:
    """Whether what `final_answer` is given depends on what a tool returned."""
    trees = [tree for tree in map(parse_python, code) if tree is not None]
    names: set[str] = set()
    size = -1
    while size < len(names):  # a loop may use a name before the line that gives it its value
        size = len(names)
        for node in (node for tree in trees for node in ast.walk(tree)):
            names.update(_bound_by(node, names, tools))
    return any(
        _depends(argument, names, tools)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == FINAL_ANSWER
        for argument in (*node.args, *(word.value for word in node.keywords))
    )


def _bound_by(node: ast.AST, names: Collection[str], tools: Collection[str]) -> set[str]:
    """Names that get a value here which depends on results."""
    match node:
        case ast.Assign(targets=targets, value=value) if _depends(value, names, tools):
            return {name for target in targets for name in _stored(target)}
        case ast.AugAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            return _stored(target) if _depends(value, names, tools) else set()
        case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
            return _stored(target) if _depends(value, names, tools) else set()
        case ast.AnnAssign(target=target, value=ast.expr() as value) if _depends(value, names, tools):
            return _stored(target)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append" | "extend" | "update"), args=given):
            return {name} if any(_depends(one, names, tools) for one in given) else set()
    return set()


def _stored(target: ast.AST) -> set[str]:
    """Names of a target; of a place in a dict or list, the dict's."""
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}


def _depends(value: ast.AST, names: Collection[str], tools: Collection[str]) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Name) and node.id in names:
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
            )
            if name in tools and name != FINAL_ANSWER:
                return True
    return False


def _composed(answer: str, observations: Sequence[str], asked_for: str) -> bool:
    """Whether the parts of an answer are told: every number, and most of the words, one of them by an observation.

    asked_for: the task, and what the agent asked its tools; words of it are no news.
    """
    seen = "\n".join(observations)
    numbers, words = _numbers(answer), _words(answer)
    told, asked = _numbers(seen) | _counts(observations), _numbers(asked_for)
    told |= {number for number in numbers - told - asked if _reckoned(number, observations, told)}
    if not numbers <= told | asked:
        return False
    new_words = words - _words(asked_for)
    if len(words & (_words(seen) | _words(asked_for))) < _ENOUGH * len(words):
        return False
    if not numbers and not words:
        return answer.strip(" .!").casefold() == "yes" and bool(_counts(observations))
    return bool(new_words & _words(seen)) or bool((numbers - asked) & told)


def _reckoned(number: str, observations: Sequence[str], told: Collection[str]) -> bool:
    """Whether a number is one that was told, rounded, or comes of two observations that say a number and no other."""
    value, digits = float(number), len(number.partition(".")[2])
    if digits and any(round(float(one), digits) == value for one in told if "." in one):
        return True
    alone = [float(next(iter(one))) for text in observations if len(one := _numbers(text)) == 1]
    for first, second in itertools.permutations(alone, 2):
        made = [first + second, first - second, first * second]
        made += [first / second, 100 * first / second] if second else []
        if any(round(one, digits) == value for one in made):
            return True
    return False


def _numbers(text: str) -> set[str]:
    """As they are compared: without commas, nor zeros at the end of a fraction."""
    found = (match.replace(",", "") for match in _NUMBER.findall(text))
    return {number.rstrip("0").rstrip(".") if "." in number else number for number in found}


def _words(text: str) -> set[str]:
    return {word for word in map(str.casefold, _WORD.findall(text)) if word not in _COMMON}


def _counts(observations: Sequence[str]) -> set[str]:
    """How many things the lists have that observations are, or have in a line."""
    found = set()
    for text in observations:
        for line in (text, *text.splitlines()):
            try:
                value = evaluated_literal(line[line.find("[") : line.rfind("]") + 1])
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(value, list) and value:
                found.add(str(len(value)))
    return found
