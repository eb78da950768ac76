"""A JSON Schema of an argument as what a policy is shown: types, choices, default and words; for any schema.

Nothing is refused here. What a schema says that has no form of ours (patterns, conditions) is left to the server, which
checks its arguments itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_TYPES = ("string", "integer", "number", "boolean", "array", "object", "null")
_PYTHON = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
           "null": "None"}  # fmt: skip
_DEEPEST = 4  # of what is told of objects in objects
_MOST_REFERENCES = 32
_WORDS = ("description", "title")


def argument(schema: Any, root: Mapping[str, Any], *, required: bool) -> dict[str, Any]:
    """An input as smolagents has them, with "enum" and "default" where the schema has them.

    root: the schema that holds it, for its references. Types name "null" where None is a value that may be given.
    """
    variants = list(_variants(schema, root))
    types = _types(variants)
    found: dict[str, Any] = {
        "type": types[0] if len(types) == 1 else types or "any",
        "description": _words(schema, variants, root),
    }
    choices = _choices(variants)
    if choices:
        found["enum"] = choices
    default = next((variant["default"] for variant in (*_own(schema), *variants) if "default" in variant), None)
    if default is not None:
        found["default"] = default
    return found if required else found | {"nullable": True}


def resolved(schema: Any, root: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its reference followed and all that `allOf` demands put together; {} for `true` and the like."""
    found = dict(schema) if isinstance(schema, Mapping) else {}
    for _ in range(_MOST_REFERENCES):
        reference = found.pop("$ref", None) or found.pop("$dynamicRef", None)
        if not isinstance(reference, str):
            break
        found = _at(reference, root) | found
    for part in _list(found.pop("allOf", None)):
        more = resolved(part, root) if part is not schema else {}
        properties = {**_mapping(more.get("properties")), **_mapping(found.get("properties"))}
        required = [*_list(more.get("required")), *_list(found.get("required"))]
        found = more | found
        if properties:
            found |= {"properties": properties, "required": required}
    return found


def _at(reference: str, root: Any) -> dict[str, Any]:
    """What a reference within the same document leads to; {} for any other."""
    if not reference.startswith("#"):
        return {}
    place = root
    for part in filter(None, reference[1:].split("/")):
        part = part.replace("~1", "/").replace("~0", "~")
        place = place.get(part) if isinstance(place, Mapping) else None
    return dict(place) if isinstance(place, Mapping) else {}


def _variants(schema: Any, root: Mapping[str, Any], depth: int = _DEEPEST) -> Iterator[dict[str, Any]]:
    """The alternatives of a schema, which is its only one without `anyOf` and `oneOf`."""
    found = resolved(schema, root)
    alternatives = [*_list(found.get("anyOf")), *_list(found.get("oneOf"))]
    if not alternatives or depth <= 0:
        yield found
        return
    outer: dict[str, Any] = {
        name: value for name, value in found.items() if name not in ("anyOf", "oneOf", *_WORDS, "default")
    }
    for one in alternatives:
        for variant in _variants(one, root, depth - 1):
            yield outer | {name: value for name, value in variant.items() if name != "title"}


def _types(variants: Sequence[dict[str, Any]]) -> list[str]:
    """Names of types, [] when any will do."""
    found: list[str] = []
    for variant in variants:
        declared = variant.get("type")
        names = [declared] if isinstance(declared, str) else [name for name in _list(declared)]
        if not names:
            names = _types_of_values(variant) or (["object"] if _mapping(variant.get("properties")) else [])
        if not names or any(name not in _TYPES for name in names):
            return []
        found += names
    return list(dict.fromkeys(found))


def _types_of_values(variant: Mapping[str, Any]) -> list[str]:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    values = [variant["const"]] if "const" in variant else _list(variant.get("enum"))
    return ["null" if value is None else kinds.get(type(value), "") for value in values]


def _choices(variants: Sequence[dict[str, Any]]) -> list[Any]:
    """All values that may be given; [] when they are not told one by one."""
    found: list[Any] = []
    for variant in variants:
        if "const" in variant:
            found.append(variant["const"])
        elif _list(variant.get("enum")):
            found += _list(variant["enum"])
        elif variant.get("type") == "null":
            found.append(None)
        else:
            return []
    if found == [None]:
        return []
    return [value for place, value in enumerate(found) if repr(value) not in map(repr, found[:place])]


def _words(schema: Any, variants: Sequence[dict[str, Any]], root: Mapping[str, Any]) -> str:
    said = next((str(part[name]) for part in (*_own(schema), *variants[:1]) for name in _WORDS if part.get(name)), "")
    inner = list(dict.fromkeys(filter(None, (_inside(variant, root, _DEEPEST) for variant in variants))))
    return "; ".join(filter(None, (said.strip().rstrip("."), *inner)))


def _inside(variant: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> str:
    """What the keys of an object, or the items of a list, are."""
    if depth <= 0:
        return ""
    properties = _mapping(variant.get("properties"))
    if properties:
        required = _list(variant.get("required"))
        keys = [f"{name!r}: {_shown(one, root, name in required, depth)}" for name, one in properties.items()]
        return f"with the keys {{{', '.join(keys)}}}"
    if isinstance(variant.get("items"), Mapping):
        item = _shown(variant["items"], root, True, depth)
        return "" if item == "any" else f"items: {item}"
    if isinstance(variant.get("additionalProperties"), Mapping):
        value = _shown(variant["additionalProperties"], root, True, depth)
        return "" if value == "any" else f"values: {value}"
    return ""


def _shown(schema: Any, root: Mapping[str, Any], required: bool, depth: int) -> str:
    variants = list(_variants(schema, root))
    choices = " | ".join(map(repr, _choices(variants)))
    text = choices or " | ".join(_PYTHON[name] for name in _types(variants)) or "any"
    default = next((f" = {part['default']!r}" for part in (*_own(schema), *variants) if "default" in part), "")
    inner = " or ".join(filter(None, (_inside(variant, root, depth - 1) for variant in variants)))
    said = next((str(part[name]) for part in _own(schema) for name in _WORDS[:1] if part.get(name)), "")
    about = "; ".join(filter(None, (said.strip().rstrip("."), inner)))
    return text + (default or ("" if required else ", may be left out")) + (f" ({about})" if about else "")


def _own(schema: Any) -> tuple[dict[str, Any], ...]:
    return (dict(schema),) if isinstance(schema, Mapping) else ()


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
