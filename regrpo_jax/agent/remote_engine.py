"""Requests to an OpenAI-compatible engine (vLLM, SGLang, `transformers serve`): repeated while there is hope.

Nothing but the standard library is needed. Source: the chat completions API as OpenAI and vLLM document it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regrpo_jax.errors import UserError

_WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_MOST_REPLY = 2**26  # bytes
_LONGEST_WAIT = 60.0  # seconds between two tries


class EngineError(Exception):
    """A request that brought no reply. status: of HTTP, 0 when there was none."""

    def __init__(self, words: str, status: int = 0) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class EngineSettings:
    """base_url: with its version, "http://localhost:8000/v1". model: its name there. key_variable: environment
    variable that holds the key, "" for none. timeout: seconds of a request. retries: after one that failed for a
    while. concurrency: requests at the same time. extended: the engine takes what vLLM and SGLang add to the API, so
    that it goes on with an assistant turn that was begun and names tokens by their ids; without (OpenAI, and
    `transformers serve`, which refuses fields that it does not know) no turn can be made to open with given words.
    """

    base_url: str
    model: str
    key_variable: str = ""
    temperature: float = 1.0
    top_p: float = 1.0
    timeout: float = 120.0
    retries: int = 4
    first_wait: float = 1.0
    concurrency: int = 16
    extended: bool = True

    def __post_init__(self) -> None:
        """UserError for an address or a number that makes no sense, or a key that is not there."""
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"the engine's base_url is {self.base_url!r}; it must start with http:// or https://")
        if self.timeout <= 0 or self.concurrency < 1 or self.retries < 0:
            raise UserError("the engine's timeout and concurrency must be above 0, retries at least 0")
        if self.key_variable and not os.environ.get(self.key_variable):
            raise UserError(f"the engine's key is not in the environment variable {self.key_variable}; set it")


def post(settings: EngineSettings, route: str, body: Mapping[str, Any]) -> Any:
    """The reply's JSON (None for a reply without any) of `base_url` + `route`, tried again while there is hope.

    Raises:
      EngineError: what the last try brought.
    """
    for attempt in range(settings.retries + 1):
        try:
            return _post_once(settings, route, body)
        except EngineError as error:
            hopeful = error.status == 0 or error.status in _WORTH_ANOTHER_TRY
            if not hopeful or attempt == settings.retries:
                raise
            # Spread out, so that many conversations do not come back at the same moment.
            time.sleep(min(_LONGEST_WAIT, settings.first_wait * 2**attempt) * random.uniform(0.5, 1.0))
    raise AssertionError("not reached")


def _post_once(settings: EngineSettings, route: str, body: Mapping[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    if settings.key_variable:
        headers["Authorization"] = f"Bearer {os.environ[settings.key_variable]}"
    address = settings.base_url.rstrip("/") + route
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout) as reply:
            content = reply.read(_MOST_REPLY)
    except urllib.error.HTTPError as error:
        words = error.read(2000).decode("utf-8", "replace")
        raise EngineError(f"{address} answered {error.code}: {words[:300]}", error.code) from error
    except (OSError, ValueError) as error:
        raise EngineError(f"{address} did not answer: {error}") from error
    try:
        return json.loads(content)
    except ValueError:
        return None  # such as vLLM's "Success: LoRA adapter 'x' added successfully."


def exchange_adapter(settings: EngineSettings, old: str, new: str, folder: str) -> None:
    """Have a running engine serve a LoRA adapter (PEFT's format), and give up the one before it.

    One of the same name, which a run that was stopped may have left there, is replaced. vLLM needs
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora; the engine reads the folder, so it must see the same disk.

    Args:
      old: name of the adapter that is served so far, "" for none.
    Raises:
      UserError: the engine has no such route, refuses the adapter, or does not answer.
    """
    for name in {old, new} - {""}:
        with contextlib.suppress(EngineError):  # it may not be there
            post(settings, "/unload_lora_adapter", {"lora_name": name})
    try:
        post(settings, "/load_lora_adapter", {"lora_name": new, "lora_path": folder})
    except EngineError as error:
        if error.status in (404, 405):
            words = "it has no LoRA hot reload (vLLM: --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)"
            raise UserError(f"{settings.base_url}: {words}; restart the engine with the adapter instead") from error
        raise UserError(f"the engine could not be given the adapter {new!r}: {error}") from error
