"""Remote tools against servers that the tests start here, and what they say without one."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, ToolFailure, Unavailable
from regrpo_jax.toolbox.mcp_connections import is_connected
from regrpo_jax.toolbox.mcp_tools import McpServer, close_connections
from regrpo_jax.toolbox.remote_tools import (
    Endpoint,
    ImageGenerator,
    MathOcr,
    RemoteAskSearchAgent,
    RemoteSearch,
    TextToImage,
    Visualizer,
)
from regrpo_jax.toolbox.toolset import ToolsetSettings, load_toolset, with_server_tools
from tests.agent.odd_engine import OddEngine, odd_serving
from tests.toolbox.tool_workspace import draw_scene

pytestmark = pytest.mark.usefixtures("workspace")


class Answers(BaseHTTPRequestHandler):
    """An OpenAI-compatible API and two search engines, as far as the tools use them."""

    seen: list[dict[str, Any]] = []

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.seen.append({"path": self.path, "headers": self.headers})
        found = [] if "nothing" in self.path else [{"title": "Nile", "url": "u", "content": "6,650 km long"}] * 3
        self._reply({"results": found})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "headers": self.headers, "body": body})
        if self.path.endswith("/chat/completions"):
            message = {"role": "assistant", "content": "" if "silence" in str(body) else "The sign reads EXIT."}
            self._reply({"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                         "choices": [{"index": 0, "finish_reason": "stop", "message": message}]})  # fmt: skip
        elif self.path.endswith("/images/generations"):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 6), "red").save(buffer, format="PNG")
            data = b"no image" if body["prompt"] == "garbage" else buffer.getvalue()
            self._reply({"created": 0, "data": [{"b64_json": base64.b64encode(data).decode()}]})
        elif self.path == "/serper":
            self._reply({"answerBox": {"answer": "39 grams"}, "organic": [{"title": "Cola", "snippet": "39 g"}]})
        else:
            self.send_error(404)

    def _reply(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long before another try."""
    monkeypatch.setattr("regrpo_jax.toolbox.remote_tools._FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


CALLS = {
    "visualizer": lambda endpoint: Visualizer(endpoint)("what?", draw_scene()),
    "math_ocr": lambda endpoint: MathOcr(endpoint)(draw_scene()),
    "image_generator": lambda endpoint: ImageGenerator(endpoint)("a cat"),
    "text_to_image": lambda endpoint: TextToImage(endpoint)("cat, box"),
    "search": lambda endpoint: RemoteSearch(endpoint)("nile"),
    "ask_search_agent": lambda endpoint: RemoteAskSearchAgent(endpoint)("nile"),
}


@pytest.mark.parametrize("name", CALLS)
def test_without_an_endpoint_a_tool_is_unavailable_and_says_what_to_set(name: str) -> None:
    with pytest.raises(Unavailable, match=f"{name} is unavailable: no .* is configured. Set `[a-z_]+` in") as failure:
        CALLS[name](None)
    assert failure.value.status is Status.TOOL_ERROR


@pytest.mark.parametrize("name", CALLS)
def test_an_endpoint_that_is_down_is_told(name: str) -> None:
    with pytest.raises(Unavailable, match=f"{name} is unavailable: http://127.0.0.1:9/v1 did not answer"):
        CALLS[name](Endpoint("http://127.0.0.1:9/v1", "m", seconds=2.0))


@pytest.mark.parametrize("way", ["body cut", "status 503", "a web page", "no HTTP", "JSON of something else"])
def test_what_a_server_says_oddly_is_asked_again_and_then_told(way: str) -> None:
    engine = OddEngine(lambda body: {"results": [{"title": "Nile", "content": "long"}]}, lambda number: "")
    with odd_serving(engine) as address:
        endpoint = Endpoint(f"{address}/search")
        engine.odd = lambda number: way if number == 0 else ""
        assert RemoteSearch(endpoint)("nile") == "1 - Nile: long"
        engine.odd = lambda number: way
        with pytest.raises(Unavailable, match="search is unavailable"):
            RemoteSearch(endpoint)("nile")
    assert engine.asked == 5


@pytest.mark.parametrize("found", [{"results": 3}, {"results": [7]}, {"results": [{}]}, {"results": {"a": 1}}])
def test_results_that_are_none_are_told(found: dict[str, Any]) -> None:
    engine = OddEngine(lambda body: found, lambda number: "")
    with odd_serving(engine) as address, pytest.raises(Unavailable, match="no list of titles"):
        RemoteSearch(Endpoint(address))("nile")


def test_a_key_stays_in_the_environment(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = Endpoint(f"{address}/v1", "m", key_variable="KEY_OF_THE_TESTS")
    with pytest.raises(Unavailable, match="KEY_OF_THE_TESTS, which holds the key, is not set"):
        Visualizer(endpoint)("what?", draw_scene())
    monkeypatch.setenv("KEY_OF_THE_TESTS", "s3cret")
    Visualizer(endpoint)("what?", draw_scene())
    assert Answers.seen[-1]["headers"]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(endpoint)


def test_visualizer_sends_the_region_and_returns_the_answer(address: str) -> None:
    tool = Visualizer(Endpoint(f"{address}/v1", "some-model", longest_side=40))
    assert tool("read the sign", draw_scene(), bbox=[290, 210, 390, 290]) == "The sign reads EXIT."
    body = Answers.seen[-1]["body"]
    assert (body["model"], body["temperature"], body["seed"]) == ("some-model", 0.0, 0)
    picture, question = body["messages"][0]["content"]
    assert question["text"] == "read the sign"
    data = base64.b64decode(picture["image_url"]["url"].partition("base64,")[2])
    sent = Image.open(io.BytesIO(data))
    assert sent.size == (40, 32) and sent.getpixel((2, 2)) == (139, 69, 19)
    with pytest.raises(EmptyResult, match="No answer returned by some-model"):
        tool("silence", "scene.png")
    with pytest.raises(ToolError, match='File not found: "sign.png". Files here: "scene.png"'):
        tool("read", "sign.png")
    Path("note.txt").write_text("x")
    with pytest.raises(ToolError, match='"note.txt" is no image'):
        tool("read", "note.txt")
    with pytest.raises(ToolError, match=r"Usage: visualizer\(question: str, image_path: str, bbox"):
        tool("read")
    assert MathOcr(tool.endpoint)("scene.png") == "The sign reads EXIT."


class Files:
    """A workspace that is not the current directory, as a sandbox's session is."""

    def __init__(self, **files: bytes) -> None:
        self.held = dict(files)

    def read_file(self, name: str) -> bytes:
        if name not in self.held:
            raise FileNotFoundError(name)
        return self.held[name]

    def write_file(self, name: str, data: bytes) -> None:
        self.held[name] = data

    def files(self) -> dict[str, bytes]:
        return self.held


def test_remote_tools_use_the_workspace_of_the_episode_that_calls(address: str) -> None:
    workspace = Files(photo=Path(draw_scene("outside.png")).read_bytes())
    endpoint = Endpoint(f"{address}/v1", "m")
    assert Visualizer(endpoint).run_on_host(workspace, "what?", "photo") == "The sign reads EXIT."
    with pytest.raises(ToolError, match='File not found: "outside.png". Files here: "photo"'):
        Visualizer(endpoint).run_on_host(workspace, "what?", "outside.png")
    names = [ImageGenerator(endpoint).run_on_host(workspace, prompt="a cat") for _ in range(2)]
    assert names == ["image_generator_1.png", "image_generator_2.png"]
    assert Image.open(io.BytesIO(workspace.held[names[1]])).size == (8, 6)
    assert [path.name for path in Path().iterdir()] == ["outside.png"]


def test_image_generator_writes_what_it_gets_and_refuses_what_is_no_image(address: str) -> None:
    endpoint = Endpoint(f"{address}/v1", "m")
    assert ImageGenerator(endpoint)("a cat") == "image_generator_1.png"
    assert TextToImage(endpoint)(keywords="cat, box") == "text_to_image_1.png"
    assert Image.open("image_generator_1.png").getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ToolError, match="sent something that is no image"):
        ImageGenerator(endpoint)("garbage")


def test_remote_search_reads_both_engines(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searxng = RemoteSearch(Endpoint(f"{address}/search"))
    assert searxng("nile length", 2) == "1 - Nile: 6,650 km long\n\n2 - Nile: 6,650 km long"
    assert Answers.seen[-1]["path"] == "/search?q=nile+length&format=json"
    with pytest.raises(EmptyResult, match='No results found for "nothing"'):
        searxng("nothing")
    monkeypatch.setenv("KEY_OF_THE_TESTS", "s3cret")
    serper = RemoteAskSearchAgent(Endpoint(f"{address}/serper", kind="serper", key_variable="KEY_OF_THE_TESTS"))
    assert serper("sugar in cola") == "1 - Answer box: 39 grams\n\n2 - Cola: 39 g"
    assert Answers.seen[-1]["body"] == {"q": "sugar in cola", "num": 10}


@pytest.fixture(scope="module")
def server() -> Iterator[McpServer]:
    script = Path(__file__).with_name("ask_server.py")
    yield McpServer("tests", (sys.executable, str(script)), prefix="demo_", seconds=120.0)
    close_connections()


def test_the_tools_of_an_mcp_server_are_tools_of_ours(server: McpServer) -> None:
    settings = with_server_tools(ToolsetSettings(builtin=("final_answer",), mcp_servers=(server,)))
    tools = load_toolset(settings)
    assert list(tools) == ["final_answer", "demo_add", "demo_refuse", "demo_sleep", "demo_weather_of"]
    assert all(tool.remote for name, tool in tools.items() if name.startswith("demo_"))
    assert tools["demo_add"](2, second=5) == 7
    assert tools["demo_add"](2) == 3
    assert tools["demo_weather_of"](city="Oslo") == {"city": "Oslo", "sky": "clear"}
    with pytest.raises(ToolError, match="demo_refuse: "):
        tools["demo_refuse"]("no")
    with pytest.raises(ToolError, match=r'"first" must be int, not str. Usage: demo_add\(first: int, second: int = '):
        tools["demo_add"]("two")


def test_many_threads_may_call_one_server(server: McpServer) -> None:
    add = load_toolset(with_server_tools(ToolsetSettings(builtin=(), mcp_servers=(server,))))["demo_add"]
    found: dict[int, int] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: add(n, n)})) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: 2 * number for number in range(8)}


def test_described_tools_start_nothing_until_they_are_called(server: McpServer) -> None:
    settings = with_server_tools(ToolsetSettings(builtin=(), mcp_servers=(server,)))
    close_connections()
    tools = load_toolset(settings)
    assert not is_connected(server)
    assert tools["demo_add"](1, 1) == 2, "a call connects, again if need be"


def test_a_server_that_cannot_be_reached_is_a_mistake_in_the_settings() -> None:
    with pytest.raises(UserError, match='MCP server "gone" .* cannot be reached'):
        load_toolset(ToolsetSettings(builtin=(), mcp_servers=(McpServer("gone", ("no-such-command-anywhere",)),)))
    with pytest.raises(UserError, match="give either a command or a url"):
        load_toolset(ToolsetSettings(builtin=(), mcp_servers=(McpServer("odd"),)))


def test_a_call_that_takes_too_long_is_given_up(server: McpServer) -> None:
    slow = McpServer("slow", server.command, seconds=5.0)
    settings = with_server_tools(ToolsetSettings(builtin=(), mcp_servers=(slow,)))
    with pytest.raises(ToolFailure, match="sleep timed out after 5 seconds") as late:
        load_toolset(settings)["sleep"](60.0)
    assert late.value.status is Status.TIMEOUT
