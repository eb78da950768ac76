"""ArgInvalid: the right tool with a value that it cannot take: a name, path, number or key that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from regrpo_jax.engine.perturb.rule import Change, Rule, other_value
from regrpo_jax.engine.perturb.scene import Role, Scene, wanted_role
from regrpo_jax.engine.perturb.words import (
    DOCUMENT_ENDINGS,
    IMAGE_ENDINGS,
    file_names,
    listed_beside,
    stem_of,
    typing_errors,
    word_kind,
)
from regrpo_jax.records.types import ErrorType

_TABLES, _PICTURES = (".csv", ".tsv", ".xlsx", ".json"), (".png", ".jpg", ".jpeg", ".webp")
_TEXTS = (".pdf", ".docx", ".txt", ".html", ".md")
_FOLDERS = ("data", "files", "images")
_SQL_TEXT = re.compile(r"'([^']+)'")
_SQL_TABLE = re.compile(r"(?<=\bFROM )\w+", re.IGNORECASE)
_MOST_PIECES = 4
_COUNTED = frozenset(["page", "row", "column", "index", "line", "year", "sheet"])


def wrong_path(scene: Scene) -> Iterator[Change]:
    """A file under a name that is not there: another ending, folder or way of writing it, a typing error."""
    for _, argument in scene.given(Role.FILE):
        path = str(argument.value)
        for other in (*_other_endings(path), *_other_writings(path), *_mixed_names(scene, path)):
            if other not in scene.files and other != path:
                yield other_value(scene, argument, other)


def _other_endings(path: str) -> list[str]:
    ending = PurePosixPath(path).suffix
    alike = next((kind for kind in (_TABLES, _PICTURES, _TEXTS) if ending.lower() in kind), ())
    others = [path.removesuffix(ending) + other for other in alike if other != ending.lower()]
    return [*others, path.removesuffix(ending)] if ending in (*IMAGE_ENDINGS, *DOCUMENT_ENDINGS) else others


def _other_writings(path: str) -> list[str]:
    name = PurePosixPath(path).name
    stem, ending = stem_of(path), PurePosixPath(path).suffix
    found = [path.replace("_", "-"), path.replace("_", " "), path.replace("-", "_")]
    found += [path.replace(stem, other) for other in (stem.capitalize(), *typing_errors(stem)[:3]) if stem]
    found.append(name if name != path else f"{_FOLDERS[2 if ending in IMAGE_ENDINGS else 0]}/{path}")
    numbered = re.search(r"\d+", stem)
    if numbered:
        found += [path.replace(numbered[0], str(max(0, int(numbered[0][:9]) + step))) for step in (-1, 1)]
    return found


def _mixed_names(scene: Scene, path: str) -> list[str]:
    """Another file's stem with this ending."""
    stem, ending = stem_of(path), PurePosixPath(path).suffix
    return [stem_of(other) + ending for other in file_names(scene.situation) if stem_of(other) != stem]


def other_name(scene: Scene) -> Iterator[Change]:
    """A name that the task or an earlier step tells, in the place of the one that is wanted; of the same sort first."""
    for use, argument in (*scene.given(Role.NAME), *scene.given(Role.NUMBER)):
        value, given = argument.value, [one.value for one in use.arguments]
        if argument.shape.optional or not isinstance(value, str):
            continue
        others = [word for word in scene.told if word not in given and word_kind(word) != "file"]
        alike = [word for word in others if word_kind(word) == word_kind(value)]
        listed = listed_beside(value, argument.shape.description)
        yield from (other_value(scene, argument, other) for other in listed or alike or others)


def misspelled_name(scene: Scene) -> Iterator[Change]:
    """A name with a typing error, in other case or in the plural."""
    for _, argument in scene.given(Role.NAME):
        value = argument.value
        case = value.lower() if value != value.lower() else value.capitalize()
        for other in (case, *typing_errors(value), value + "s"):
            yield other_value(scene, argument, other)


def wrong_format(scene: Scene) -> Iterator[Change]:
    """The right thing written in another form: a month with a year, a file's ending with its stem, a unit."""
    for _, argument in (*scene.given(Role.NAME), *scene.given(Role.NUMBER), *scene.given(Role.REGION)):
        value = argument.value
        if not isinstance(value, str):
            continue
        kind = word_kind(value)
        if argument.role == Role.REGION:
            apart = re.sub(r"(?i)(top|low|bottom|upper|lower)(?=left|right)", r"\1 ", value)
            initials = "".join(word[0] for word in value.split())
            others = [apart] if apart != value else [initials] if len(initials) > 1 else []
        elif kind == "year":
            others = [f"{value}-01", f"{value}/01/01", f"{value[2:]}"]
        elif kind == "number":
            others = [f"{value}.", f"{value} units", f"about {value}", f"number {value}"]
        else:
            others = [name for name in scene.files if stem_of(name) == value]
            others += [f"{value}.txt"] if kind == "name" and not others else []
        yield from (other_value(scene, argument, other) for other in others)


def wrong_number(scene: Scene) -> Iterator[Change]:
    """A number that is off by one, counted from 1 in the place of 0, or far too large."""
    for _, argument in scene.given(Role.NUMBER):
        value = argument.value
        if isinstance(value, int) and abs(value) < 1e9:
            yield from (other_value(scene, argument, other) for other in (value + 1, value - 1, value + 100))
        elif isinstance(value, str) and argument.shape.name in _COUNTED and value.isdecimal() and len(value) < 9:
            yield from (other_value(scene, argument, str(int(value) + step)) for step in (1, -1))


def wrong_key(scene: Scene) -> Iterator[Change]:
    """A key inside an argument that is not there: of a path of keys, a table's name, a text that SQL compares with."""
    for _, argument in scene.given(Role.SQL):
        for pattern in (_SQL_TEXT, _SQL_TABLE):
            for match in list(pattern.finditer(argument.value))[:_MOST_PIECES]:
                word = match.group(1) if pattern is _SQL_TEXT else match.group()
                for other in _other_keys(scene, word):
                    if other.lower() == word.lower() and pattern is _SQL_TABLE:
                        continue  # SQL does not mind
                    changed = argument.value[: match.start()] + match.group().replace(word, other)
                    yield Change(scene.with_value(argument, changed + argument.value[match.end() :]), word, other)
    for _, argument in scene.given(Role.NAME):
        pieces = argument.value.split(".")
        for place, piece in enumerate(pieces[:_MOST_PIECES]):
            for other in _other_keys(scene, piece) if len(pieces) > 1 and piece else ():
                yield other_value(scene, argument, ".".join([*pieces[:place], other, *pieces[place + 1 :]]))


def _other_keys(scene: Scene, word: str) -> list[str]:
    told = [other for other in scene.told if word_kind(other) == word_kind(word)]
    case = word.lower() if word != word.lower() else word.capitalize()
    return [
        other for other in (*told, case, word + "s", *typing_errors(word)[:2]) if other != word and "'" not in other
    ]


def wrong_type(scene: Scene) -> Iterator[Change]:
    """A list, a number or a text where another of them is wanted."""
    for use in scene.uses:
        for argument in use.arguments:
            value = argument.value
            if argument.span is None or argument.role in (Role.FLAG, Role.BOX):
                continue
            if isinstance(value, str):
                number = value.isascii() and value.isdigit() and len(value) < 9
                yield Change(scene.with_value(argument, int(value) if number else [value]))
            elif isinstance(value, int | float):
                yield Change(scene.with_value(argument, str(value)))
                yield Change(scene.with_value(argument, [value]))


def unknown_keyword(scene: Scene) -> Iterator[Change]:
    """An argument under a name that the tool does not know, but another tool does."""
    tools = scene.situation.tools.values()
    for use in scene.uses:
        own = {one.name for one in use.tool.arguments}
        positional = [one for one in use.arguments if not one.keyword and not one.text.startswith("*")]
        for place, argument in enumerate(use.arguments):
            if argument.keyword == "**" or (not argument.keyword and argument not in positional[-1:]):
                continue
            role = wanted_role(argument.shape)
            named = [one.name for tool in tools for one in tool.arguments if wanted_role(one) == role != Role.NAME]
            for name in dict.fromkeys((*_SYNONYMS.get(argument.shape.name, ("name",)), *named)):
                if name and name not in own and name.isidentifier():
                    sources = [one.source for one in use.arguments]
                    sources[place] = f"{name}={argument.text}"
                    yield Change(scene.with_arguments(use, sources))


_SYNONYMS = {
    "file_path": ("path", "file", "filename"), "image": ("image_path", "picture"), "image_path": ("image", "path"),
    "query": ("question", "q"), "question": ("query", "prompt"), "region": ("area", "bbox"), "bbox": ("box", "region"),
    "text": ("object", "label"), "object": ("text", "label"), "name": ("file", "title"), "sql": ("query",),
    "expression": ("formula",), "person": ("name", "who"), "topic": ("name", "about"), "vote": ("value", "number"),
    "first": ("a", "x"), "second": ("b", "y"), "colour": ("color", "hue"), "city": ("name", "place"),
}  # fmt: skip


def missing_argument(scene: Scene) -> Iterator[Change]:
    """One of the arguments that must be there is left out."""
    for use in scene.uses:
        for argument in use.arguments:
            if argument.shape.optional or argument.keyword == "**":
                continue
            rest = [other.source for other in use.arguments if other is not argument]
            yield Change(scene.with_arguments(use, rest))


def other_file(scene: Scene) -> Iterator[Change]:
    """Another file of the workspace, by its name or by its stem."""
    for _, argument in scene.given(Role.FILE):
        yield from (other_value(scene, argument, other) for other in scene.files)
    stems = [stem_of(name) for name in scene.files]
    for _, argument in scene.given(Role.NAME):
        yield from (other_value(scene, argument, other) for other in stems if argument.value in stems)


_ARGUMENT = ErrorType.ARG_INVALID
RULES = (
    Rule("wrong_path", _ARGUMENT, wrong_path),
    Rule("other_name", _ARGUMENT, other_name, asks=True),
    Rule("wrong_key", _ARGUMENT, wrong_key, asks=True),
    Rule("misspelled_name", _ARGUMENT, misspelled_name, asks=True),
    Rule("wrong_format", _ARGUMENT, wrong_format),
    Rule("wrong_type", _ARGUMENT, wrong_type),
    Rule("unknown_keyword", _ARGUMENT, unknown_keyword),
    Rule("missing_argument", _ARGUMENT, missing_argument),
    Rule("wrong_number", _ARGUMENT, wrong_number, rare=True, asks=True),
    Rule("other_file", _ARGUMENT, other_file, rare=True, asks=True),
)
