"""What an action *does*: its code, the tool calls in it, and when two actions are the same.

Whether a candidate succeeds offline, whether a failed action really differs from its correction, and which
tool a step used are all read from the syntax tree of the code, so that quotes, spacing and the order of
keywords never decide.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Container, Iterator, Sequence

from regrpo_jax.records.fences import executable, find_code
from regrpo_jax.records.reflection import split_reflection
from regrpo_jax.records.syntax import evaluated_literal, syntax_tree
from regrpo_jax.records.types import ToolCall

FINAL_ANSWER = "final_answer"
_MAT_TOOLS = (
    "ask_search_agent visualizer inspect_file_as_text image_generator objectlocation image_edit "
    "facedetection segmentation search final_answer"
)
_GTA_TOOLS = (
    "OCR CountGivenObject ImageDescription Calculator GoogleSearch RegionAttributeDescription TextToBbox "
    "Plot MathOCR Solver DrawBox TextToImage AddText ImageStylization"
)
_OUR_TOOLS = (
    "ocr text_to_bbox count_objects image_description describe_region crop draw_box add_text "
    "table_query calculator solver plot math_ocr text_to_image image_stylization list_files"
)
KNOWN_TOOLS: frozenset[str] = frozenset(f"{_MAT_TOOLS} {_GTA_TOOLS} {_OUR_TOOLS}".split())

_THOUGHT_LABEL = re.compile(r"\A\s*Thought:\s*")
# The keywords that stand in for the first argument in the release's comparison.
_FIRST_ARGUMENT_KEYWORDS = ("file_path", "question", "query")

Signature = tuple[str, ...]


def extract_code(text: str) -> str:
    """The code of a turn's action, found as `records.fences` says; "" when there is none.

    Blank lines around the code and an indentation common to all of it are dropped.
    """
    return split_action(text)[1]


def split_action(text: str) -> tuple[str, str]:
    """Cut an assistant turn into (thought, code), without its reflection block and its two labels."""
    action = split_reflection(text)[1]
    block = find_code(action)
    before = action if block is None else action[: block.start]
    code = "" if block is None else executable(action[block.code_start : block.code_end])
    return _THOUGHT_LABEL.sub("", before).strip(), code


def parse_python(code: str) -> ast.Module | None:
    """The syntax tree of `code`, or None when it is not Python (or nested too deeply)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in somebody's code is no business of our log
        try:
            return syntax_tree(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _names_bound_by(node: ast.AST) -> tuple[str, ...]:
    match node:
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return (node.id,)
        case ast.alias():
            return ((node.asname or node.name).partition(".")[0],)
        case ast.arg():
            return (node.arg,)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return (node.name,)
        case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
            return (node.name,) if node.name else ()
    return ()


def _bindings(tree: ast.Module) -> Counter[str]:
    """How often the code itself gives a value to a name (assigned, imported, looped, defined, passed)."""
    return Counter(name for node in ast.walk(tree) for name in _names_bound_by(node))


def _call_name(call: ast.Call, bound: Container[str]) -> str:
    """The plain or attribute name of the called thing; "" for a method of something the code itself made.

    `re.search` after `import re`, or `image.crop` of an opened image, share their names with tools but are
    none.
    """
    if isinstance(call.func, ast.Name):
        return call.func.id
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return "" if call.func.value.id in bound else call.func.attr
    return ""


def _position(call: ast.Call) -> tuple[int, int, int, int]:
    return call.lineno, call.col_offset, call.func.end_lineno or 0, call.func.end_col_offset or 0


def _call_nodes(tree: ast.Module, tools: frozenset[str]) -> list[tuple[str, ast.Call]]:
    bound = _bindings(tree)
    named = ((_call_name(node, bound), node) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return sorted(((name, call) for name, call in named if name in tools), key=lambda pair: _position(pair[1]))


def _tool_call(name: str, call: ast.Call) -> ToolCall:
    return ToolCall(
        name=name,
        arguments=tuple(ast.unparse(argument) for argument in call.args),
        keywords=tuple((keyword.arg or "**", ast.unparse(keyword.value)) for keyword in call.keywords),
        line=call.lineno,
    )


def extract_tool_calls(code: str, tools: frozenset[str] | None = None) -> tuple[ToolCall, ...]:
    """The calls of `tools` (KNOWN_TOOLS when None) in `code`, ordered by line and column.

    A call counts by its plain name (`ocr(...)`) or its attribute (`tools.ocr(...)`). () for code that does
    not parse.
    """
    tree = parse_python(code)
    if tree is None:
        return ()
    try:
        return tuple(
            _tool_call(name, call) for name, call in _call_nodes(tree, KNOWN_TOOLS if tools is None else tools)
        )
    except RecursionError:
        return ()


def primary_tool(calls: Sequence[ToolCall]) -> str | None:
    """The last called tool other than final_answer, else final_answer, else None when nothing was called."""
    others = [call.name for call in calls if call.name != FINAL_ANSWER]
    if others:
        return others[-1]
    return FINAL_ANSWER if calls else None


def code_of(action: str) -> str:
    """The code of an action, which may be a whole turn or bare code without a fence."""
    return extract_code(action) or split_reflection(action)[1].strip()


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Names the code binds exactly once, at the top level, to a literal: `path = "a.jpg"`."""
    bindings = _bindings(tree)
    found: dict[str, ast.expr] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if bindings[name] == 1 and _is_literal(value):
                found[name] = value
    return found


class _Normaliser(ast.NodeTransformer):
    """Put constants in the place of their names and keywords in the order of the alphabet."""

    def __init__(self, constants: dict[str, ast.expr]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.constants.get(node.id, node) if isinstance(node.ctx, ast.Load) else node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if all(keyword.arg for keyword in node.keywords):
            node.keywords.sort(key=lambda keyword: keyword.arg or "")
        return node


def _loaded_names(calls: Sequence[tuple[str, ast.Call]]) -> Iterator[str]:
    for _, call in calls:
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            yield from (node.id for node in ast.walk(argument) if isinstance(node, ast.Name))


def _parts_taken(tree: ast.Module) -> dict[int, ast.expr]:
    """For a call by its id, the widest expression that takes a part of its result: `sheet("a")["rent"].strip()`."""
    taken: dict[int, ast.expr] = {}
    for node in ast.walk(tree):  # from the outside in, so that the first to reach a call is the widest
        inner: ast.expr | None = node if isinstance(node, ast.Subscript | ast.Attribute | ast.Call) else None
        while isinstance(inner, ast.Subscript | ast.Attribute | ast.Call):
            if isinstance(inner, ast.Call) and isinstance(node, ast.expr):
                taken.setdefault(id(inner), node)
            inner = inner.func if isinstance(inner, ast.Call) else inner.value
    return taken


def _tree_signature(tree: ast.Module, tools: frozenset[str]) -> Signature:
    bound = _bindings(tree)
    calls = _call_nodes(_Normaliser(_constants(tree)).visit(tree), tools)
    # Arguments that the code computes are only as equal as the computation: then all of the code is compared.
    computed = any(name in bound for name in _loaded_names(calls))
    if computed or not calls:
        return "code", ast.unparse(tree)
    taken = _parts_taken(tree)
    return "calls", *(_call_text(name, call, taken[id(call)]) for name, call in calls)


def _call_text(name: str, call: ast.Call, taken: ast.expr) -> str:
    text = f"{name}({', '.join(map(ast.unparse, (*call.args, *call.keywords)))})"
    return text + ast.unparse(taken).removeprefix(ast.unparse(call))


def action_signature(text: str, tools: frozenset[str] | None = None) -> Signature:
    """What an action does, in a form that is equal for equal actions; `text` is a whole turn or bare code.

    ("calls", ...) lists its calls of `tools` (KNOWN_TOOLS when None) in source order with normalised arguments
    and the part that is taken of what they return; ("code", ...) is the normalised code when it calls no tool or
    computes an argument; ("text", ...) is the stripped code itself when it does not parse.
    """
    code = code_of(text)
    tree = parse_python(code)
    try:
        return (
            ("text", code.strip()) if tree is None else _tree_signature(tree, KNOWN_TOOLS if tools is None else tools)
        )
    except RecursionError:
        return "text", code.strip()


def _release_signature(text: str, tools: frozenset[str] | None) -> tuple[str | None, str | None]:
    """(first tool, its first argument as lowered text), the whole of what the release compares."""
    calls = extract_tool_calls(code_of(text), tools)
    if not calls:
        return None, None
    keywords = dict(calls[0].keywords)
    named = [keywords[key] for key in _FIRST_ARGUMENT_KEYWORDS if key in keywords]
    first = next(iter((*calls[0].arguments, *named)), None)
    if first is None:
        return calls[0].name, None
    try:
        value = str(evaluated_literal(first))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        value = first
    return calls[0].name, value.strip().lower()


def actions_equivalent(first: str, second: str, *, strict: bool = True, tools: frozenset[str] | None = None) -> bool:
    """Whether two actions (whole turns or bare code) do the same.

    strict: the same tool calls with all the same arguments, after normalisation (see `action_signature`).
    Otherwise the rule of the release (regrpo/rl/environment.py): the first tool call's name and first
    argument agree, without regard to case; there, two actions without any tool call are equivalent too.
    tools: the names that count as tools, KNOWN_TOOLS when None.
    """
    if strict:
        return action_signature(first, tools) == action_signature(second, tools)
    return _release_signature(first, tools) == _release_signature(second, tools)
