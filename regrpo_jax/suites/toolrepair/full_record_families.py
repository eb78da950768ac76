"""Full families over records: an ambiguous name, a table whose columns are called otherwise, a figure to commit to."""

from __future__ import annotations

import json
from random import Random

from regrpo_jax.environments.faults import FaultKind
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.documents import FORMATS, TABLE_FORMATS, document, table
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, rows_file
from regrpo_jax.suites.toolrepair.full_document_families import INSPECT, VALUE, Faults, fault, numbers
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS, YEARS
from regrpo_jax.suites.toolrepair_tools.full_tools import APPROVALS
from regrpo_jax.suites.toolrepair_tools.full_toolset import LIBRARY
from regrpo_jax.suites.toolrepair_tools.quoting import q

SURNAMES = ("Berg", "Costa", "Diaz", "Evans", "Fischer", "Gupta", "Hansen", "Ito")
TRADES = ("painter", "lawyer", "baker", "pilot", "nurse", "miller")


def search(rng: Random, ask: Ask) -> Draft:
    """InfoInsufficient: several pages fit a name. Held out: the value is stale, and the tool wants refresh=True.

    Difficulty: how many people of that name there are (two, three, four), with others around.
    """
    name = f"{rng.choice(PEOPLE)} {rng.choice(SURNAMES)}"
    if ask.held_out:
        return _stale(rng, ask, name)
    count = ask.difficulty + 1
    trades, cities, pays = rng.sample(TRADES, count), rng.sample(CITIES, count), numbers(rng, count + 2)
    others = [f"{first} {last}" for first, last in zip(rng.sample(PEOPLE, 2), rng.sample(SURNAMES, 2), strict=True)]
    pages = [
        {"title": f"{name} ({trades[i]})", "text": f"{name} works in {cities[i]} as a {trades[i]} and earns {pays[i]}."}
        for i in range(count if ask.surprise else 1)
    ]
    pages += [
        {"title": f"{other} (clerk)", "text": f"{other} works in {cities[-1]} as a clerk and earns {pay}."}
        for other, pay in zip(others, pays[count:], strict=True)
        if other != name
    ]
    rng.shuffle(pages)
    files = {LIBRARY: "".join(json.dumps(page) + "\n" for page in pages).encode()}
    repair = hasty = None
    if ask.surprise:
        title, wrong = f"{name} ({trades[0]})", f"{name} ({trades[1]})"
        insufficient = ErrorType.INFO_INSUFFICIENT
        repair = Repair(insufficient, q(title), (f"the {trades[0]} is meant",), f"add {q(trades[0])}",
                        call("ask_search_agent", f"{name} {trades[0]}"))  # fmt: skip
        hasty = Repair(
            insufficient, q(wrong), (), f"add {q(trades[1])}", call("ask_search_agent", f"{name} {trades[1]}")
        )
    attempt = Attempt(f"I search for {name}.", call("ask_search_agent", name), repair, hasty)
    instruction = f"How much does {name}, the {trades[0]}, earn? Use ask_search_agent."
    plan = Plan((attempt,), pays[0])
    kind = "ambiguous_query" * ask.surprise
    return Draft(instruction, {}, plan, (name, *trades), kind, answer_kind="number", behind=files)


def _stale(rng: Random, ask: Ask, name: str) -> Draft:
    others = [f"{first} {last}" for first, last in zip(rng.sample(PEOPLE, 4), rng.sample(SURNAMES, 4), strict=True)]
    others = [other for other in others if other != name][: ask.difficulty + 1]
    pay, old, *pays = numbers(rng, len(others) + 2)
    city = rng.choice(CITIES)
    rows = [(name, city, pay), *((other, rng.choice(CITIES), one) for other, one in zip(others, pays, strict=True))]
    rng.shuffle(rows)
    faults: Faults = ()
    repair = None
    if ask.surprise:
        value = f"name: {name}\ncity: {city}\npay: {old}"
        faults = (fault(FaultKind.STALE_VALUE, "lookup", value=value, since="2019-05", raises=True),)
        evidence = "call again with refresh=True"
        good = f'lookup("staff.csv", "{name}", refresh=True)'
        repair = Repair(ErrorType.INFO_INSUFFICIENT, evidence, (f"{old} is stale",), "add refresh=True", good)
    attempt = Attempt(f"I look {name} up.", call("lookup", "staff.csv", name), repair)
    files = {"staff.csv": rows_file([("name", "city", "pay"), *rows])}
    instruction = f"What is the present pay of {name} in {q('staff.csv')}? Use lookup."
    kind = "stale_value" * ask.surprise
    plan = Plan((attempt,), pay)
    return Draft(instruction, {}, plan, (name, city, *others), kind, (), faults, "number", behind=files)


def sheet(rng: Random, ask: Ask) -> Draft:
    """CodeError: the SQL names a column that is not there. Held out: a text that is no number, because of its unit.

    Difficulty 1: one column of pay. 2: one for each of two years. 3: a sum over a city.
    """
    if ask.held_out:
        return _not_a_number(rng, ask)
    ending, (city, city2), years = rng.choice(TABLE_FORMATS), rng.sample(CITIES, 2), rng.sample(YEARS, 2)
    people, pays = rng.sample(PEOPLE, 4), [int(number) for number in numbers(rng, 8)]
    column = "pay" if ask.difficulty == 1 else f"pay_{years[0]}"
    real = column
    if ask.surprise:
        real = rng.choice(("salary", "wage", "income")) + ("" if ask.difficulty == 1 else f"_{years[0]}")
    second = real.replace(years[0], years[1])
    header = ["name", "city", real, *([second] if second != real else [])]
    places = [city, city2, city, city2]
    rows: list[tuple[str | int, ...]] = []
    for i in range(4):
        rows.append((people[i], places[i], *pays[2 * i : 2 * i + len(header) - 2]))
    rng.shuffle(rows)
    stem = rng.choice(STEMS)
    name = f"{stem}.{ending}"
    what, where = "{}", f"name = '{people[0]}'"
    answer, asked = pays[0], f"the {column} of {people[0]}"
    if ask.difficulty == 3:
        what, where = "SUM({})", f"city = '{city}'"
        answer, asked = pays[0] + pays[4], f"the sum of {column} in {city}"

    def query(name_of_column: str) -> str:
        return call("table_query", name, f"SELECT {what.format(name_of_column)} FROM {stem} WHERE {where}")

    repair = hasty = None
    if ask.surprise:
        wrong, evidence = ErrorType.CODE_ERROR, ", ".join(header)
        fact = f"{column} is called {real}"
        repair = Repair(wrong, evidence, (f"no such column: {column}", fact), f"select {real}", query(real))
        if second != real:
            hasty = Repair(wrong, evidence, (), f"select {second}", query(second))
    attempt = Attempt("I query the table.", query(column), repair, hasty)
    files = {name: table(ending, header, rows, stem)}
    instruction = f"What is {asked} in the table {q(stem)} of {q(name)}? Use table_query."
    kind = "missing_column" * ask.surprise
    return Draft(instruction, files, Plan((attempt,), str(answer)), (stem, *people, city), kind, answer_kind="number")


def _not_a_number(rng: Random, ask: Ask) -> Draft:
    stem, people = rng.choice(STEMS), rng.sample(PEOPLE, 2 + ask.difficulty)
    pays = dict(zip(people, numbers(rng, len(people)), strict=True))
    person, months, unit = people[0], rng.randint(3, 11), rng.choice(("EUR", "CHF", "NOK"))
    record = {name: f"{pay} {unit}" if ask.surprise else pay for name, pay in sorted(pays.items())}
    name, path = f"{stem}.json", f"pay.{person}"
    repair = None
    if ask.surprise:
        fix = f"cut off {unit}"
        good = f"int({call(VALUE, name, path)}.split()[0]) * {months}"
        repair = Repair(ErrorType.CODE_ERROR, f"{pays[person]} {unit}", ("int wants digits alone",), fix, good)
    attempt = Attempt("I read and multiply.", f"int({call(VALUE, name, path)}) * {months}", repair)
    instruction = f"How much does {person} earn in {months} months? {q(name)} has {q(path)}; use {VALUE}."
    files = {name: json.dumps({"pay": record}, indent=1).encode()}
    plan = Plan((attempt,), str(int(pays[person]) * months))
    return Draft(instruction, files, plan, (stem, *people), "wrong_type" * ask.surprise, answer_kind="number")


def ballot(rng: Random, ask: Ask) -> Draft:
    """NonCommit: the minutes give a figure in several versions and the action submits them all.

    Difficulty: two, three or four versions. Held out: another tool, and the refusal names what was withdrawn.
    """
    count = 2 if ask.held_out else ask.difficulty + 1
    ending = rng.choice([kind for kind in FORMATS if ask.difficulty > 1 or kind in ("txt", "html", "docx", "pdf")])
    stem, city, figures = rng.choice(STEMS), rng.choice(CITIES), numbers(rng, count)
    letters = "ABCD"[:count]
    right = rng.randrange(count)
    name = f"minutes_{stem}.{ending}"
    shown = list(zip(letters, figures, strict=True)) if ask.surprise else [(letters[right], figures[right])]
    facts = [("Meeting", city), *((f"Version {letter}", figure) for letter, figure in shown)]
    files = {name: document(ending, f"Minutes on {stem}", facts)}
    look, decide = ("find_lines", "sign_off") if ask.held_out else (INSPECT, "submit_figure")
    if ask.held_out:
        told = {letters[1 - right]: "withdrawn"}
        evidence = f"Version {letters[1 - right]} was withdrawn"
    else:
        told = {letters[right]: "approved"}
        evidence = f"Version {letters[right]} was approved"
    approvals = {APPROVALS: json.dumps(told).encode()}
    repair = hasty = None
    if ask.surprise:
        fact = f"Version {letters[right]} says {figures[right]}"
        non_commit, good = ErrorType.NON_COMMIT, call(decide, figures[right])
        repair = Repair(non_commit, evidence, (fact,), f"give {figures[right]} alone", good)
        if right:
            hasty = Repair(non_commit, evidence, (), f"give {figures[0]} alone", call(decide, figures[0]))
    undecided = " or ".join(figure for _, figure in shown)
    looked = call(look, name, "version") if ask.held_out else call(look, name)
    attempts = (
        Attempt("I read the minutes.", looked),
        Attempt("I give the figure.", call(decide, undecided), repair, hasty),
    )
    kind = ("left_out" if ask.held_out else "undecided") if ask.surprise else ""
    instruction = (
        f"Find the version of the figure on {stem} in {q(name)} with {look}, give it to {decide}, and answer with what "
        "was accepted."
    )
    plan = Plan(attempts, figures[right])
    return Draft(instruction, files, plan, (stem, city, *figures), kind, answer_kind="number", behind=approvals)
