"""MCP servers as they are: what ends or hangs is nobody's failure, and nothing of what they say is lost on the way."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox import mcp_tools
from regrpo_jax.toolbox.failures import ServerLost, ToolError
from regrpo_jax.toolbox.json_schemas import argument
from regrpo_jax.toolbox.mcp_names import python_names
from regrpo_jax.toolbox.mcp_tools import McpServer, close_connections, describe_server
from regrpo_jax.toolbox.signatures import signature_of
from regrpo_jax.toolbox.toolset import ToolsetSettings, describe, load_toolset, with_server_tools
from tests.toolbox import user_tools_example
from tests.toolbox.odd_server import TOOLS

SCRIPT = str(Path(__file__).with_name("odd_server.py"))


def server_that(behaviour: str, seconds: float = 60.0) -> McpServer:
    return McpServer("odd", (sys.executable, SCRIPT, behaviour), seconds=seconds)


def tools_of(server: McpServer) -> dict[str, Any]:
    return dict(load_toolset(ToolsetSettings(builtin=(), mcp_servers=(server,))))


@pytest.fixture(scope="module")
def tools() -> Iterator[dict[str, Any]]:
    yield tools_of(server_that("well"))
    close_connections()


@settings(deadline=None)
@given(
    st.sets(st.text(max_size=6) | st.sampled_from(("class", "a-b", "a_b", "a.b", "a_b_2", "2d", "print", "self", "ﬁ")))
)
def test_every_name_becomes_one_of_python_and_each_its_own(names: set[str]) -> None:
    found = python_names(sorted(names))
    assert list(found) == sorted(names) and len(set(found.values())) == len(names)
    assert found == dict(python_names(sorted(names, reverse=True)))
    for name, ours in found.items():
        assert ours.isidentifier() and not keyword.iskeyword(ours)
        assert compile(f"{ours}()", "", "eval").co_names == (ours,)
        if (
            name.isidentifier()
            and name.isascii()
            and not keyword.iskeyword(name)
            and name not in ("print", "self", "cls")
        ):
            assert ours == name


def test_all_pages_and_all_names_are_there(tools: dict[str, Any]) -> None:
    assert len(tools) == len(TOOLS)
    assert {"get_value", "get_value_2", "get_value_3", "import_", "_2nd", "print_", "天气"} <= set(tools)
    called = {name: tools[name]() for name in ("get_value", "get_value_2", "get_value_3", "import_")}
    names = ["get_value", "get-value", "get.value", "import"]
    assert list(called.values()) == [f'{{"name": "{name}"}}' for name in names]


def test_the_policy_is_shown_choices_defaults_and_what_arguments_are(tools: dict[str, Any]) -> None:
    assert signature_of(tools["echo"]) == (
        "echo(class_: str, where: dict, maybe: str | None, user_id_2: int | None = None, user_id: int = 0, "
        "anything: any = None, unit: 'C' | 'F' = 'C', mode: 'fast' | 'slow' | None = None, either: str | list = None, "
        "loop: any = None, workspace: str = None, self_: bool = False, odd: any = None) -> any"
    )
    told = describe({"echo": tools["echo"]})
    for words in (
        "class_: kind of thing",
        "where: a place; with the keys {'lat': float, 'lon': float = 0.5}",
        "user_id_2: whose",
    ):
        assert words in told


def test_arguments_go_by_the_servers_names_and_nulls_as_it_takes_them(tools: dict[str, Any]) -> None:
    given = tools["echo"]("a", {"lat": 1}, None, user_id_2=None, user_id=None, workspace="w", self_=True, mode=None)
    assert given == (
        '{"class": "a", "maybe": null, "mode": null, "name": "echo", "self": true, "user-id": null, '
        '"where": {"lat": 1}, "workspace": "w"}'
    )
    with pytest.raises(ToolError, match='"class_" must be str, not None'):
        tools["echo"](None, {}, None)
    with pytest.raises(ToolError, match="holds nan or inf"):
        tools["echo"]("a", {"lat": float("nan")}, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "items", "properties", "required", "default", "title")
)
PLACES = st.sampled_from(
    ({"$ref": "#/$defs/A"}, {"type": "string"}, {"type": ["integer", "null"]}, {"enum": [1, None]})
)
SCHEMAS = st.recursive(
    JSON | PLACES,
    lambda inner: st.dictionaries(
        KEYS, inner | st.lists(inner, max_size=3) | st.dictionaries(st.just("a"), inner), max_size=4
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(SCHEMAS, SCHEMAS, st.booleans())
def test_any_schema_is_an_input(schema: Any, definition: Any, required: bool) -> None:
    found = argument(schema, {"$defs": {"A": definition}}, required=required)
    kinds = [found["type"]] if isinstance(found["type"], str) else found["type"]
    assert kinds and set(kinds) <= {"any", "string", "integer", "number", "boolean", "array", "object", "null"}
    assert isinstance(found["description"], str) and ("nullable" in found) == (not required)


def test_answers_keep_their_words_and_become_files(
    tools: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tools["picture"]() == "A chart.\npicture_1.png" and tools["picture"]() == "A chart.\npicture_2.png"
    assert Image.open("picture_2.png").size == (2, 3)
    assert tools["resources"]() == "the words of a file\nresources_1.pdf\nb.txt: file:///b.txt"
    assert Path("resources_1.pdf").read_bytes() == b"%PDF"
    assert tools["both"]() == {"rows": [1, 2], "text": "2 of 9 rows"}
    assert [tools[name]() for name in ("silent", "blank", "nothing", "empty")] == [None, None, None, []]
    assert tools["broken"]().startswith("[image/png that cannot be read")
    with pytest.raises(ToolError, match='wrong: {"hint": "use metres"}'):
        tools["wrong"]()


def test_a_server_that_dies_in_a_call_is_started_again_once(tmp_path: Path) -> None:
    tools = tools_of(server_that(f"dies:{tmp_path / 'once'}"))
    assert tools["flaky"]() == "here again"
    with pytest.raises(ServerLost, match='^MCP server "odd": it ended; it said last: "out of memory"$') as lost:
        tools["dies"]()
    assert lost.value.status is Status.INFRA_ERROR
    assert tools["silent"]() is None, "the next call finds it alive"
    close_connections()


def test_a_server_that_does_not_come_up_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "START_SECONDS", 1.0)
    with pytest.raises(UserError, match="cannot be reached: it did not answer within 1 seconds$"):
        describe_server(server_that("hangs"))
    with pytest.raises(UserError, match='it ended; it said last: "cannot find its database"$'):
        monkeypatch.setattr(mcp_tools, "START_SECONDS", 60.0)
        describe_server(server_that("ends"))
    with pytest.raises(UserError, match='there is no program "no-such-program"'):
        describe_server(McpServer("gone", ("no-such-program",)))
    with pytest.raises(UserError, match="cannot be reached: All connection attempts failed") as refused:
        describe_server(McpServer("gone", url="http://127.0.0.1:9/mcp"))
    assert "TaskGroup" not in str(refused.value)


def test_a_server_that_hangs_at_start_is_no_failure_of_who_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_tools, "RESTART_SECONDS", 1.0)
    known = describe_server(server_that("well"))
    silent = next(tool for tool in known if tool.name == "silent")
    tool = mcp_tools.McpTool(mcp_tools.McpToolDescription(server_that("hangs"), "silent", "silent", "", silent.inputs))
    with pytest.raises(ServerLost, match='MCP server "odd": it did not answer within 1 seconds'):
        tool()
    assert tool.not_ready() == 'MCP server "odd" does not come up'
    close_connections()


LONG = "x" * 40_000
IN_THE_SANDBOX = (
    ("note('bought')", Status.OK, ""),
    ("silent()", Status.OK, ""),
    ("blank()\nnothing()", Status.OK, ""),
    ("empty()", Status.EMPTY, "[]"),
    ("print(picture())", Status.OK, "A chart.\npicture_1.png"),
    ("print(gallery())", Status.OK, "gallery_1.png\nTwo charts and a sketch.\ngallery_2.png\ngallery_3.png"),
    ("print(measured())", Status.OK, '{"width": 2}\nmeasured_1.png'),
    ("album()", Status.TOOL_ERROR, "album: the server sent 65 files; at most 64 are kept of one call."),
    (f"print(size(what={LONG!r}))", Status.OK, "40000"),
    ("print(size(what=list(range(20_000))))", Status.OK, "20000"),
    ("print(long(20_000) == list(range(20_000)))", Status.OK, "True"),
    ("print(size(what='x' * 400_000))", Status.TOOL_ERROR, "size: the arguments are too large: 400,000 characters"),
    ("print(long(200_000))", Status.TOOL_ERROR, "long: what it returned is too large: 1,"),
    ("wrong()", Status.TOOL_ERROR, "use metres"),
    ("dies()", Status.INFRA_ERROR, 'the tool dies failed: MCP server "odd": it ended'),
    ("print(flaky())", Status.OK, "here again"),
    ("final_answer('x' * 300_000)", Status.TOOL_ERROR, "final_answer: the answer is too large: 300,000 characters"),
    ("final_answer(list(range(20_000)))", Status.OK, ""),
)

WRITTEN = {
    "print(picture())": ("picture_1.png",),
    "print(gallery())": ("gallery_1.png", "gallery_2.png", "gallery_3.png"),
    "print(measured())": ("measured_1.png",),
}


def test_all_of_it_from_the_action_to_the_server_and_back(tmp_path: Path) -> None:
    users = (f"{user_tools_example.__name__}:note",)
    chosen = ToolsetSettings(("final_answer",), users, mcp_servers=(server_that(f"dies:{tmp_path / 'once'}"),))
    settings = SandboxSettings(workers=1, spares=0, wall_seconds=60.0)
    with SandboxPool(settings, with_server_tools(chosen)) as pool, pool.open({}) as session:
        for code, status, words in IN_THE_SANDBOX:
            result = session.run(code)
            assert (result.status, words in result.text) == (status, True), (code[:60], result.text[:300])
            assert result.images == WRITTEN.get(code, ()), code
            assert all(name in result.text for name in result.images)
        assert result.final_answer == list(range(20_000))
    close_connections()
