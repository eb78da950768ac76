"""An MCP server that does what servers should not, spoken to over its standard input and output; it needs no library.

Its argument says how it starts: "well", "ends", "hangs", or "dies:FILE", which dies in the call of `flaky` until FILE
is there, and in every call of `dies`.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAADCAIAAAA2iEnWAAAAEElEQVR4nGP4z8AARAwoFABE0AX7pM/egAAAAABJRU5ErkJggg=="
POINT = {"type": "object", "properties": {"lat": {"type": "number"}, "lon": {"type": "number", "default": 0.5}},
         "required": ["lat"]}  # fmt: skip
SCHEMA: dict[str, Any] = {
    "type": "object",
    "$defs": {"Point": POINT, "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "array"}]},
              "Unit": {"enum": ["C", "F"]}},
    "properties": {
        "class": {"type": "string", "description": "kind of thing"},
        "user-id": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "description": "whose"},
        "user_id": {"type": "integer", "default": 0},
        "anything": True,
        "where": {"$ref": "#/$defs/Point", "description": "a place"},
        "unit": {"allOf": [{"$ref": "#/$defs/Unit"}], "default": "C"},
        "mode": {"oneOf": [{"const": "fast", "title": "Fast"}, {"const": "slow"}, {"type": "null"}]},
        "either": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "loop": {"$ref": "#/$defs/Loop"},
        "workspace": {"type": "string"},
        "self": {"type": "boolean", "default": False},
        "maybe": {"type": ["string", "null"]},
        "odd": {"type": "file"},
    },
    "required": ["class", "where", "maybe"],
}  # fmt: skip
NOTHING: dict[str, Any] = {"type": "object"}
TOOLS = {"echo": SCHEMA, "get-value": NOTHING, "get_value": NOTHING, "get.value": NOTHING, "import": NOTHING,
         "2nd": NOTHING, "print": NOTHING, "天气": NOTHING, "picture": NOTHING, "resources": NOTHING, "wrong": NOTHING,
         "silent": NOTHING, "blank": NOTHING, "nothing": NOTHING, "empty": NOTHING, "both": NOTHING, "broken": NOTHING,
         "gallery": NOTHING, "measured": NOTHING, "album": NOTHING,
         "size": {"type": "object", "properties": {"what": {}}, "required": ["what"]},
         "long": {"type": "object", "properties": {"items": {"type": "integer"}}, "required": ["items"]},
         "flaky": NOTHING, "dies": NOTHING}  # fmt: skip


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


ANSWERS: dict[str, dict[str, Any]] = {
    "picture": {"content": [text("A chart."), {"type": "image", "data": PIXEL, "mimeType": "image/png"}]},
    "resources": {"content": [
        {"type": "resource", "resource": {"uri": "file:///a.txt", "text": "the words of a file"}},
        {"type": "resource", "resource": {"uri": "file:///a.pdf", "blob": base64.b64encode(b"%PDF").decode(),
                                          "mimeType": "application/pdf"}},
        {"type": "resource_link", "uri": "file:///b.txt", "name": "b.txt"}]},
    "wrong": {"content": [], "structuredContent": {"hint": "use metres"}, "isError": True},
    "silent": {"content": []},
    "blank": {"content": [text("")]},
    "nothing": {"content": [], "structuredContent": {"result": None}},
    "empty": {"content": [], "structuredContent": {"result": []}},
    "both": {"content": [text("2 of 9 rows")], "structuredContent": {"rows": [1, 2]}},
    "broken": {"content": [{"type": "image", "data": "AAAA", "mimeType": "image/png"}]},
    "flaky": {"content": [text("here again")]},
    "gallery": {"content": [
        {"type": "image", "data": PIXEL, "mimeType": "image/png"}, text("Two charts and a sketch."),
        {"type": "image", "data": PIXEL, "mimeType": "image/jpeg"},
        {"type": "resource", "resource": {"uri": "file:///c.png", "blob": PIXEL, "mimeType": "image/png"}}]},
    "measured": {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}],
                 "structuredContent": {"width": 2}},
    "album": {"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png"}] * 65},
}  # fmt: skip


def listed(cursor: str | None) -> dict[str, Any]:
    names = list(TOOLS)
    start = int(cursor or 0)
    more = {"nextCursor": str(start + 8)} if start + 8 < len(names) else {}
    tools = [
        {"name": name, "description": f"Does {name}.", "inputSchema": TOOLS[name]} for name in names[start : start + 8]
    ]
    return {"tools": tools} | more


def called(name: str, arguments: dict[str, Any], behaviour: str) -> dict[str, Any]:
    if name == "dies" or (name == "flaky" and not Path(behaviour.partition(":")[2]).exists()):
        Path(behaviour.partition(":")[2]).touch()
        print("out of memory", file=sys.stderr, flush=True)
        sys.exit(1)
    if name == "size":
        return {"content": [text(f"{len(arguments['what'])}")]}
    if name == "long":
        return {
            "content": [text("x" * arguments["items"])],
            "structuredContent": {"result": list(range(arguments["items"]))},
        }
    return ANSWERS.get(name) or {"content": [text(json.dumps({"name": name} | arguments, sort_keys=True))]}


def main(behaviour: str) -> None:
    if behaviour == "ends":
        sys.exit("cannot find its database")
    for line in sys.stdin:
        if behaviour == "hangs":
            time.sleep(600)
        message = json.loads(line)
        parameters, answer = message.get("params") or {}, {}
        match message["method"]:
            case "initialize":
                version = parameters["protocolVersion"]
                answer = {
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "odd", "version": "1"},
                }
            case "tools/list":
                answer = listed(parameters.get("cursor"))
            case "tools/call" if parameters["name"] in TOOLS:
                answer = called(parameters["name"], parameters.get("arguments") or {}, behaviour)
        if "id" in message:
            error = {"error": {"code": -32601, "message": f"there is no {message['method']}"}}
            reply = {"jsonrpc": "2.0", "id": message["id"]} | ({"result": answer} if answer else error)
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
