"""An engine on loopback that answers a chosen share of its requests oddly, in one of many ways.

It writes raw bytes to its sockets, so that it can break HTTP itself; `chat_server` speaks the protocol as it should be.
What an odd reply would train bears a mark: its words are `MARK`, so that a sample that slipped through can be seen.
"""

from __future__ import annotations

import copy
import email.utils
import json
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Body = dict[str, Any]
Change = Callable[[Body], None]
MARK = " odd odd odd"


def _entry(name: str, value: Any) -> Change:
    """The last token's field has another value."""

    def change(reply: Body) -> None:
        reply["choices"][0]["logprobs"]["content"][-1][name] = value

    return change


def _choice(**changes: Any) -> Change:
    return lambda reply: reply["choices"][0].update(changes)


def _message(**changes: Any) -> Change:
    return lambda reply: reply["choices"][0]["message"].update(changes)


def _second_choice(reply: Body) -> None:
    other = copy.deepcopy(reply["choices"][0])
    other["message"]["content"] += "!"
    reply["choices"].append(other)


def _without(*path: Any) -> Change:
    def change(reply: Body) -> None:
        for key in path[:-1]:
            reply = reply[key]
        del reply[path[-1]]

    return change


# A good body with one thing wrong.
CHANGES: dict[str, Change] = {
    "log-prob null": _entry("logprob", None),
    "log-prob nan": _entry("logprob", float("nan")),
    "log-prob infinite": _entry("logprob", float("-inf")),
    "log-prob above 0": _entry("logprob", 0.7),
    "log-prob minus 9999": _entry("logprob", -9999.0),
    "log-prob a text": _entry("logprob", "-0.5"),
    "log-prob true": _entry("logprob", True),
    "log-prob missing": _without("choices", 0, "logprobs", "content", -1, "logprob"),
    "token a number": _entry("token", 7),
    "token half a character": _entry("token", "\ud800"),
    "bytes of 300": _entry("bytes", [300]),
    "token a null": lambda reply: reply["choices"][0]["logprobs"]["content"].append(None),
    "logprobs a list": _choice(logprobs=[1, 2]),
    "logprobs.content an object": _choice(logprobs={"content": {"a": 1}}),
    "no content": _without("choices", 0, "message", "content"),
    "no message": _without("choices", 0, "message"),
    "no choices": _without("choices"),
    "choices empty": lambda reply: reply.update(choices=[]),
    "choices null": lambda reply: reply.update(choices=None),
    "two choices": _second_choice,
    "choice of another index": _choice(index=3),
    "content a list": _message(content=[{"type": "text", "text": MARK}]),
    "content a number": _message(content=17),
    "content half a character": _message(content=MARK + "\udc80"),
    "content of another role": _message(role="user"),
    "words in tool_calls": _message(content=None, tool_calls=[{"function": {"name": "read"}}]),
    "finish abort": _choice(finish_reason="abort"),
    "finish error": _choice(finish_reason="error"),
    "finish content_filter": _choice(finish_reason="content_filter"),
    "finish null": _choice(finish_reason=None),
    "finish missing": _without("choices", 0, "finish_reason"),
    "finish a number": _choice(finish_reason=1),
    "an error inside": lambda reply: (reply.clear(), reply.update(error={"message": "fell over", "code": 502})),
    # What is not refused, but must not train: other tokens than the words, or another number of them.
    "words of other tokens": _message(content=MARK),
    "a token too few": lambda reply: reply["choices"][0]["logprobs"]["content"].pop(1),
    "a token too many": lambda reply: reply["choices"][0]["logprobs"]["content"].append(
        {"token": "token_id:70", "logprob": -0.1, "bytes": None}
    ),
    "a token out of the vocabulary": _entry("token", "token_id:999999999"),
    "a token of many digits": _entry("token", "token_id:" + "9" * 5000),
    "another count": lambda reply: reply.update(usage={"completion_tokens": 3}),
    "no log-probs": _choice(logprobs=None),
}
# The last of them are turns that count, and whose tokens are not known.
UNSCORED = frozenset(
    {"words of other tokens", "a token too few", "a token too many", "a token out of the vocabulary",
     "a token of many digits", "another count", "no log-probs"}
)  # fmt: skip
STATUSES = {"status 520": 520, "status 500": 500, "status 503": 503, "status 529": 529, "status 429": 429}


def _http(content: bytes, length: int | None = None, *, status: str = "200 OK", more: str = "") -> bytes:
    size = len(content) if length is None else length
    if more or status != "200 OK":
        more += "Connection: close\r\n"  # the handler does; unsaid, another request may be under way on it
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n{more}\r\n".encode() + content


# What is no answer of HTTP, or none with JSON in it: (the good body) -> all bytes that are sent.
WIRE: dict[str, Callable[[bytes], bytes]] = {
    "body cut": lambda good: _http(good[: len(good) // 2], len(good)),
    "JSON cut": lambda good: _http(good[: len(good) // 2]),
    "chunks cut": lambda good: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + good[:40],
    "body empty": lambda good: _http(b""),
    "no body": lambda good: _http(b"", status="204 No Content"),
    "a web page": lambda good: _http(b"<html><body>Bad gateway</body></html>"),
    "JSON of something else": lambda good: _http(b"[1, 2, 3]"),
    "JSON too deep": lambda good: _http(b"[" * 100_000),
    "not UTF-8": lambda good: _http(b'{"choices": [{"message": {"content": "\xff\xfe"}, "finish_reason": "stop"}]}'),
    "bad gzip": lambda good: _http(good, more="Content-Encoding: gzip\r\n"),
    "bad status line": lambda good: b"HTTP/9 what\r\n\r\n" + good,
    "no HTTP": lambda good: b"SSH-2.0-OpenSSH_9.6\r\n",
    "closed": lambda good: b"",
    "header broken": lambda good: b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n" + good,
    "length a word": lambda good: b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + good,
    "sent away": lambda good: _http(b"", status="307 Away", more="Location: /v1/chat/completions\r\n"),
}
WAYS = (*CHANGES, *STATUSES, *WIRE)
HARMLESS = "sent away"  # to where it is answered


@dataclass
class OddEngine:
    """`write(body)`: a whole good reply. `odd(number)`: how the number-th request (from 0) is answered, "" for well.

    told: what the odd replies were. spoilt: what was asked of them. seconds: that a reply takes. wait: Retry-After of a
    429.
    """

    write: Callable[[Body], Body]
    odd: Callable[[int], str]
    seconds: float = 0.0
    wait: str = "0.05"
    asked: int = 0
    told: Counter[str] = field(default_factory=Counter)
    spoilt: list[tuple[str, Body]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, body: Body) -> bytes:
        """All bytes of the reply."""
        with self.lock:
            way = self.odd(self.asked)
            self.asked += 1
            if way:
                self.told[way] += 1
                self.spoilt.append((way, body))
        if self.seconds:
            time.sleep(self.seconds)
        if way in STATUSES:
            more = f"Retry-After: {self.wait}\r\n" if way == "status 429" else ""
            return _http(b'{"error": {"message": "busy"}}', status=f"{STATUSES[way]} No", more=more)
        reply = self.write(body)
        if way in CHANGES:
            CHANGES[way](reply)
        content = json.dumps(reply).encode()
        return WIRE[way](content) if way in WIRE else _http(content)


def in_seconds(seconds: float) -> str:
    """The HTTP date so far away."""
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


class _Handler(socketserver.StreamRequestHandler):
    server: Any
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while (header := self._header()) is not None:
            lengths = [line.partition(":")[2] for line in header if line.lower().startswith("content-length:")]
            body = json.loads(self.rfile.read(int(lengths[0]))) if lengths else {}
            content = self.server.engine.answer(body)
            self.wfile.write(content)
            if not content.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: ") or b"gzip" in content[:90]:
                return  # what follows such bytes would be read as a part of them
            size = int(content.split(b"\r\n")[1].partition(b": ")[2].decode().replace("many", "0"))
            if size != len(content.partition(b"\r\n\r\n")[2]):
                return

    def _header(self) -> list[str] | None:
        lines: list[str] = []
        while (line := self.rfile.readline().decode("latin1").strip()) or not lines:
            if not line:
                return None
            lines.append(line)
        with self.server.engine.lock:
            self.server.engine.headers += [line for line in lines if line.lower().startswith("authorization")]
        return lines


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone."""


@contextmanager
def odd_serving(engine: OddEngine) -> Iterator[str]:
    """The base_url of a server for this engine."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.engine = engine  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()
