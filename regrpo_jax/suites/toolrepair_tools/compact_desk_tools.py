"""More small text tools of the compact profile: records with keys, votes that must be decided, and chains of tools."""

from __future__ import annotations

import json
from collections.abc import Sequence

from regrpo_jax.suites.toolrepair_tools.compact_tools import pairs_of, text_input
from regrpo_jax.suites.toolrepair_tools.quoting import listed, q
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.signatures import CheckedTool

VOTES = "votes.csv"  # topic, person, value
RULES = "rules.csv"  # what is told of a vote that is not decided: pairs "x is y"
OWNERS = "owners.csv"  # person, city, note
TOTALS = "totals.csv"  # note, total
MOVES = "moves.csv"  # old note, new note
FEES = "fees.csv"  # city, fee, the tool that knows it
UNITS = "units.csv"  # note, unit, amount


class KeyedRecord:
    """A record that tells, when a key is missing, which keys stand for what.

    It stays with the tools: an action has a stand-in, which can do what `served` names. All values at once, as a dict
    would give them, are not among that, or an action need not know which key it wants.
    """

    served = ("__getitem__", "__contains__", "__len__", "__repr__")

    def __init__(self, entries: Sequence[Sequence[str]]) -> None:
        self._entries = entries

    def __getitem__(self, key: object) -> str:
        found = [value for known, _, value in self._entries if known == key]
        if not found:
            keys = listed(f"{q(meaning)} in {q(known)}" for known, meaning, _ in self._entries)
            raise LookupError(f"no {q(str(key))}. {keys}")  # of a KeyError Python would quote the words
        return found[0]

    def __contains__(self, key: object) -> bool:
        return any(known == key for known, _, _ in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:  # a printed record does not give its values away
        return f"keys {listed(q(key) for key, _, _ in self._entries)}"


def _text_of(name: str, ending: str) -> str:
    content = behind.read(f"{name}.{ending}")
    if content is None:
        raise ToolError(f"NotFound. no {q(name)}.")
    return content.decode("utf-8")


class Sheet(CheckedTool):
    name = "sheet"
    description = "A record as a dict: sheet(name)[key] is a value."
    inputs = {"name": text_input("name of the record")}
    output_type = "object"

    def forward(self, name: str) -> KeyedRecord:
        return KeyedRecord(json.loads(_text_of(name, "json")))


class Note(CheckedTool):
    name = "note"
    description = "The text of a note."
    inputs = {"name": text_input("name of the note")}
    output_type = "string"

    def forward(self, name: str) -> str:
        return _text_of(name, "txt").strip()


class Votes(CheckedTool):
    name = "votes"
    description = "Who voted what on a topic."
    inputs = {"topic": text_input("the topic")}
    output_type = "string"

    def forward(self, topic: str) -> str:
        found = [f"{q(value)} by {q(person)}" for about, person, value in pairs_of(VOTES) if about == topic]
        if not found:
            raise ToolError(f"NotFound. no {q(topic)}.")
        return listed(found)


class File(CheckedTool):
    name = "file"
    description = "Files one vote, a number."
    inputs = {"vote": text_input("the vote")}
    output_type = "string"
    refusal, told = "Undecided", "is"

    def forward(self, vote: str) -> str:
        if not vote.isdigit():
            rules = [f"{q(subject)} {self.told} {q(person)}" for subject, person in pairs_of(RULES)]
            raise ToolError(f"{self.refusal}. {listed(rules)}" if rules else f"NotNumber. {q(vote)}.")
        return f"filed {q(vote)}"


class Bids(Votes):
    name = "bids"
    description = "Who bids what on a topic."


class Pledge(File):
    name = "pledge"
    description = "Pledges one bid, a number."
    refusal, told = "Hedged", "without"


class Where(CheckedTool):
    name = "where"
    description = "Which note is a person's; a city tells people of one name apart."
    inputs = {"person": text_input("the person"), "city": text_input("the city", nullable=True)}
    output_type = "string"

    def forward(self, person: str, city: str | None = None) -> str:
        found = [row for row in pairs_of(OWNERS) if row[0] == person and city in (None, row[1])]
        if not found:
            raise ToolError(f"NotFound. no {q(person)}.")
        if len(found) > 1:
            raise ToolError("Ambiguous. " + listed(f"{q(person)} in {q(place)}" for _, place, _ in found))
        return f"at {q(found[0][2])}"


class Trace(Where):
    name = "trace"


class Total(CheckedTool):
    name = "total"
    description = "The total of a note."
    inputs = {"name": text_input("name of the note")}
    output_type = "string"

    def forward(self, name: str) -> str:
        found = dict(pairs_of(TOTALS)).get(name)
        if found is None:
            moves = [f"{q(old)} to {q(new)}" for old, new in pairs_of(MOVES)]
            raise ToolError(f"Moved. {listed(moves)}" if moves else f"NotFound. no {q(name)}.")
        return f"total {q(found)}"


class Fee(CheckedTool):
    """The fee of a city, if this is the tool that knows it."""

    name = "fee"
    description = "The fee of a city."
    inputs = {"city": text_input("the city")}
    output_type = "string"

    def forward(self, city: str) -> str:
        rows = pairs_of(FEES)
        known = {place: amount for place, amount, tool in rows if tool == self.name}
        if city not in known:
            desks = [f"{q(tool)} for {q(place)}" for place, _, tool in rows]
            raise ToolError(f"Closed. Use {listed(desks)}" if desks else f"NotFound. no {q(city)}.")
        return f"fee {q(known[city])}"


class Levy(Fee):
    name = "levy"


class Toll(Fee):
    name = "toll"


class Add(CheckedTool):
    name = "add"
    description = "The sum of two numbers."
    inputs = {"first": text_input("a number"), "second": text_input("a number")}
    output_type = "string"

    def forward(self, first: str, second: str) -> str:
        for number in (first, second):
            if not number.isdigit():
                raise ToolError(f"NotNumber. {q(number)}.")
        return f"sum {q(int(first) + int(second))}"


class Plus(Add):
    name = "plus"


class Amount(CheckedTool):
    name = "amount"
    description = "The amount of a note in a unit."
    inputs = {"name": text_input("name of the note"), "unit": text_input("the unit", nullable=True)}
    output_type = "string"

    def forward(self, name: str, unit: str | None = None) -> str:
        found = {note: (measure, amount) for note, measure, amount in pairs_of(UNITS)}
        if name not in found:
            raise ToolError(f"NotFound. no {q(name)}.")
        if unit != found[name][0]:
            raise ToolError("Unit. " + listed(f"{q(note)} in {q(measure)}" for note, (measure, _) in found.items()))
        return f"amount {q(found[name][1])}"
