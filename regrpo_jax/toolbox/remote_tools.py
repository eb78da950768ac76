"""Tools that need a model or an engine elsewhere. They run on the host, never in the sandbox.

Without an endpoint each says `unavailable` and what to configure: none of them makes an answer up. A key is read
from an environment variable of the host when a call is made; settings hold only the variable's name, so that no
secret reaches a sandbox, a log or a checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from regrpo_jax.toolbox.boxes import REGION_WORDS, parse_region
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, Unavailable
from regrpo_jax.toolbox.files import quoted, workspace_files
from regrpo_jax.toolbox.pictures import FORMATS, MOST_PIXELS
from regrpo_jax.toolbox.search_tools import MOST_HITS, QUERY
from regrpo_jax.toolbox.signatures import CheckedTool, check_call
from regrpo_jax.toolbox.vision_tools import IMAGE

_MOST_REPLY = 4 * 2**20  # bytes of a search engine's reply


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


class Workspace(Protocol):
    """The files of the episode that calls; the sandbox's session is one."""

    def read_file(self, name: str) -> bytes: ...

    def write_file(self, name: str, data: bytes) -> None: ...

    def files(self) -> Iterable[str]: ...


class CurrentDirectory:
    """The current directory as a workspace, for calls outside a sandbox."""

    def read_file(self, name: str) -> bytes:
        return Path(name).read_bytes()

    def write_file(self, name: str, data: bytes) -> None:
        Path(name).write_bytes(data)

    def files(self) -> list[str]:
        return workspace_files()


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


def _key(endpoint: Endpoint) -> str:
    if not endpoint.key_variable:
        return ""
    key = os.environ.get(endpoint.key_variable, "")
    if not key:
        raise Unavailable(f"The environment variable {endpoint.key_variable}, which holds the key, is not set.")
    return key


def _client(endpoint: Endpoint) -> Any:
    import openai

    key = _key(endpoint) or "none"
    return openai.OpenAI(base_url=endpoint.url, api_key=key, timeout=endpoint.seconds, max_retries=2)


def _failure(name: str, endpoint: Endpoint, error: Exception) -> Unavailable:
    return Unavailable(f"{name} is unavailable: {endpoint.url} did not answer ({type(error).__name__}: {error}).")


def _image_url(workspace: Workspace, name: str, region: Any, longest_side: int) -> str:
    """The image (or its region) as a data URL, in PNG."""
    from PIL import Image, ImageOps

    try:
        data = workspace.read_file(name)
    except OSError as error:
        here = quoted(sorted(file for file in workspace.files() if not file.startswith(".")))
        raise ToolError(f'File not found: "{name}". Files here: {here}.') from error
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
        if opened.width * opened.height > MOST_PIXELS:
            raise ToolError(f'"{name}" has {opened.width} x {opened.height} pixels; at most {MOST_PIXELS:,} are sent.')
        image: Image.Image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ToolError(f'"{name}" is no image that can be read.') from error
    if region is not None:
        image = image.crop(parse_region(region, image.size))
    image.thumbnail((longest_side, longest_side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


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
        url = _image_url(workspace, arguments["image_path"], arguments.get("bbox"), endpoint.longest_side)
        return self.ask(endpoint, arguments["question"], url)

    def ask(self, endpoint: Endpoint, question: str, image_url: str) -> str:
        import openai

        content = [{"type": "image_url", "image_url": {"url": image_url}}, {"type": "text", "text": question}]
        try:
            reply = _client(endpoint).chat.completions.create(
                model=endpoint.model,
                messages=[{"role": "user", "content": content}],
                temperature=0.0,
                seed=0,
                max_tokens=endpoint.most_tokens,
            )
        except openai.OpenAIError as error:
            raise _failure(self.name, endpoint, error) from error
        text = (reply.choices[0].message.content or "").strip() if reply.choices else ""
        if not text:
            raise EmptyResult(f"No answer returned by {endpoint.model}.")
        return text


class MathOcr(Visualizer):
    name = "math_ocr"
    description = "Reads a formula in an image as LaTeX, by a vision-language model."
    inputs = {"image": IMAGE}

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        endpoint = self.configured()
        url = _image_url(workspace, arguments["image"], None, endpoint.longest_side)
        return self.ask(endpoint, "Write the formula in this image as LaTeX. Answer with the LaTeX only.", url)


class ImageGenerator(RemoteTool):
    name = "image_generator"
    description = "Makes an image from a description, by an image model, and returns the name of the new image."
    inputs = {"prompt": {"type": "string", "description": "what to show"}}
    output_type = "string"
    purpose = "image model"
    setting = "images"

    def answer(self, workspace: Workspace, /, **arguments: Any) -> str:
        import openai

        endpoint = self.configured()
        prompt = next(iter(arguments.values()))
        try:
            reply = _client(endpoint).images.generate(
                model=endpoint.model, prompt=prompt, n=1, response_format="b64_json"
            )
            data = base64.b64decode((reply.data or [])[0].b64_json or "", validate=True)
        except openai.OpenAIError as error:
            raise _failure(self.name, endpoint, error) from error
        except (IndexError, binascii.Error) as error:
            raise EmptyResult(f"No image returned by {endpoint.model}.") from error
        return stored(workspace, self.name, data, "the image model")


def stored(workspace: Workspace, tool: str, data: bytes, sender: str) -> str:
    """The image that was sent, written into the workspace as PNG under a name that counts up."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ToolError(f"{tool}: {sender} sent {image.width} x {image.height} pixels.")
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="PNG")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ToolError(f"{tool}: {sender} sent something that is no image.") from error
    name = free_name(workspace, tool, ".png")
    workspace.write_file(name, buffer.getvalue())
    return name


def free_name(workspace: Workspace, tool: str, ending: str) -> str:
    """The first name that counts up and that no file has."""
    taken = set(workspace.files())
    number = 1
    while f"{tool}_{number}{ending}" in taken:
        number += 1
    return f"{tool}_{number}{ending}"


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
        headers = {"Content-Type": "application/json", "X-API-KEY": _key(endpoint)}
        body = json.dumps({"q": query, "num": most}).encode()
        request = urllib.request.Request(endpoint.url, data=body, headers=headers)
    else:
        address = f"{endpoint.url}?{urllib.parse.urlencode({'q': query, 'format': 'json'})}"
        key = _key(endpoint)
        request = urllib.request.Request(address, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=endpoint.seconds) as reply:
            found = json.loads(reply.read(_MOST_REPLY))
        if endpoint.kind == "serper":
            box = found.get("answerBox") or {}
            answer = [("Answer box", str(box.get("answer") or box.get("snippet")))] if box else []
            return answer + [(str(hit["title"]), str(hit.get("snippet", ""))) for hit in found.get("organic", [])]
        return [(str(hit["title"]), str(hit.get("content", ""))) for hit in found.get("results", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _failure(name, endpoint, error) from error
