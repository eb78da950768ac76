"""Statuses guessed from recorded text: beginnings and shapes decide, words inside prose never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import Status, classify_observation_text

EMPTY = [
    "",
    " \n",
    "[]",
    "{}",
    "None",
    "null",
    "[] (no objects detected in the 20x20 region)",
    "No object found.",
    "No results found for 'capital of Atlantis'. Try a broader query.",
    "No results found",
    "No results found for the query.",
    "No matching items were found in the table.",
    "No results.",
    "Get empty content from file scan.pdf",
    "Print outputs:\n\nLast output from code snippet is:\nNone",
    "Execution logs:\n[]\nLast output from code snippet:\nNone",
]
TOOL_ERROR = [
    "Error: File not found: a.csv",
    "Error:\nCode execution failed at line 'x' due to:\nThe variable `x` is not defined.",
    "Traceback (most recent call last):\n  File \"a.py\", line 1\nKeyError: 'b'",
    "FileNotFoundError: [Errno 2] No such file or directory: 'a.csv'",
    "requests.exceptions.ConnectionError: refused",
    "ValueError",
    "File not found",
    "File not found: reciept.pdf",
    "The file 'a.csv' does not exist.",
    "HTTP 404",
    "HTTP 404: Not Found",
    "HTTP Error 403: Forbidden",
    "HTTP/1.1 500 Internal Server Error",
    "404 Client Error: Not Found for url",
    "Error converting file: bad zip",
    "Exception: boom",
    "Failed to open image.png",
    "Print outputs:\nError: bad argument\nLast output from code snippet is:\nNone",
]
TIMEOUT = [
    "timed out",
    "Request timed out.",
    "The tool visualizer timed out after 30 seconds",
    "Timeout: 30 s",
    "TimeoutError: too slow",
    "Error: connection timed out",
    'Traceback (most recent call last):\n  File "a.py", line 1\nsubprocess.TimeoutExpired: sleep',
    "HTTP 504 Gateway Timeout",
    "HTTP 408",
]
OK = [
    "an exceptional result",
    "the error: rate was 3%",
    "terror:",
    "Terror: a film of 1978",
    "no exceptions were made",
    "Exceptional: the tower of Pisa",
    "The report mentions a timeout of 30 s and an error: none was serious.",
    "Chapter 3. When the request timed out, the server returned HTTP 404 and a traceback.",
    "The manual says: File not found errors are common.",
    "File not found errors are common on old disks.",
    "HTTP 404 is the code for a page that is gone.",
    "HTTP 200 OK",
    "Error rates fell by half in 2019.",
    "Error analysis of the survey: 3 %",
    "No results found that contradict the theory were published.",
    "No object in the image is red; there are two blue ones.",
    "None of the above",
    "[[40,60,180,220]]",
    "[] is the empty list",
    "Nullable columns: 3",
    "The cropped region appears to show empty pavement; no text is present.",
    "5\nNone",
    "Print outputs:\n5\nLast output from code snippet is:\nNone",
    "0",
    "False",
]


@pytest.mark.parametrize("text", EMPTY)
def test_empty(text: str) -> None:
    assert classify_observation_text(text) is Status.EMPTY


@pytest.mark.parametrize("text", TOOL_ERROR)
def test_tool_error(text: str) -> None:
    assert classify_observation_text(text) is Status.TOOL_ERROR


@pytest.mark.parametrize("text", TIMEOUT)
def test_timeout(text: str) -> None:
    assert classify_observation_text(text) is Status.TIMEOUT


@pytest.mark.parametrize("text", OK)
def test_ok(text: str) -> None:
    assert classify_observation_text(text) is Status.OK


@given(st.sampled_from(TOOL_ERROR + TIMEOUT + EMPTY[2:]))
def test_a_failure_quoted_inside_prose_is_none(text: str) -> None:
    assert classify_observation_text(f"The log of that day reads: {text}") is Status.OK


@given(st.text())
def test_any_text_has_one_of_four_statuses(text: str) -> None:
    assert classify_observation_text(text) in {Status.OK, Status.EMPTY, Status.TOOL_ERROR, Status.TIMEOUT}
