"""What the engine knows of tools without running them: their arguments, and a version to recognise them by."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path

from smolagents.tools import Tool

from regrpo_jax.engine.cases import ArgumentShape, ToolShape

_DIGITS = 16


@functools.cache
def _source_digest(kind: type[Tool]) -> str:
    """Of the files that the class and its bases are written in, smolagents' own left out."""
    files = set()
    for base in kind.__mro__:
        if base in (Tool, object) or issubclass(Tool, base):
            continue
        try:
            files.add(inspect.getfile(base))
        except (TypeError, OSError):
            continue
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda name: Path(name).name):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _version(tool: Tool) -> str:
    told = json.dumps([tool.name, tool.description, tool.inputs, tool.output_type], sort_keys=True, default=str)
    return hashlib.sha256(f"{told}\n{_source_digest(tool.__class__)}".encode()).hexdigest()[:_DIGITS]


def tool_shape(tool: Tool) -> ToolShape:
    """What a tool declares, and its version, which changes with its declaration and its source."""
    parameters = inspect.signature(tool.forward).parameters

    def optional(name: str) -> bool:
        parameter = parameters.get(name)
        has_default = parameter is not None and parameter.default is not parameter.empty
        return has_default or bool(tool.inputs[name].get("nullable"))

    arguments = tuple(
        ArgumentShape(name, _kind(declared["type"]), str(declared.get("description", "")), optional(name))
        for name, declared in tool.inputs.items()
    )
    return ToolShape(tool.name, tool.description, arguments, _version(tool))


def _kind(declared: object) -> str:
    return declared if isinstance(declared, str) else "any"


@functools.cache
def loaded_tools(loader: str) -> Mapping[str, Tool]:
    """The tools of "package.module:function", called without settings, as a sandbox's worker loads them."""
    module, _, name = loader.partition(":")
    return getattr(importlib.import_module(module), name)(None)


def shapes_of(tools: Mapping[str, Tool]) -> Mapping[str, ToolShape]:
    """Their shapes, by name."""
    return {name: _shape(tool) for name, tool in tools.items()}


@functools.lru_cache(maxsize=512)
def _shape(tool: Tool) -> ToolShape:
    return tool_shape(tool)


@functools.cache
def tool_shapes(loader: str) -> Mapping[str, ToolShape]:
    """The shapes of `loaded_tools`, by name."""
    return shapes_of(loaded_tools(loader))
