"""Tools that need a model or an engine elsewhere. They run on the host, never in the sandbox.

Without an endpoint each says `unavailable` and what to configure: none of them makes an answer up. A key is read
from an environment variable of the host when a call is made; settings hold only the variable's name, so that no
secret reaches a sandbox, a log or a checkpoint.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.boxes import REGION_WORDS
from regrpo_jax.toolbox.chat_api import Api, ApiError, BadReply, body_of, choice_of, text_of
from regrpo_jax.toolbox.failures import EmptyResult, Unavailable
from regrpo_jax.toolbox.host_files import CurrentDirectory, Workspace, sent_picture, stored
from regrpo_jax.toolbox.http_client import HttpClient, key_of
from regrpo_jax.toolbox.search_tools import MOST_HITS, QUERY
from regrpo_jax.toolbox.signatures import CheckedTool, check_call
from regrpo_jax.toolbox.vision_tools import IMAGE

_RETRIES, _FIRST_WAIT = 2, 0.5  # of a call; seconds
Result = TypeVar("Result")


@dataclass(frozen=True)
class Endpoint:
    """Where a remote tool sends its calls.

    url: base of an OpenAI-compatible API ("http://localhost:8000/v1"), or a search engine's address. model: its
    name there. key_variable: environment variable of the host that holds the key, "" for none. seconds: of a call.
    kind: of a search engine, "searxng" or "serper". longest_side: an image is shrunk to it, in pixels.
    """

    url: str
    model: str = ""
    key_variable: str = ""
    seconds: float = 60.0
    kind: str = "searxng"
    longest_side: int = 1536
    most_tokens: int = 512


class RemoteTool(CheckedTool):
    """A tool that runs on the host: `run_on_host` gets the calling episode's workspace before the arguments."""

    name = "remote_tool"
    description = "Runs on the host."
    inputs: dict[str, Any] = {}
    output_type = "any"
    remote = True
    skip_forward_signature_validation = True
    purpose = ""  # what the endpoint is, for the message that says it is missing
    setting = ""  # field of ToolsetSettings that configures it

    def __init__(self, endpoint: Endpoint | None = None) -> None:
        super().__init__()
        self.endpoint = endpoint

    def forward(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self.run_on_host(CurrentDirectory(), *arguments, **keywords)

    def run_on_host(self, workspace: Workspace, /, *arguments: Any, **keywords: Any) -> Any:
        """Check the call as a local tool's is checked, and carry it out. Raises ToolFailure."""
        check_call(self, arguments, keywords)
        return self.answer(workspace, **(dict(zip(self.inputs, arguments, strict=False)) | keywords))

    def answer(self, workspace: Workspace, /, **arguments: Any) -> Any:
        raise NotImplementedError

    def not_ready(self) -> str:
        """Why a call that is not answered in time could not even begin; "" when it is the call that takes long."""
        return ""

    def configured(self) -> Endpoint:
        if self.endpoint is None:
            raise Unavailable(
                f"{self.name} is unavailable: no {self.purpose} is configured. Set `{self.setting}` in the toolset's "
                'settings, such as Endpoint(url="http://localhost:8000/v1", model="...").'
            )
        return self.endpoint


def asked(
    tool: str,
    endpoint: Endpoint,
    route: str,
    body: Mapping[str, Any] | None,
    read: Callable[[str], Result],
    *,
    key_header: str = "Authorization",
) -> Result:
    """What `read` makes of the answer; it raises BadReply. Unavailable: there is no key, or no answer came of it."""
    try:
        key = key_of(endpoint.key_variable)
    except UserError as error:
        raise Unavailable(f"{tool} is unavailable: {error}.") from None
    with HttpClient(timeout=endpoint.seconds, key=key, key_header=key_header) as client:
        try:
            api = Api(client, endpoint.url, retries=_RETRIES, first_wait=_FIRST_WAIT, patience=endpoint.seconds)
            return api.ask(route, body, read)
        except ApiError as error:
            raise Unavailable(f"{tool} is unavailable: {error}.") from None


class Visualizer(RemoteTool):
    name = "visualizer"
    description = "Answers a question about an image, by a vision-language model."
    inputs = {
        "question": {"type": "string", "description": "the question"},
        "image_path": IMAGE,
        "bbox": {
            "type": ["string", "array"],
            "description": f"part of the image to look at: {REGION_WORDS}",
            "nullable": True,
        },
    }
    output_type = "string"
    purpose = "vision-language model"
    setting = "vision"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        endpoint = self.configured()
        url = sent_picture(workspace, arguments["image_path"], arguments.get("bbox"), endpoint.longest_side).url
        return self.ask(endpoint, arguments["question"], url)

    def ask(self, endpoint: Endpoint, question: str, image_url: str) -> str:
        content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": question}]
        body = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0.0,
            "seed": 0,
            "max_tokens": endpoint.most_tokens,
        }
        text = asked(self.name, endpoint, "/chat/completions", body, _answer_text)
        if not text:
            raise EmptyResult(f"No answer returned by {endpoint.model}.")
        return text


def _answer_text(reply: str) -> str:
    return text_of(choice_of(reply)[0]["message"].get("content")).strip()


class MathOcr(Visualizer):
    name = "math_ocr"
    description = "Reads a formula in an image as LaTeX, by a vision-language model."
    inputs = {"image": IMAGE}

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        endpoint = self.configured()
        url = sent_picture(workspace, arguments["image"], None, endpoint.longest_side).url
        return self.ask(endpoint, "Write the formula in this image as LaTeX. Answer with the LaTeX only.", url)


class ImageGenerator(RemoteTool):
    name = "image_generator"
    description = "Makes an image from a description, by an image model, and returns the name of the new image."
    inputs = {"prompt": {"type": "string", "description": "what to show"}}
    output_type = "string"
    purpose = "image model"
    setting = "images"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        endpoint = self.configured()
        body = {"model": endpoint.model, "prompt": next(iter(arguments.values())), "n": 1}
        data = asked(self.name, endpoint, "/images/generations", body | {"response_format": "b64_json"}, _image_data)
        if not data:
            raise EmptyResult(f"No image returned by {endpoint.model}.")
        return stored(workspace, self.name, data, "the image model")


def _image_data(reply: str) -> bytes:
    """b"" where there is no image."""
    images = body_of(reply).get("data")
    first = images[0] if isinstance(images, list) and images else None
    try:
        return base64.b64decode(text_of(first.get("b64_json")) if isinstance(first, dict) else "", validate=True)
    except (binascii.Error, ValueError):
        return b""


class TextToImage(ImageGenerator):
    name = "text_to_image"
    inputs = {"keywords": {"type": "string", "description": "what to show"}}


class RemoteSearch(RemoteTool):
    name = "search"
    description = "Searches the web and returns the best pages: number, title and a passage of each."
    inputs = {
        "query": QUERY,
        "k": {"type": "integer", "description": "how many pages", "nullable": True},
    }
    output_type = "string"
    purpose = "search engine"
    setting = "search_engine"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        query, most = arguments["query"], max(1, min(MOST_HITS, arguments.get("k") or 10))
        found = _engine_results(self.name, self.configured(), query, most)[:most]
        if not found:
            raise EmptyResult(f'No results found for "{query}".')
        return "\n\n".join(f"{place} - {title}: {passage}" for place, (title, passage) in enumerate(found, 1))


class RemoteAskSearchAgent(RemoteSearch):
    name = "ask_search_agent"
    description = "Answers a query with what a web search engine finds."
    inputs = {"query": QUERY}


def _engine_results(name: str, endpoint: Endpoint, query: str, most: int) -> list[tuple[str, str]]:
    """(title, passage) of each result of a SearXNG or Serper endpoint."""
    if endpoint.kind == "serper":
        return asked(name, endpoint, "", {"q": query, "num": most}, _serper_results, key_header="X-API-KEY")
    return asked(name, endpoint, f"?{urlencode({'q': query, 'format': 'json'})}", None, _searxng_results)


def _serper_results(reply: str) -> list[tuple[str, str]]:
    found = body_of(reply)
    box = found.get("answerBox") or {}
    if not isinstance(box, dict):
        raise BadReply("its answerBox is no object")
    answer = [("Answer box", str(box.get("answer") or box.get("snippet")))] if box else []
    return answer + _hits(found.get("organic"), "snippet")


def _searxng_results(reply: str) -> list[tuple[str, str]]:
    return _hits(body_of(reply).get("results"), "content")


def _hits(found: object, passage: str) -> list[tuple[str, str]]:
    """BadReply when they are no list of results; passage: what each calls its text."""
    hits = [] if found is None else found
    if not isinstance(hits, list) or not all(isinstance(hit, dict) and "title" in hit for hit in hits):
        raise BadReply("its results are no list of titles and passages")
    return [(str(hit["title"]), str(hit.get(passage) or "")) for hit in hits]
