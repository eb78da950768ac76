"""Where the code of an assistant turn stands: one reader for what is executed, what is labelled and what is recorded.

The action is the fence after the last "Code:"; fences before it are quotes. It is closed by a line that is a bare fence
and stands in no string of the code. Where no "Code:" leads to a fence, the first closed one is the action, one that
says it is Python before one that says nothing.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

_PYTHON = frozenset({"py", "python", "py3", "python3"})
_MARK = r"(?<!`)`{3,}+|(?<!~)~{3,}+"
# A line of its own, however it is decorated (but as a comment is); or whatever stands right before a fence.
_LABEL = rf"^[ \t>-]*(?:##+[ \t]*)?[*_]*(?i:code)[ \t*_]*[:：][ \t*_]*(?=\r?$|{_MARK})|\bCode[ \t]*:(?=\s*(?:{_MARK}))"
_TOKEN = re.compile(rf"(?P<label>{_LABEL})|(?P<mark>{_MARK})(?P<language>[^\n`]*)\n", re.MULTILINE)
# What a fence may stand in without opening or closing anything.
_STRING = (
    r'"""(?:[^\\]|\\.)*?"""|'
    r"'''(?:[^\\]|\\.)*?'''|"
    r'"(?:[^"\\\n]|\\.)*"|'
    r"'(?:[^'\\\n]|\\.)*'|#[^\n]*"
)
_FLAGS = re.DOTALL | re.MULTILINE
_NEXT_ACTION = rf"(?P<action>(?:{_LABEL})\s*(?:{_MARK}))"
_LINE_ENDS = r"(?=[ \t]*(?:<end_\w+>)?[ \t]*\r?$)"  # perhaps with the mark of agents of the smolagents family


@dataclass(frozen=True)
class CodeBlock:
    """The action of a turn; all places are characters of the text that was read.

    start: of "Code:", else of the fence. code_start, code_end: the code without the blank lines around it; an empty
    range at the end of the text when nothing closes the fence. end: after the fence that closes it, the text's end
    without one. labelled: "Code:" leads to it. python: the fence says so. closed: there is a fence that closes it.
    """

    start: int
    code_start: int
    code_end: int
    end: int
    labelled: bool
    python: bool
    closed: bool


def code_blocks(action: str) -> tuple[CodeBlock, ...]:
    """All fences of Python or of no language, in order, those that nothing closes included."""
    return tuple(_blocks(action))


def find_code(action: str) -> CodeBlock | None:
    """The action's code, None when there is no fence of Python or of no language, or none that is closed.

    A block that "Code:" leads to and nothing closes is the action all the same, without code: nothing else runs in its
    place. `action` is a turn without its reflection (see `records.reflection`).
    """
    return chosen(code_blocks(action))


def chosen(blocks: tuple[CodeBlock, ...]) -> CodeBlock | None:
    """Which of a turn's fences is its action."""
    labelled = [block for block in blocks if block.labelled]
    closed = [block for block in blocks if block.closed]
    first = [block for block in closed if block.python] or closed
    return labelled[-1] if labelled else first[0] if first else None


def code_range(action: str) -> tuple[int, int]:
    """Where the characters of an action's code stand; an empty range at its end when it has none."""
    block = find_code(action)
    if block is None or block.code_start == block.code_end:
        return len(action), len(action)
    return block.code_start, block.code_end


def executable(code: str) -> str:
    """The characters of a code's range as they are run: without an indentation that is common to all lines."""
    return textwrap.dedent(code) if code[:1] in (" ", "\t") else code


def _blocks(text: str) -> Iterator[CodeBlock]:
    position, label, label_end = 0, -1, 0
    unclosed: set[str] = set()  # what does not close one fence closes none that comes later
    while token := _TOKEN.search(text, position):
        position = token.end()
        if token["label"] is not None:
            label, label_end = token.end() - len(token["label"].lstrip()), token.end()
            continue
        mark, language = token["mark"], token["language"].strip().lower()
        line = text[text.rfind("\n", 0, token.start()) + 1 : token.start()]
        at_label = label >= 0 and not text[label_end : token.start()].strip()
        if line.strip() and not at_label and language not in _PYTHON:
            position = token.start() + len(mark)  # in the middle of a line only one that names Python opens anything
            continue
        close = None if mark in unclosed else _closing(text, token)
        if close is None:
            unclosed.add(mark)
        elif close["close"] is None:
            continue  # it quotes a whole action, or somebody forgot to close it: what follows decides
        if language in _PYTHON or not language:
            start = token.start() if label < 0 else label
            yield _block(text, start, token.end(), close, labelled=label >= 0, python=bool(language))
            label = -1
        position = position if close is None else close.end()


def _closing(text: str, opening: re.Match[str]) -> re.Match[str] | None:
    """What ends a fence: one that closes it, or another action's beginning; None when nothing does."""
    mark = opening["mark"]
    run = rf"(?<!{mark[0]}){mark[0]}{{{len(mark)},}}+"
    line = rf"(?P<close>^[ \t]*{run}{_LINE_ENDS})"
    behind = rf"(?P<close>{run}{_LINE_ENDS}|^[ \t]*{run}(?=[ \t.,;:]))"
    # A string that nothing ends is no string; and some write the fence behind the last statement, or words behind it.
    for pattern in (
        rf"{line}|{_NEXT_ACTION}|(?P<string>{_STRING})",
        rf"{line}|{_NEXT_ACTION}",
        rf"(?P<string>{_STRING}|[\"'][^\n]*)|{behind}",
    ):
        found = re.compile(pattern, _FLAGS).finditer(text, opening.end())
        end = next((match for match in found if match.lastgroup != "string"), None)
        if end is not None:
            return end
    return None


def _block(text: str, start: int, body: int, close: re.Match[str] | None, *, labelled: bool, python: bool) -> CodeBlock:
    if close is None:
        return CodeBlock(start, len(text), len(text), len(text), labelled, python, closed=False)
    code = text[body : close.start()]
    code_start = body + len(code) - len(code.lstrip("\r\n"))
    code_end = max(code_start, body + len(code.rstrip()))
    return CodeBlock(start, code_start, code_end, close.end(), labelled, python, closed=True)
