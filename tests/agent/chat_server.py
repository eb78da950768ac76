"""A small HTTP server on loopback that speaks the chat completions protocol, as engines do it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from regrpo_jax.data.chat import ChatRenderer

PLAIN_FIELDS = {"model", "messages", "max_tokens", "temperature", "top_p", "logprobs", "seed"}


@dataclass
class Engine:
    """What the server does. script: (messages, opening) -> what the model says after the opening.

    shows: "ids" as vLLM, "bytes" as OpenAI (without the end of the turn), "nothing" for no log-probs.
    strict: refuses fields that OpenAI's API does not have, as `transformers serve` does.
    failures: HTTP statuses of the next replies, before anything is served.
    """

    renderer: ChatRenderer
    script: Callable[[list[dict[str, Any]], str], str]
    shows: str = "ids"
    strict: bool = False
    failures: list[int] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    adapters: dict[str, str] = field(default_factory=dict)
    hot_reload: bool = True
    most_at_once: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        opening = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        assert bool(opening) == body.get("continue_final_message", False)
        tokenizer = self.renderer.tokenizer
        said = list(tokenizer(self.script(messages, opening), add_special_tokens=False)["input_ids"])
        tokens = [*said, self.renderer.end_of_turn_id][: body["max_tokens"]]
        stopped = tokens[-1] == self.renderer.end_of_turn_id
        shown = tokens if self.shows == "ids" or not stopped else tokens[:-1]
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": tokenizer.decode(tokens[:-1] if stopped else tokens)},
            "finish_reason": "stop" if stopped else "length",
        }
        if self.shows != "nothing" and body["logprobs"]:
            choice["logprobs"] = {"content": [self._entry(token) for token in shown]}
        return {"choices": [choice]}

    def _entry(self, token: int) -> dict[str, Any]:
        logprob = -0.01 * (token % 50)
        if self.shows == "ids":
            return {"token": f"token_id:{token}", "logprob": logprob, "bytes": None}
        text = self.renderer.tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("lora_adapter"):
            return self._change_adapter(path, body)
        with self.lock:
            self.asked.append(body)
            if self.failures:
                return self.failures.pop(0), {"error": "try again"}
        if path != "/v1/chat/completions":
            return 404, {"error": path}
        unknown = set(body) - PLAIN_FIELDS
        if self.strict and unknown:
            return 422, {"detail": f"Unexpected fields in the request: {unknown}"}
        return 200, self.complete(body)

    def _change_adapter(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if not self.hot_reload:
            return 404, {"detail": "Not Found"}
        name = body["lora_name"]
        loads = path == "/v1/load_lora_adapter"
        if loads == (name in self.adapters):  # as vLLM refuses both
            return (400 if loads else 404), {"error": f"{name} has already been loaded" if loads else f"no {name}"}
        if loads:
            self.adapters[name] = body["lora_path"]
        else:
            del self.adapters[name]
        return 200, "Success"


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """The base_url of a server for this engine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with engine.lock:
                engine.now += 1
                engine.most_at_once = max(engine.most_at_once, engine.now)
                engine.headers.append(dict(self.headers))
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = engine.answer(self.path, body)
            content = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
            with engine.lock:
                engine.now -= 1
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *unused: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
