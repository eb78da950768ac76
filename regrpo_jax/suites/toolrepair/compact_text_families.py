"""Compact families over texts: a note that moved, a tool that does not do a format, a search with too little in it."""

from __future__ import annotations

import json
from random import Random

from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, database_file, rows_file
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS, TEAMS, YEARS, values
from regrpo_jax.suites.toolrepair_tools.compact_tools import (
    DESKS,
    HELD_OUT_OPENERS,
    OPENERS,
    PEOPLE_DATABASE,
    PLACES,
)
from regrpo_jax.suites.toolrepair_tools.quoting import q


def moved(rng: Random, ask: Ask) -> Draft:
    """ArgInvalid: the note is not there (held out: it is blank), and the message says who has what where.

    Difficulty 1: the city's note is told. 2, 3: the city's person and that person's note, two hops.
    """
    tool = "unfold" if ask.held_out else "read"
    count = 2 if ask.difficulty < 3 else 3
    asked, *stems = rng.sample(STEMS, count + 1)
    cities, people, totals = rng.sample(CITIES, count), rng.sample(PEOPLE, count), values(rng, count)
    right = rng.randrange(count)
    city, stem = cities[right], stems[right]
    two_hops = ask.difficulty > 1
    owners = people if two_hops else cities
    files = {f"{stems[i]}.txt": f"by {owners[i]}\ntotal {totals[i]}\n".encode() for i in range(count)}
    if two_hops:
        files[PLACES] = rows_file(rng.sample(list(zip(cities, people, strict=True)), count))
    repair = hasty = None
    if ask.surprise:
        files |= {f"{asked}.txt": b"\n"} if ask.held_out else {}
        at = f"{q(owners[right])} at {q(stem)}"
        evidence, facts = (f"{q(city)} is {q(people[right])}", (at,)) if two_hops else (at, ())
        repair = Repair(ErrorType.ARG_INVALID, evidence, facts, f"use {q(stem)}", call(tool, stem))
        first = min(range(count), key=lambda i: stems[i])
        if first != right:
            at = f"{q(owners[first])} at {q(stems[first])}"
            hasty = Repair(ErrorType.ARG_INVALID, at, (), f"use {q(stems[first])}", call(tool, stems[first]))
    else:
        files[f"{asked}.txt"] = f"total {totals[right]}\n".encode()
    plan = Plan((Attempt("open it.", call(tool, asked), repair, hasty),), totals[right])
    kind = ("empty_file" if ask.held_out else "missing_file") if ask.surprise else ""
    instruction = f"Get the total of {q(asked)} for {q(city)}, with {q(tool)}."
    return Draft(instruction, {}, plan, (asked, *stems, *cities), kind, behind=files)


def _in_format(ending: str, total: str) -> bytes:
    text = {
        "csv": f"kind,total\nsheet,{total}\n",
        "tsv": f"kind\ttotal\nsheet\t{total}\n",
        "json": json.dumps({"total": int(total)}),
        "xml": f'<sheet total="{total}"/>',
        "html": f"<p>total</p><p>{total}</p>",
        "ini": f"[sheet]\ntotal = {total}\n",
        "log": f"INFO start\nINFO total={total}\n",
    }[ending]
    return text.encode()


def service(rng: Random, ask: Ask) -> Draft:
    """ToolMismatch: the tool named does not do the file's format; the message says which tool does which.

    Difficulty: one, two or three tools to choose from. Held out: other tools and formats, and the tool garbles.
    """
    formats = ("tsv", "ini", "log") if ask.held_out else ("csv", "json", "xml", "html")
    count = ask.difficulty
    tools = rng.sample(HELD_OUT_OPENERS if ask.held_out else OPENERS, count + 1)
    endings, stem, (total,) = rng.sample(formats, count), rng.choice(STEMS), values(rng, 1)
    right = rng.randrange(count)
    asked, good, ending = tools[count], tools[right], endings[right]
    desks = list(zip(endings, tools, strict=False))
    if not ask.surprise:
        desks[right] = (ending, asked)
    files = {f"{stem}.{ending}": _in_format(ending, total), DESKS: rows_file(desks)}
    repair = hasty = None
    if ask.surprise:
        mismatch = ErrorType.TOOL_MISMATCH
        pair = f"{q(ending)} in {q(good)}"
        evidence, facts = (f"{q(stem)} is {q(ending)}", (pair,))
        repair = Repair(mismatch, evidence, facts, f"use {q(good)}", call(good, stem))
        if right:
            hasty = Repair(
                mismatch, f"{q(endings[0])} in {q(tools[0])}", (), f"use {q(tools[0])}", call(tools[0], stem)
            )
    plan = Plan((Attempt("call it.", call(asked, stem), repair, hasty),), total)
    kind = ("garbled_output" if ask.held_out else "tool_unavailable") if ask.surprise else ""
    instruction = f"Get the total of {q(stem)}, with {q(asked)}."
    return Draft(instruction, {}, plan, (stem, asked, *tools, *endings), kind, behind=files)


def search(rng: Random, ask: Ask) -> Draft:
    """InfoInsufficient: several rows fit the name; the message counts the details (held out: says what is stale)."""
    return _stale(rng, ask) if ask.held_out else _ambiguous(rng, ask)


def _ambiguous(rng: Random, ask: Ask) -> Draft:
    """Difficulty 1: city and year. 2: a team as well. 3: a fourth row. One detail of the task has one row."""
    person, (city, city2, city3), (year, year2, year3) = rng.choice(PEOPLE), rng.sample(CITIES, 3), rng.sample(YEARS, 3)
    team, team2 = rng.sample(TEAMS, 2) if ask.difficulty > 1 else ("", "")
    pays = values(rng, 4)
    details = [city, year, *([team] if team else [])]
    unique = rng.randrange(len(details))
    others = [city2, year2, team2]
    # Each of the task's details but the unique one is shared with the second row.
    second = tuple(others[i] if i == unique else word for i, word in enumerate((city, year, team)))
    rows = [(city, year, team), second, (city3, year3, team2), (city3, year2, team2)][: 4 if ask.difficulty > 2 else 3]
    rows = rows if ask.surprise else rows[:1]
    table = [(person, *row, pay) for row, pay in zip(rows, pays, strict=False)]
    rng.shuffle(table)
    files = {PEOPLE_DATABASE: database_file("name, city, year, team, pay", "people", table)}
    repair = hasty = None
    if ask.surprise:
        insufficient, word = ErrorType.INFO_INSUFFICIENT, details[unique]
        evidence = f"1 in {q(word)}"
        repair = Repair(insufficient, evidence, (), f"add {q(word)}", call("search", person, word))
        wrong = details[unique - 1]
        hasty = Repair(insufficient, f"2 in {q(wrong)}", (), f"add {q(wrong)}", call("search", person, wrong))
    plan = Plan((Attempt("search.", call("search", person), repair, hasty),), pays[0])
    asked = ", ".join(map(q, details))
    names = (person, city, city2, city3, year, year2)
    instruction = f"Search the pay of {q(person)}, {asked}."
    return Draft(instruction, {}, plan, names, "ambiguous_query" * ask.surprise, behind=files)


def _stale(rng: Random, ask: Ask) -> Draft:
    person, years, pays = rng.choice(PEOPLE), rng.sample(YEARS, ask.difficulty + 1), values(rng, ask.difficulty + 1)
    right = rng.randrange(1, ask.difficulty + 1) if ask.surprise else 0
    table = [
        (person, year, "valid" if at == right else "stale", pay)
        for at, (year, pay) in enumerate(zip(years, pays, strict=True))
    ]
    files = {PEOPLE_DATABASE: database_file("name, year, state, pay", "terms", table)}
    repair = None
    if ask.surprise:
        year = years[right]
        evidence = f"{q(year)} is valid"
        repair = Repair(ErrorType.INFO_INSUFFICIENT, evidence, (), f"add {q(year)}", call("consult", person, year))
    plan = Plan((Attempt("consult.", call("consult", person), repair),), pays[right])
    instruction = f"Consult the valid pay of {q(person)}."
    return Draft(instruction, {}, plan, (person, *years), "stale_value" * ask.surprise, behind=files)
