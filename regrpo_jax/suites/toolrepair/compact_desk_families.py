"""Compact families over records: a key that is not there, a vote that must be decided, chains of two to four tools."""

from __future__ import annotations

import json
from random import Random

from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, rows_file
from regrpo_jax.suites.toolrepair.plan import Attempt, Plan, Repair, call
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS, values
from regrpo_jax.suites.toolrepair_tools.compact_desk_tools import FEES, MOVES, OWNERS, RULES, TOTALS, UNITS, VOTES
from regrpo_jax.suites.toolrepair_tools.quoting import q

MEANINGS = ("pay", "rent", "bonus", "tax")
KEYS = ("alpha", "beta", "gamma", "delta", "kappa", "sigma")
UNIT_WORDS = ("bag", "box", "crate")


def sheet(rng: Random, ask: Ask) -> Draft:
    """CodeError: the record has no such key, and the message says which key stands for what.

    Difficulty: one, two or three keys. Held out: the text of a note is no number, because of its unit.
    """
    if ask.held_out:
        return _note(rng, ask)
    stem, meanings, keys = rng.choice(STEMS), rng.sample(MEANINGS, ask.difficulty), rng.sample(KEYS, ask.difficulty)
    numbers = values(rng, ask.difficulty)
    right = rng.randrange(ask.difficulty)
    meaning, key = meanings[right], keys[right]
    repair = hasty = None
    if ask.surprise:
        evidence, wrong = f"{q(meaning)} in {q(key)}", ErrorType.CODE_ERROR
        repair = Repair(wrong, evidence, (), f"use {q(key)}", f"{call('sheet', stem)}[{q(key)}]")
        if right:
            evidence, guess = f"{q(meanings[0])} in {q(keys[0])}", keys[0]
            hasty = Repair(wrong, evidence, (), f"use {q(guess)}", f"{call('sheet', stem)}[{q(guess)}]")
    else:
        keys = meanings
    record = json.dumps(list(zip(keys, meanings, numbers, strict=True))).encode()
    attempt = Attempt("look it up.", f"{call('sheet', stem)}[{q(meaning)}]", repair, hasty)
    plan = Plan((attempt,), numbers[right])
    instruction = f"Get {q(meaning)} in {q('sheet')} {q(stem)}."
    kind = "missing_key" * ask.surprise
    return Draft(instruction, {}, plan, (stem, *meanings, *keys), kind, behind={f"{stem}.json": record})


def _note(rng: Random, ask: Ask) -> Draft:
    stem, (number, *more), unit = rng.choice(STEMS), values(rng, 1 + ask.difficulty), rng.choice(UNIT_WORDS)
    text = f"{number} {unit}" if ask.surprise else number
    extra = "".join(f" + {one}" for one in more)
    repair = None
    if ask.surprise:
        code = f"int({call('note', stem)}.split()[0]){extra}"
        repair = Repair(ErrorType.CODE_ERROR, f"{number} {unit}", (), f"cut off {q(unit)}", code)
    answer = str(sum(map(int, (number, *more))))
    instruction = f"Get the number in {q('note')} {q(stem)}, plus {' and '.join(map(q, more))}."
    plan = Plan((Attempt("read it.", f"int({call('note', stem)}){extra}", repair),), answer)
    kind = "wrong_type" * ask.surprise
    return Draft(instruction, {}, plan, (stem, number, unit), kind, behind={f"{stem}.txt": text.encode()})


def ballot(rng: Random, ask: Ask) -> Draft:
    """NonCommit: several votes are there and the action files all of them; the message says which one counts.

    Difficulty 1, 2: which of two or three people. 3: a city stands between. Held out: who does not count.
    """
    look, decide = ("bids", "pledge") if ask.held_out else ("votes", "file")
    count = 2 if ask.difficulty == 1 or ask.held_out else 3
    topic, people, numbers = rng.choice(STEMS), rng.sample(PEOPLE, count), values(rng, count)
    cities = rng.sample(CITIES, count)
    right = rng.randrange(count)
    if not ask.surprise:
        votes = [(topic, people[right], numbers[right])]
    else:
        votes = [(topic, person, number) for person, number in zip(people, numbers, strict=True)]
    rules: list[tuple[str, str]] = []
    repair = hasty = None
    if ask.surprise:
        last = f"{q(people[right])}: {q(numbers[right])}"
        facts: tuple[str, ...] = (last,)
        if ask.held_out:
            rules = [("final", people[1 - right])]
            evidence = f"{q('final')} without {q(people[1 - right])}"
        elif ask.difficulty < 3:
            rules, evidence = [("final", people[right])], f"{q('final')} is {q(people[right])}"
        else:
            rules = [("final", cities[right]), *rng.sample(list(zip(cities, people, strict=True)), count)]
            facts, evidence = (f"{q(cities[right])} is {q(people[right])}", last), f"{q('final')} is {q(cities[right])}"
        fix = f"give {q(numbers[right])}"
        repair = Repair(ErrorType.NON_COMMIT, evidence, facts, fix, call(decide, numbers[right]))
        if right:
            fix = f"give {q(numbers[0])}"
            hasty = Repair(ErrorType.NON_COMMIT, evidence, (), fix, call(decide, numbers[0]))
    undecided = " or ".join(number for _, _, number in votes)
    attempts = (Attempt("look.", call(look, topic)), Attempt("give it.", call(decide, undecided), repair, hasty))
    kind = ("left_out" if ask.held_out else "undecided") if ask.surprise else ""
    instruction = f"{decide.capitalize()} the final one of {q(look)} on {q(topic)}, and answer with it."
    files = {VOTES: rows_file(votes), RULES: rows_file(rules)}
    names = (topic, *people, *numbers)
    return Draft(instruction, {}, Plan(attempts, numbers[right]), names, kind, behind=files)


def chain(rng: Random, ask: Ask) -> Draft:
    """A chain of 2, 3 or 4 tools (by difficulty), one of which surprises.

    InfoInsufficient where two notes are a person's, ArgInvalid where a note moved (over two moves from difficulty 2
    on), ToolMismatch where another tool knows a city's fee. Held out: an amount that wants its unit.
    """
    if ask.held_out:
        return _amount_chain(rng, ask)
    person, (city, city2), (stem, stem2, new, newer) = rng.choice(PEOPLE), rng.sample(CITIES, 2), rng.sample(STEMS, 4)
    total, other, fee, fee2, plus = values(rng, 5)
    hops = ("where", "total", "fee")[: 2 if ask.difficulty < 3 else 3]
    hop = rng.choice(hops) if ask.surprise else ""
    owners = [(person, city, stem), *([(person, city2, stem2)] if hop == "where" else [])]
    ends = new if ask.difficulty == 1 else newer
    moves = [(stem, new), *([(new, newer)] if ask.difficulty > 1 else [])] if hop == "total" else []
    totals = [(ends if hop == "total" else stem, total), (stem2, other)]
    tool, tool2 = rng.sample(("levy", "toll"), 2) if hop == "fee" else ("fee", "fee")
    files = {OWNERS: rows_file(rng.sample(owners, len(owners))), TOTALS: rows_file(totals), MOVES: rows_file(moves),
             FEES: rows_file(rng.sample([(city, fee, tool), (city2, fee2, tool2)], 2))}  # fmt: skip
    repair = hasty = None
    if hop == "where":
        evidence = f"{q(person)} in {q(city)}"
        repair = Repair(ErrorType.INFO_INSUFFICIENT, evidence, (), f"add {q(city)}", call("where", person, city))
    elif hop == "total":
        facts = (f"{q(new)} to {q(newer)}",) if ask.difficulty > 1 else ()
        repair = Repair(ErrorType.ARG_INVALID, f"{q(stem)} to {q(new)}", facts, f"use {q(ends)}", call("total", ends))
        if ask.difficulty > 1:
            hasty = Repair(ErrorType.ARG_INVALID, repair.evidence, (), f"use {q(new)}", call("total", new))
    elif hop == "fee":
        evidence = f"{q(tool)} for {q(city)}"
        repair = Repair(ErrorType.TOOL_MISMATCH, evidence, (), f"use {q(tool)}", call(tool, city))

    def attempt(name: str, thought: str, code: str) -> Attempt:
        return Attempt(thought, code, repair, hasty) if name == hop else Attempt(thought, code)

    attempts = [attempt("where", "find it.", call("where", person)), attempt("total", "open it.", call("total", stem))]
    asked, answer = f"the total of {q(person)} in {q(city)}", total
    if ask.difficulty == 2:
        attempts.append(attempt("add", "add them.", call("add", total, plus)))
        asked, answer = f"{asked}, plus {q(plus)}", str(int(total) + int(plus))
    elif ask.difficulty == 3:
        attempts.append(attempt("fee", "ask the fee.", call("fee", city)))
        attempts.append(attempt("add", "add them.", call("add", total, fee)))
        asked, answer = f"{asked}, plus the fee there", str(int(total) + int(fee))
    kinds = {"where": "ambiguous_query", "total": "renamed_file", "fee": "tool_unavailable"}
    names = (person, city, city2, stem, new)
    return Draft(f"Get {asked}.", {}, Plan(tuple(attempts), answer), names, kinds.get(hop, ""), behind=files)


def _amount_chain(rng: Random, ask: Ask) -> Draft:
    person, city, (stem, stem2) = rng.choice(PEOPLE), rng.choice(CITIES), rng.sample(STEMS, 2)
    amount, other, plus = values(rng, 3)
    unit, unit2 = rng.sample(UNIT_WORDS, 2)
    first = unit2 if ask.surprise else unit
    files = {OWNERS: rows_file([(person, city, stem)]),
             UNITS: rows_file(sorted([(stem, unit, amount), (stem2, unit2, other)]))}  # fmt: skip
    repair = None
    if ask.surprise:
        evidence = f"{q(stem)} in {q(unit)}"
        repair = Repair(ErrorType.ARG_INVALID, evidence, (), f"say {q(unit)}", call("amount", stem, unit))
    attempts = [Attempt("find it.", call("trace", person)), Attempt("read it.", call("amount", stem, first), repair)]
    asked, answer = f"Trace the amount of {q(person)}, maybe in {q(first)}", amount
    if ask.difficulty > 1:
        attempts.append(Attempt("add them.", call("plus", amount, plus)))
        asked, answer = f"{asked}, plus {q(plus)}", str(int(amount) + int(plus))
    tools = ", ".join(map(q, ("trace", "amount", "plus")[: 3 if ask.difficulty > 1 else 2]))
    names = (person, stem, stem2, unit)
    kind = "wrong_unit" * ask.surprise
    return Draft(f"{asked}, with {tools}.", {}, Plan(tuple(attempts), answer), names, kind, behind=files)
