"""The task families of the compact corpus: what is asked, what is right and what goes wrong.

Each family is one skill a policy of a few million parameters can learn, and one of the paper's error types is
its natural failure. A task can be solved with the right first action from its text (and picture) alone. Names
are whole words that are always quoted, and each answer is one number of two digits, because a tiny policy
learns to copy those soonest.

Source: error types of ReGRPO (arXiv 2606.31392).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.engine.compact_cards import COLOURS, MARGINS, REGIONS, Card, Picture, draw_picture
from regrpo_jax.engine.compact_tools import NOTES_FILE
from regrpo_jax.records.types import ErrorType

PICTURE_FILE = "card.png"


@dataclass(frozen=True)
class Words:
    """The names tasks may speak of."""

    stems: tuple[str, ...]
    people: tuple[str, ...]
    cities: tuple[str, ...]
    years: tuple[str, ...]


# Test tasks use the shared words only: tasks made of the train-only words have no name in common with them.
SHARED_WORDS = Words(
    stems=("fox", "moon", "lake", "river", "stone", "tiger", "cedar", "pearl"),
    people=("Ann", "Bob", "Eve", "Dan", "Kim", "Leo"),
    cities=("Oslo", "Lima", "Rome", "Cairo", "Delhi"),
    years=("2011", "2012", "2013", "2014", "2015"),
)
TRAIN_ONLY_WORDS = Words(
    stems=("amber", "eagle", "storm", "coral"),
    people=("Max", "Pam", "Ray", "Sue"),
    cities=("Paris", "Quito", "Tokyo"),
    years=("2016", "2017", "2018"),
)


@dataclass(frozen=True)
class Call:
    """A tool call with text arguments, in the order of the tool's parameters."""

    tool: str
    arguments: tuple[str, ...]

    @property
    def code(self) -> str:
        """The call as Python source with double-quoted arguments."""
        return f"{self.tool}({', '.join(json.dumps(argument) for argument in self.arguments)})"


@dataclass(frozen=True)
class Failure:
    """A wrong action and how to reflect on it; `quote` stands word for word in the observation it earns."""

    error_type: ErrorType
    tool: str
    code: str
    quote: str
    short_plan: str
    long_plan: str


@dataclass(frozen=True)
class CompactTask:
    """A task and what its workspace holds; `call` is None where the answer is seen and not fetched."""

    family: str
    prompt: str
    call: Call | None
    answer: str
    files: tuple[tuple[str, str], ...]
    picture: Picture | None
    failure: Failure | None

    @property
    def key(self) -> tuple[str, ...]:
        """What makes two tasks the same to a policy that learns by heart; no key is in both splits."""
        return (self.family, self.prompt, self.call.code if self.call else repr(self.picture), self.answer)


def write_workspace(task: CompactTask, folder: Path) -> None:
    """Write the task's files into an existing empty folder; the OS's errors go through."""
    for name, text in task.files:
        (folder / name).write_text(text, encoding="utf-8")
    if task.picture is not None:
        draw_picture(task.picture).save(folder / PICTURE_FILE, format="PNG")


def _numbers(rng: random.Random, count: int) -> list[str]:
    return [str(number) for number in rng.sample(range(10, 100), count)]


def file_task(rng: random.Random, words: Words) -> CompactTask:
    """Read a value in a named text file; the failure opens a file that is not there (ArgInvalid)."""
    stems = rng.sample(words.stems, 3)
    endings = [rng.choice((".txt", ".md")) for _ in range(2)]
    names = [stem + ending for stem, ending in zip(stems[:2], endings, strict=True)]
    values = _numbers(rng, 2)
    right = Call("inspect_file_as_text", (names[0],))
    other_ending = ".md" if endings[0] == ".txt" else ".txt"
    bad_name = rng.choice((stems[0] + ".csv", stems[0] + other_ending, stems[2] + endings[0]))
    failure = Failure(
        ErrorType.ARG_INVALID,
        right.tool,
        Call(right.tool, (bad_name,)).code,
        quote=f'no file "{bad_name}"',
        short_plan=f'open "{names[0]}"',
        long_plan=f'the task says "{names[0]}", so open "{names[0]}"',
    )
    files = tuple((name, f'total "{value}"\n') for name, value in zip(names, values, strict=True))
    prompt = f'Read the total in "{names[0]}".'
    return CompactTask("file", prompt, right, values[0], files, None, failure)


def _draw_card(rng: random.Random) -> Picture:
    card = Card(rng.choice(list(COLOURS)), rng.choice(list(REGIONS)), rng.randint(*MARGINS), rng.randint(*MARGINS))
    return Picture(rng.randint(0, 50), (card,))


def card_task(rng: random.Random, words: Words) -> CompactTask:
    """Read the code of the card in a picture; the failure looks for another colour (GroundingDrift).

    The colour is not in the text: it has to be seen. Finding where a card is took a tiny policy from scratch longer
    than a quickstart lasts, naming its colour some 7,000 pictures.
    """
    picture, (value,) = _draw_card(rng), _numbers(rng, 1)
    colour = picture.cards[0].colour
    wrong = rng.choice([name for name in COLOURS if name != colour])
    failure = Failure(
        ErrorType.GROUNDING_DRIFT,
        "visualizer",
        Call("visualizer", (PICTURE_FILE, wrong)).code,
        quote="No object found",
        short_plan=f'the card is "{colour}"',
        long_plan=f'the card is not "{wrong}" but "{colour}", so look for "{colour}"',
    )
    sidecar = json.dumps({colour: value})
    right = Call("visualizer", (PICTURE_FILE, colour))
    prompt = f'Read the code of the card in "{PICTURE_FILE}".'
    return CompactTask("card", prompt, right, value, (("card.json", sidecar),), picture, failure)


def table_task(rng: random.Random, words: Words) -> CompactTask:
    """Look a person up in a table; the failure asks a tool that cannot read tables (ToolMismatch)."""
    stem, people, values = rng.choice(words.stems), rng.sample(words.people, 4), _numbers(rng, 4)
    table, person = f"{stem}.csv", people[0]
    rows = [f"{name},{value}" for name, value in zip(people[:3], values[:3], strict=True)]
    rng.shuffle(rows)
    note = f"{people[3]}, {rng.choice(words.cities)}, {rng.choice(words.years)}, {values[3]}"
    files = ((table, "\n".join(["name,pay", *rows]) + "\n"), (NOTES_FILE, note + "\n"))
    wrong, quote = rng.choice(
        (
            (Call("search", (person,)), f'No results found for "{person}"'),
            (Call("inspect_file_as_text", (table,)), f'"{table}" is a table'),
            (Call("visualizer", (table, rng.choice(list(COLOURS)))), f'"{table}" is no image'),
        )
    )
    failure = Failure(
        ErrorType.TOOL_MISMATCH,
        wrong.tool,
        wrong.code,
        quote=quote,
        short_plan=f'query "{table}"',
        long_plan=f'"{table}" is a table, so query "{person}" in "{table}"',
    )
    right = Call("table_query", (table, person))
    prompt = f'Look up the pay of "{person}" in "{table}".'
    return CompactTask("table", prompt, right, values[0], files, None, failure)


def note_task(rng: random.Random, words: Words) -> CompactTask:
    """Search a person in the notes; the failure leaves out the place or year that tells lines apart."""
    person, stranger = rng.sample(words.people, 2)
    cities, years, values = rng.sample(words.cities, 2), rng.sample(words.years, 2), _numbers(rng, 4)
    # Only the first line has the stated city (or year); the other detail of it is shared with a second line.
    by_city = rng.random() < 0.5
    places = [(cities[0], years[0]), (cities[1], years[0]), (cities[1], years[1])]
    if not by_city:
        places = [(cities[0], years[0]), (cities[0], years[1]), (cities[1], years[1])]
    lines = [f"{person}, {city}, {year}, {value}" for (city, year), value in zip(places, values[:3], strict=True)]
    lines.append(f"{stranger}, {cities[0]}, {years[0]}, {values[3]}")
    rng.shuffle(lines)
    detail = cities[0] if by_city else years[0]
    failure = Failure(
        ErrorType.INFO_INSUFFICIENT,
        "search",
        Call("search", (person,)).code,
        quote=f'"{detail}": 1',
        short_plan=f'add "{detail}"',
        long_plan=f'the task says "{detail}" and it has one line, so add "{detail}"',
    )
    files = ((NOTES_FILE, "\n".join(lines) + "\n"),)
    right = Call("search", (person, detail))
    prompt = f'Search the pay of "{person}" in "{detail}".'
    return CompactTask("note", prompt, right, values[0], files, None, failure)


def seeing_task(rng: random.Random) -> CompactTask:
    """A drill without a tool: say which colour the card is."""
    picture = _draw_card(rng)
    return CompactTask("seeing", "Which colour is the card?", None, picture.cards[0].colour, (), picture, None)


FAMILIES: dict[str, Callable[[random.Random, Words], CompactTask]] = {
    "file": file_task,
    "card": card_task,
    "table": table_task,
    "note": note_task,
}
