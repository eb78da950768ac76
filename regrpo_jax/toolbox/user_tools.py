"""A user's own tools: anything importable as "package.module:name" that is, or can become, a smolagents tool."""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from typing import Any

from smolagents.tools import Tool, tool

from regrpo_jax.errors import UserError

_DOCSTRING = "a function needs types for all arguments and its result, and a docstring that describes each argument"


def imported(reference: str) -> Any:
    """What "package.module:name" names. UserError when it cannot be had."""
    module_name, separator, name = reference.partition(":")
    if not (module_name and separator and name):
        raise UserError(f'user tool "{reference}": write "package.module:name"')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise UserError(
            f'user tool "{reference}": importing {module_name} failed: {type(error).__name__}: {error}'
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        public = ", ".join(known for known in sorted(vars(module)) if not known.startswith("_"))
        raise UserError(f'user tool "{reference}": {module_name} has no "{name}"; it has {public}') from error


def load_user_tool(reference: str) -> Tool:
    """The tool that `reference` names: a Tool, a Tool class (made without arguments), or a typed function.

    UserError for what cannot be imported or is none of these.
    """
    found = imported(reference)
    if isinstance(found, Tool):
        return _with_images(found)
    try:
        if inspect.isclass(found) and issubclass(found, Tool):
            return _with_images(found())
        if inspect.isfunction(found):
            return _with_images(tool(found))
    except Exception as error:  # smolagents raises five kinds, assertions among them
        words = str(error).split("\n")[0]
        raise UserError(f'user tool "{reference}" is no tool: {words} ({_DOCSTRING})') from error
    raise UserError(f'user tool "{reference}" is {type(found).__name__}; write a function, a Tool class or a Tool')


def _with_images(made: Tool) -> Tool:
    """The tool, what its types say are pictures called images: smolagents takes their type for a dict."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(type(made).forward))
    except Exception:  # of names that are imported for a type checker alone
        return made
    if made.output_type == "object" and _is_picture_type(hints.get("return")):
        made.output_type = "image"
    wanted = {
        name for name, told in made.inputs.items() if told["type"] == "object" and _is_picture_type(hints.get(name))
    }
    if wanted:
        made.inputs = {name: told | ({"type": "image"} if name in wanted else {}) for name, told in made.inputs.items()}
    return made


def _is_picture_type(hint: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and inspect.isclass(hint) and issubclass(hint, module.Image)
