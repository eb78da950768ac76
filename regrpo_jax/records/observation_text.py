"""A status for observations that were recorded elsewhere, where no tool runtime left a typed one.

Only how the text *begins* and its shape decide. A word such as "error" in the middle of prose never does: the
release's markers fire on "an exceptional result", and a gate built on them reflects on good pages. Our own
tools never use this file; their runtime reports a `Status`.
"""

from __future__ import annotations

import re

from regrpo_jax.records.types import Status

_STEP_HEADER = r"\[OUTPUT OF STEP\s+[0-9]+\]\s*(?:->\s*)?"
# "Tool Response:" and the tag are what chat data sets put over what a tool said to the human's turn.
_TOOL_HEADER = (
    r"(?i:(?:tool|function)[ _](?:response|result|output)s?(?: ?[\[(][^\n\])]*[\])]| (?:from|of|for) [\w.-]+)?\s*:"
    r"|<tool_response>)"
)
_HEADERS = re.compile(rf"(?:(?:{_STEP_HEADER}|Observation:|{_TOOL_HEADER})\s*)+")
_OBSERVATION = re.compile(rf"\s*(?:{_STEP_HEADER}|Observation:|Error:|{_TOOL_HEADER})")
_CLOSING_TAG = re.compile(r"\s*</tool_response>\Z", re.IGNORECASE)

_EMPTY_VALUES = frozenset({"", "[]", "{}", "()", "''", '""', "none", "null"})
# What agent frameworks print around a result: a cell that only prints has a last value "None".
_NO_LAST_VALUE = re.compile(r"(?:\A|\n)last output from code snippet(?: is)?:\s*none\s*\Z", re.IGNORECASE)
_WRAPPER = re.compile(
    r"^(?:print outputs|execution logs|last output from code snippet(?: is)?):[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)

_EMPTY_SHAPES = re.compile(
    r"(?:\[\]|\{\}|none)\s*\([^\n]*\)\.?\Z"
    r"|no (?:\w+ )?(?:objects?|results?|faces?|text|matches|match|items?|documents?|pages?)"
    r" (?:(?:was|were) )?(?:found|detected|returned|recognized|available)"
    r"(?:\Z|[.!:,;]|\s+(?:for|matching|within|in (?:the|this) (?:image|picture|photo|region|file|document"
    r"|page|table|index))\b)[^\n]*\Z"
    r"|no (?:objects?|results?|matches)\.?\Z"
    r"|(?:get|got) empty content from file\b",
    re.IGNORECASE,
)
# Ours say where: "Error at `ocr("a.png")`: ..".
_ERROR_LABEL = re.compile(r"(?:error|exception)(?: at `[^\n]*?`)?\s*:", re.IGNORECASE)
# A Python exception as it is printed, its module path before it: "requests.exceptions.ConnectionError: ...".
_EXCEPTION_NAME = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Timeout|Expired)(?::|\Z)")
_TRACEBACK = re.compile(r"traceback \(most recent call last\)", re.IGNORECASE)
_HTTP_STATUS = re.compile(
    r"http(?:/[0-9.]+)?(?: status)?(?: error)?:?\s*(?P<code>[45][0-9]{2})"
    r"(?:\Z|\s*[:;,.(\n-]|\s+(?:(?:client |server |internal server )?error|not found|forbidden|unauthorized"
    r"|bad request|bad gateway|too many requests|request timeout|gateway timeout|service unavailable)\b)",
    re.IGNORECASE,
)
_HTTP_PHRASE = re.compile(r"(?P<code>[45][0-9]{2}) (?:Client Error|Server Error|Not Found|Forbidden|Unauthorized)\b")
_MISSING_FILE = re.compile(
    r"(?:\[Errno [0-9]+\]|no such file or directory\b|file not found(?:\Z|\s*[:.!]|\s+at\b)"
    r"|(?:the )?file [^\n]{1,300}? (?:not found|does not exist)\.?\s*\Z)",
    re.IGNORECASE,
)
_FAILED_WORK = re.compile(
    r"(?:an )?error (?:occurred|converting|reading|opening|loading|parsing|executing|calling|processing"
    r"|fetching|while|when|in (?:tool|code|calling|generating|executing))\b"
    r"|(?:the )?code execution failed\b"
    r"|failed to (?:open|read|load|download|fetch|parse|connect|decode|execute)\b",
    re.IGNORECASE,
)
_TIMED_OUT = re.compile(
    r"(?:the )?(?:(?:request|tool|call|execution|code|connection|operation|search|query|read|process|command"
    r"|step)(?: [^\s.]+){0,3}? )?(?:has )?timed out\b[^\n]*\Z"
    r"|timeout(?:\Z|\s*[:.!]|\s+(?:after|of|while|reached|exceeded)\b)",
    re.IGNORECASE,
)
_TIMEOUT_WORDS = re.compile(r"\btimed out\b|\A\s*timeout\b|Timeout(?:Error|Expired|Exception)?(?::|\Z)", re.IGNORECASE)
_TIMEOUT_CODES = frozenset({"408", "504"})


def is_observation_text(text: str) -> bool:
    """Whether the environment is speaking: the text opens with a step header, "Observation:", "Error:" or its like."""
    return _OBSERVATION.match(text) is not None


def strip_observation(text: str) -> str:
    """The payload of an observation: step headers, "Observation:" and surrounding white space removed.

    "Error:" stays, because it is what tells a failure from a result. Applying it twice changes nothing more.
    """
    stripped = text.strip()
    headers = _HEADERS.match(stripped)
    if headers is None:
        return stripped
    payload = stripped[headers.end() :]
    return (_CLOSING_TAG.sub("", payload) if "<tool_response>" in headers.group().lower() else payload).strip()


def _payload(text: str) -> str:
    return _WRAPPER.sub("", _NO_LAST_VALUE.sub("", text)).strip()


def _http_code(text: str) -> str | None:
    match = _HTTP_STATUS.match(text) or _HTTP_PHRASE.match(text)
    return match["code"] if match else None


def _telling_line(text: str) -> str:
    """The line that names the error: the last exception line of a traceback, else the first line."""
    if not _TRACEBACK.match(text):
        return text.partition("\n")[0]
    named = [line for line in text.split("\n") if _EXCEPTION_NAME.match(line)]
    return named[-1] if named else ""


def _error_message(text: str) -> str | None:
    """The telling line of a text that opens as an error does; None when it does not."""
    label = _ERROR_LABEL.match(text)
    if label is not None:
        return _telling_line(text[label.end() :].strip())
    if any(shape.match(text) for shape in (_EXCEPTION_NAME, _TRACEBACK, _MISSING_FILE, _FAILED_WORK)):
        return _telling_line(text)
    return None


def classify_observation_text(text: str) -> Status:
    """OK, EMPTY, TOOL_ERROR or TIMEOUT for an observation written down without a status (header stripped).

    Pass the text through `strip_observation` first; with a header still on it everything reads
    as OK.
    """
    payload = _payload(text)
    if payload.lower() in _EMPTY_VALUES or _EMPTY_SHAPES.match(payload):
        return Status.EMPTY
    if _TIMED_OUT.match(payload):
        return Status.TIMEOUT
    code = _http_code(payload)
    if code is not None:
        return Status.TIMEOUT if code in _TIMEOUT_CODES else Status.TOOL_ERROR
    message = _error_message(payload)
    if message is None:
        return Status.OK
    return Status.TIMEOUT if _TIMEOUT_WORDS.search(message) else Status.TOOL_ERROR
