"""A full family of chains: a badge is read, its person looked up, the figure computed with, a bonus added."""

from __future__ import annotations

from random import Random

from regrpo_jax.environments.faults import FaultKind
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.documents import TABLE_FORMATS, document, table
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, rows_file
from regrpo_jax.suites.toolrepair.full_document_families import INSPECT, Faults, fault, numbers
from regrpo_jax.suites.toolrepair.full_pictures import draw_label
from regrpo_jax.suites.toolrepair.full_record_families import SURNAMES
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS
from regrpo_jax.suites.toolrepair_tools.quoting import q

BADGE = "badge.png"
_OTHERS = ("docx", "pdf", "html", "txt")


def chain(rng: Random, ask: Ask) -> Draft:
    """2, 3 or 4 tools (by difficulty), one of which surprises: the picture decides what is looked up.

    ArgInvalid where the table has another name, CodeError where its column has, ToolMismatch where a document is no
    picture. Held out: a value in another unit, and solver for the sum.
    """
    names = [f"{first} {last}" for first, last in zip(rng.sample(PEOPLE, 3), rng.sample(SURNAMES, 3), strict=True)]
    city, pays = rng.choice(CITIES), [int(number) for number in numbers(rng, 3)]
    badge = {BADGE: draw_label([f"Name: {names[0]}", f"City: {city}"])}
    read = Attempt("I read the badge.", call("ocr", BADGE))
    if ask.held_out:
        return _in_another_unit(rng, ask, names, city, pays, badge, read)
    stem, stem2 = rng.sample(STEMS, 2)
    ending, months, rate = rng.choice(TABLE_FORMATS), rng.randint(3, 11), rng.randint(2, 9)
    name, other = f"{stem}.{ending}", f"{stem2}.{rng.choice(_OTHERS)}"
    hop = rng.choice(("name", "column", "tool")[: 3 if ask.difficulty > 2 else 2]) if ask.surprise else ""
    column = "wage" if hop == "column" else "pay"
    rows = [(person, pay) for person, pay in zip(names, pays, strict=True)]
    rng.shuffle(rows)
    asked = f"{stem}.{next(kind for kind in TABLE_FORMATS if kind != ending)}" if hop == "name" else name

    def query(file: str, wanted: str) -> str:
        return call("table_query", file, f"SELECT {wanted} FROM {stem} WHERE name = '{names[0]}'")

    repair = None
    if hop == "name":
        fact = f"{q(asked)} is not there"
        repair = Repair(ErrorType.ARG_INVALID, q(name), (fact,), f"open {q(name)}", query(name, "pay"))
    elif hop == "column":
        fact = "pay is called wage"
        repair = Repair(ErrorType.CODE_ERROR, "(name, wage)", (fact,), "select wage", query(name, "wage"))
    attempts = [read, Attempt("I look the pay up.", query(asked, "pay"), repair)]
    files = badge | {name: table(ending, ("name", column), rows, stem)}
    answer, wanted = pays[0], f"the pay of the person on {q(BADGE)}"
    if ask.difficulty > 1:
        answer *= months
        wanted += f" for {months} months"
    if ask.difficulty > 2:
        files[other] = document(other.rpartition(".")[2], f"Rates of {city}", [("Bonus", str(rate))])
        good, bad = call(INSPECT, other), call("ocr", other)
        mismatch = None
        if hop == "tool":
            evidence = "is a document, not an image"
            mismatch = Repair(ErrorType.TOOL_MISMATCH, evidence, (), f"read it with {INSPECT}", good)
        attempts.append(Attempt("I read the bonus.", bad if mismatch else good, mismatch))
        answer += rate
        wanted += f", plus the bonus in {q(other)}" + (", read with ocr" if hop == "tool" else "")
    if ask.difficulty > 1:
        sum_ = f"{pays[0]} * {months}" + (f" + {rate}" if ask.difficulty > 2 else "")
        attempts.append(Attempt("I compute.", call("calculator", sum_)))
    kinds = {"name": "renamed_file", "column": "missing_column", "tool": "wrong_tool"}
    instruction = f"What is {wanted}? The pay is in the table {q(stem)} of {q(asked)}."
    key = (*names, city, stem)
    plan = Plan(tuple(attempts), str(answer))
    return Draft(instruction, files, plan, key, kinds.get(hop, ""), (BADGE,), answer_kind="number")


def _in_another_unit(
    rng: Random, ask: Ask, names: list[str], city: str, pays: list[int], badge: dict[str, bytes], read: Attempt
) -> Draft:
    months = rng.randint(3, 11)
    rows = list(zip(names, pays, strict=True))
    rng.shuffle(rows)
    faults: Faults = ()
    repair = None
    unit, wanted, factor = rng.choice((("cents", "euros", 100), ("øre", "kroner", 100), ("pence", "pounds", 100)))
    if ask.surprise:
        parameters = {"unit": unit, "wanted": wanted, "factor": factor, "raises": True}
        faults = (fault(FaultKind.WRONG_UNIT, "lookup", **parameters),)
        evidence = f'call again with unit="{wanted}"'
        good = f'lookup("pay.csv", "{names[0]}", unit="{wanted}")'
        repair = Repair(ErrorType.INFO_INSUFFICIENT, evidence, (f"it is in {unit}",), f"ask for {wanted}", good)
    attempts = [read, Attempt("I look the pay up.", call("lookup", "pay.csv", names[0]), repair)]
    answer, asked = pays[0], f"the pay of the person on {q(BADGE)}"
    if ask.difficulty > 1:
        answer *= months
        asked += f" for {months} months"
        attempts.append(Attempt("I compute.", call("solver", f"x = {pays[0]} * {months}")))
    instruction = f"What is {asked}, in {wanted}? Look the pay up in {q('pay.csv')} with lookup" + (
        ", and compute with solver." if ask.difficulty > 1 else "."
    )
    register = {"pay.csv": rows_file([("name", "pay"), *rows])}
    kind, plan = "wrong_unit" * ask.surprise, Plan(tuple(attempts), str(answer))
    return Draft(instruction, badge, plan, (*names, city), kind, (BADGE,), faults, "number", behind=register)
