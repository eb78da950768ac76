"""Full families over documents of seven formats: a report that moved, a tool that does not read a kind of file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from regrpo_jax.environments.faults import FaultKind
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.documents import FORMATS, document
from regrpo_jax.suites.toolrepair.draft import Ask, Draft
from regrpo_jax.suites.toolrepair.full_pictures import draw_label
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, STEMS, YEARS
from regrpo_jax.suites.toolrepair_tools.quoting import q

Faults = tuple[Mapping[str, Any], ...]
INSPECT, FIND, VALUE = "inspect_file_as_text", "find_lines", "json_value"


def fault(kind: FaultKind, target: str, **parameters: Any) -> Mapping[str, Any]:
    """A fault of every call, as the fields that `Fault.from_json` reads."""
    return {"kind": str(kind), "target": target, "parameters": parameters}


def numbers(rng: Random, count: int) -> list[str]:
    """Different numbers of four digits."""
    return [str(number) for number in rng.sample(range(1100, 9900), count)]


def report(rng: Random, ending: str, city: str, year: str, total: str) -> bytes:
    """A report with a total among other figures."""
    staff, area = rng.sample(range(11, 99), 2)
    facts = [("Staff", str(staff)), ("Total", total), ("Offices", str(area))]
    return document(ending, f"Report of {city} {year}", facts)


def moved(rng: Random, ask: Ask) -> Draft:
    """ArgInvalid: the report has another name; held out: it is empty and a copy is kept under another name.

    Difficulty: two, four or six reports; from 2 on some of the same city, of another year.
    """
    count = 2 * ask.difficulty
    cities, years = rng.sample(CITIES, count), rng.sample(YEARS, 2)
    city, year = cities[0], years[0]
    endings = [rng.choice(FORMATS) for _ in range(count)]
    ending = rng.choice([kind for kind in FORMATS if kind != endings[0]]) if ask.surprise else endings[0]
    totals = numbers(rng, count)
    about = [(cities[i], year) for i in range(count)]
    if ask.difficulty > 1:
        about[1] = (city, years[1])
    files = {
        f"{place.lower()}_{when}.{kind}": report(rng, kind, place, when, total)
        for (place, when), kind, total in zip(about, endings, totals, strict=True)
    }
    right = f"{city.lower()}_{year}.{endings[0]}"
    asked = right
    faults: Faults = ()
    tool = FIND if ask.held_out else INSPECT
    more = ("total",) if ask.held_out else ()
    repair = hasty = None
    if ask.surprise and ask.held_out:
        stem, dot, kind = right.rpartition(".")
        kept = f"copy_of_{stem}.{kind}"
        faults = (fault(FaultKind.EMPTY_FILE, right, copy=kept),)
        repair = Repair(ErrorType.ARG_INVALID, q(kept), (f"{q(right)} has 0 bytes",), f"open {q(kept)}",
                        call(tool, kept, *more))  # fmt: skip
    elif ask.surprise:
        asked = f"{city.lower()}_{year}.{ending}"
        fact = f"{q(right)} is of {city} {year}"
        repair = Repair(ErrorType.ARG_INVALID, q(right), (fact,), f"open {q(right)}", call(tool, right))
        first = min(files)
        if first != right:
            hasty = Repair(ErrorType.ARG_INVALID, q(first), (), f"open {q(first)}", call(tool, first))
    attempt = Attempt(f"I open the report of {city}.", call(tool, asked, *more), repair, hasty)
    kind = ("empty_file" if ask.held_out else "renamed_file") if ask.surprise else ""
    instruction = f"What is the total in the {year} report of {city}? The report is {q(asked)}; use {tool}."
    return Draft(instruction, files, Plan((attempt,), totals[0]), (*cities, year), kind, (), faults, "number")


def service(rng: Random, ask: Ask) -> Draft:
    """ToolMismatch: the tool that is named does not read this kind of file, or (difficulty 3) it is unavailable.

    Held out: the tool gives no answer in time, and says which other tool does.
    """
    stem, city, year, (total,) = rng.choice(STEMS), rng.choice(CITIES), rng.choice(YEARS), numbers(rng, 1)
    if ask.held_out:
        return _too_slow(ask, stem, city, total)
    kinds = ("picture", "document", "table") if ask.difficulty < 3 else ("unavailable",)
    kind = rng.choice(kinds)
    mismatch = ErrorType.TOOL_MISMATCH
    faults: Faults = ()
    ending = {"picture": "png", "table": "csv", "unavailable": rng.choice(("csv", "xlsx"))}.get(
        kind, rng.choice(("html", "docx", "pdf"))
    )
    name = f"{stem}_{city.lower()}.{ending}"
    images: tuple[str, ...] = ()
    table = "Sheet1" if ending == "xlsx" else name.partition(".")[0]
    sql = f"SELECT value FROM {table} WHERE item = 'Total'"
    if kind == "picture":
        content, images = draw_label([f"Notice of {city}", f"Total: {total}"]), (name,)
        good, bad, evidence = call("ocr", name), call(INSPECT, name), "is an image; read its text with ocr"
    elif kind == "document":
        content = report(rng, ending, city, year, total)
        good = call(INSPECT, name)
        bad, evidence = rng.choice(
            ((call("ocr", name), "is a document, not an image"), (call("table_query", name, sql), "is no table"))
        )
    elif kind == "table":
        content = report(rng, ending, city, year, total)
        good, bad, evidence = call("table_query", name, sql), call("ocr", name), "is a document, not an image"
    else:
        content = report(rng, ending, city, year, total)
        good, bad = call("table_query", name, sql), call(INSPECT, name)
        evidence = "Use table_query instead"
        if ask.surprise:
            faults = (fault(FaultKind.TOOL_UNAVAILABLE, INSPECT, reason="it is being updated", instead="table_query"),)
    tool = (bad if ask.surprise else good).partition("(")[0]
    repaired = good.partition("(")[0]
    repair = None
    if ask.surprise:
        fact = f"{q(name)} is a .{ending} file"
        repair = Repair(mismatch, evidence, (fact,), f"read it with {repaired}", good)
    # The name of the file tells which tool reads it, but not that a tool is unavailable.
    direct = good if ask.surprise and kind != "unavailable" else ""
    attempt = Attempt(f"I read {name}.", bad if ask.surprise else good, repair, direct=direct)
    surprise = ("tool_unavailable" if kind == "unavailable" else "wrong_tool") if ask.surprise else ""
    columns = f" Its table {q(table)} has the columns item and value." if kind in ("table", "unavailable") else ""
    instruction = f"Read the total in {q(name)} with {tool}. What is it?{columns}"
    plan = Plan((attempt,), total)
    return Draft(instruction, {name: content}, plan, (stem, city, kind), surprise, images, faults, "number")


def _too_slow(ask: Ask, stem: str, city: str, total: str) -> Draft:
    name = f"{stem}_{city.lower()}.json"
    content = json.dumps({city: {"Total": total}}, indent=1).encode()
    faults: Faults = ()
    repair = None
    if ask.surprise:
        advice = f"It is overloaded; {FIND} reads the same files."
        faults = (fault(FaultKind.TIMEOUT, VALUE, advice=advice),)
        good = call(FIND, name, "total")
        repair = Repair(ErrorType.TOOL_MISMATCH, advice, (f"{VALUE} is too slow",), f"read it with {FIND}", good)
    attempt = Attempt(f"I read {name}.", call(VALUE, name, f"{city}.Total"), repair)
    instruction = f"What is the total of {city} in {q(name)}? Use {VALUE} with the path {q(f'{city}.Total')}."
    plan = Plan((attempt,), total)
    return Draft(instruction, {name: content}, plan, (stem, city), "timeout" * ask.surprise, (), faults, "number")
