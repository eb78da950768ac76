"""A chat API on this machine, which speaks OpenAI's protocol over real HTTP and fails as it is told to."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
HANGS = 300.0  # seconds that a server which does not answer, or ever slower, holds a client that waits for it


@dataclass
class Script:
    """What the server does. `behaviour(body, number)`: for the number-th request (from 0) of a conversation.

    answer: what the model says where it says something right. formats: those of response_format that are known.
    usage: tokens of each answer, None to tell nothing. unknown: parameters that are refused by name.
    """

    behaviour: Callable[[Body, int], str] = lambda body, number: "answer"
    answer: Callable[[Body], str] = lambda body: right_answer(body)
    formats: tuple[str, ...] = ("json_schema", "json_object", "text")
    usage: tuple[int, int] | None = (100, 20)
    unknown: tuple[str, ...] = ()
    delay: float = 0.0
    dated: Callable[[], str] = lambda: "Thu, 01 Jan 1970 00:00:00 GMT"


@dataclass
class Server:
    """What the tests see of it. seen: bodies in order; authorizations likewise; most: most requests at a time."""

    url: str
    script: Script
    seen: list[Body] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    most: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)


def question(body: Body) -> str:
    """The text of the first user message."""
    content = body["messages"][1]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def conversation(body: Body) -> str:
    """Names the question, whatever was answered to it so far and in whichever format it is asked."""
    return hashlib.sha256(question(body).encode()).hexdigest()


def tagged(body: Body, tag: str) -> str:
    found = re.search(rf"<{tag}>\n(.*)\n</{tag}>", question(body), re.DOTALL)
    assert found is not None, (tag, question(body))
    return found.group(1)


def right_answer(body: Body) -> str:
    """A reflection made of nothing but what the prompt tells."""
    kind = re.search(r"^ErrorType: (\w+)", question(body), re.MULTILINE)
    assert kind is not None
    evidence = f"It says: {' '.join(tagged(body, 'observation').split())[-200:]}"
    return json.dumps({"error_type": kind.group(1), "evidence": evidence, "fix_plan": "Take what it names instead."})


def wrong_schema(body: Body) -> str:
    return json.dumps(json.loads(right_answer(body)) | {"confidence": 0.9})


STATUSES = {"500": 500, "502": 502, "503": 503, "429": 429, "401": 401, "403": 403, "404": 404, "400": 400, "408": 408,
            "520": 520, "529": 529}  # fmt: skip
WAITS = {"429 wait": (429, "7"), "503 wait": (503, "0.5"), "429 long": (429, "86400"), "429 odd": (429, "soon")}
CODES = {
    "400 filter": (400, "content_filter"),
    "400 length": (400, "context_length_exceeded"),
    "429 money": (429, "insufficient_quota"),
}
CONTENTS: dict[str, Callable[[Body], str]] = {
    "wrong schema": wrong_schema,
    "wrong type": lambda body: json.dumps(json.loads(right_answer(body)) | {"error_type": "Bad"}),
    "no quote": lambda body: json.dumps(json.loads(right_answer(body)) | {"evidence": "It went wrong."}),
    "prose": lambda body: "Sure! Here is the reflection you asked for.",
    "half json": lambda body: right_answer(body)[:-9],
    "silence": lambda body: "",
    "odd letters": lambda body: json.dumps(json.loads(right_answer(body)) | {"fix_plan": "half \ud800 of it"}),
}
FINISHES = {"length": "length", "content filter": "content_filter", "abort": "abort", "error": "error"}
BODIES: dict[str, bytes] = {
    "empty choices": b'{"id": "x", "object": "chat.completion", "choices": []}',
    "null choices": b'{"choices": null}',
    "error as success": b'{"error": {"message": "upstream fell over", "code": 502}}',
    "web page": b"<html><body>Bad gateway</body></html>",
    "cut json": b'{"id": "x", "choices": [{"message": {"role": "assis',
    "no text": b"",
    "two choices": b'{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}',
    "not utf8": b'\xff\xfe{"choices": []}',
}
WIRE = ("hang", "drip", "reset", "truncated")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests read what the client logs, not what this does."""

    def do_POST(self) -> None:
        state: Server = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with state.lock:
            key = conversation(body)
            number = state.done[key]
            state.done[key] += 1
            state.seen.append(body)
            state.authorizations.append(self.headers.get("Authorization", ""))
            state.under_way += 1
            state.most = max(state.most, state.under_way)
        try:
            time.sleep(state.script.delay)
            self._behave(state, body, state.script.behaviour(body, number))
        finally:
            with state.lock:
                state.under_way -= 1

    def _behave(self, state: Server, body: Body, behaviour: str) -> None:
        script = state.script
        form = body.get("response_format", {"type": "text"})["type"]
        unknown = [name for name in script.unknown if name in body]
        told = f"it went wrong with {self.headers.get('Authorization')}"  # servers do repeat keys
        if self.path != "/v1/chat/completions":
            self._error(404, "no such path")
        elif unknown:
            self._error(400, f"Unsupported parameter: {unknown[0]!r}.", param=unknown[0])
        elif form not in script.formats:
            self._send(400, json.dumps({"error": f"'response_format.type' must be one of {script.formats}"}).encode())
        elif behaviour in STATUSES:
            self._error(STATUSES[behaviour], told)
        elif behaviour in WAITS:
            self._error(WAITS[behaviour][0], told, wait=WAITS[behaviour][1])
        elif behaviour == "429 date":
            self._error(429, told, wait=script.dated())
        elif behaviour in CODES:
            self._error(CODES[behaviour][0], told, code=CODES[behaviour][1])
        elif behaviour in BODIES:
            self._send(200, BODIES[behaviour])
        elif behaviour in WIRE:
            self._break(state, body, behaviour)
        else:
            self._send(200, self._completion(script, body, behaviour))

    def _completion(self, script: Script, body: Body, behaviour: str) -> bytes:
        content = CONTENTS.get(behaviour, script.answer)(body)
        message: Body = {"role": "assistant", "content": content, "refusal": None}
        if behaviour == "refusal":
            message |= {"content": None, "refusal": "I cannot help with that."}
        elif behaviour == "length":
            message["content"] = content[: len(content) // 2]
        elif behaviour == "key":
            message["content"] = json.dumps({"key": self.headers["Authorization"]})
        choice = {"index": 0, "message": message, "finish_reason": FINISHES.get(behaviour, "stop")}
        completion: Body = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}
        if script.usage is not None:
            asked, answered = script.usage
            completion["usage"] = {"prompt_tokens": asked, "completion_tokens": answered}
        return json.dumps(completion).encode()

    def _error(self, status: int, message: str, wait: str = "", **more: str) -> None:
        error = json.dumps({"error": {"message": message, "type": "test", "param": None, "code": None} | more})
        self._send(status, error.encode(), wait)

    def _send(self, status: int, content: bytes, wait: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if wait:
            self.send_header("Retry-After", wait)
        self.end_headers()
        self.wfile.write(content)

    def _break(self, state: Server, body: Body, behaviour: str) -> None:
        self.close_connection = True
        if behaviour == "hang":
            state.released.wait(HANGS)
            return
        if behaviour == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        content = self._completion(state.script, body, "answer")
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + 10**6))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        end = time.monotonic() + HANGS
        while behaviour == "drip" and not state.released.wait(0.02) and time.monotonic() < end:
            self.wfile.write(b" ")
            self.wfile.flush()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    state: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is what some tests are about."""


@contextmanager
def openai_server(script: Script | None = None) -> Iterator[Server]:
    """The server, while it runs; a fresh port each time."""
    with _HttpServer(("127.0.0.1", 0), _Handler) as http:
        http.state = Server(f"http://127.0.0.1:{http.server_address[1]}/v1", script or Script())
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield http.state
        finally:
            http.state.released.set()
            http.shutdown()
            thread.join()
