"""An OpenAI-compatible engine (vLLM, SGLang, `transformers serve`): where it is, and how it is handed an adapter."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regrpo_jax.errors import UserError, listed
from regrpo_jax.toolbox.chat_api import Api, ApiError
from regrpo_jax.toolbox.http_client import HttpClient, address_problems, key_of


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
        if problems := address_problems(self.base_url):
            raise UserError(f"the engine's settings: {listed(problems)}")
        if self.timeout <= 0 or self.concurrency < 1 or self.retries < 0:
            raise UserError("the engine's timeout and concurrency must be above 0, retries at least 0")
        key_of(self.key_variable)


def engine_api(settings: EngineSettings) -> Api:
    """The engine as it is asked. To be closed."""
    client = HttpClient(timeout=settings.timeout, key=key_of(settings.key_variable))
    return Api(
        client, settings.base_url, retries=settings.retries, places=settings.concurrency, first_wait=settings.first_wait
    )


def post(settings: EngineSettings, route: str, body: Mapping[str, Any]) -> Any:
    """The answer's JSON, None for an answer without any, such as vLLM's "Success: LoRA adapter 'x' added successfully."

    Raises:
      ApiError: what the last try brought.
    """
    with contextlib.closing(engine_api(settings)) as api:
        return api.ask(route, body, _json_or_none)


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


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
        _unload(settings, name)
    body = {"lora_name": new, "lora_path": folder}
    try:
        try:
            post(settings, "/load_lora_adapter", body)
        except ApiError as error:
            if "already" not in str(error):
                raise
            # A first try may have come through whose answer was lost, but so may another run's: what lies there is
            # taken away and loaded again, so that it is surely this one.
            _unload(settings, new)
            post(settings, "/load_lora_adapter", body)
    except ApiError as error:
        if error.status in (404, 405):
            words = "it has no LoRA hot reload (vLLM: --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True)"
            raise UserError(f"{settings.base_url}: {words}; restart the engine with the adapter instead") from error
        raise UserError(f"the engine could not be given the adapter {new!r}: {error}") from error


def _unload(settings: EngineSettings, name: str) -> None:
    with contextlib.suppress(ApiError):  # it may not be there
        post(settings, "/unload_lora_adapter", {"lora_name": name})
