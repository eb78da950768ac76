"""What devices send each other, read from the text of a compiled program (XLA's HLO).

A loop's body stands once in the text and runs as often as its condition says. A TPU's compiler may put the start, the
steps and the end of one exchange into fusions, each with a copy of it that names the same channel: it counts once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BITS = {"pred": 8, "bf16": 16, "f16": 16}  # the others have them in their name, as f32 and s8

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_EXCHANGE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
_FUSED = re.compile(r"calls=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_GROUPS = re.compile(
    r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\}|mesh\[([^\]]*)\](?:, device_ids=\([^{]*\))? \{([^}]*)\}|(\{\}))"
)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """One collective, as often as it runs.

    Attributes:
      kind: one of `KINDS`.
      shape: of its result on a device.
      bytes: that a device sends in one run of it, by the best algorithm on a ring.
      times: that it runs in a run of the program.
    """

    kind: str
    shape: tuple[int, ...]
    bytes: float
    times: int


def exchanges(text: str) -> list[Exchange]:
    """All collectives of a compiled program.

    Raises:
      ValueError: one names its devices in a form that is not known here; counted as nothing it would go unnoticed.
    """
    partitions = re.search(r"num_partitions=(\d+)", text)
    devices = int(partitions[1]) if partitions else 1
    bodies = _computations(text)
    entry = next(name for name, (is_entry, _) in bodies.items() if is_entry)
    inside = {name for _, lines in bodies.values() for line in lines for name in _FUSED.findall(line)}
    found: list[Exchange] = []
    apart: dict[tuple[str, str], Exchange] = {}  # of fusions
    channels = set()
    for name, times in _visits(bodies, entry, 1, frozenset()):
        for line in bodies[name][1]:
            if exchange := _exchange(line, times, devices):
                channel = re.search(r"channel_id=(\d+)", line)
                key = (exchange.kind, channel[1] if channel else line)
                if name in inside:
                    apart[key] = exchange
                else:
                    channels.add(key)
                    found.append(exchange)
    return found + [exchange for key, exchange in apart.items() if key not in channels]


def _computations(text: str) -> dict[str, tuple[bool, list[str]]]:
    """Name -> (is the entry, its lines)."""
    found: dict[str, tuple[bool, list[str]]] = {}
    lines: list[str] = []
    for line in text.splitlines():  # what a kernel of ours is compiled from may stand in it, with lines of its own
        if match := _COMPUTATION.match(line):
            lines = []
            found[match[1]] = (line.startswith("ENTRY"), lines)
        else:
            lines.append(line)
    return found


def _visits(
    bodies: dict[str, tuple[bool, list[str]]], name: str, times: int, above: frozenset[str]
) -> Iterator[tuple[str, int]]:
    """Every computation that is reached, and how often it runs."""
    yield name, times
    for line in bodies[name][1]:
        inner = times * (_trips(bodies, line) if " while(" in line else 1)
        called = _CALLED.findall(line)
        for group in _BRANCHES.findall(line):
            called += [part.strip().lstrip("%") for part in group.split(",")]
        for other in called:
            if other in bodies and other not in above:
                yield from _visits(bodies, other, inner, above | {name})


def _trips(bodies: dict[str, tuple[bool, list[str]]], line: str) -> int:
    """Of a loop: as it is known to the compiler, or the number that its condition compares with; 1 if neither is."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    inside = bodies.get(condition[1], (False, []))[1] if condition else []
    numbers = [int(found[1]) for one in inside if (found := re.search(r"= s32\[\]\S* constant\((\d+)\)", one))]
    return numbers[0] if len(numbers) == 1 else 1


def _exchange(line: str, times: int, devices: int) -> Exchange | None:
    match = _EXCHANGE.search(line)
    if match is None:
        return None
    shapes = [(kind, [int(size) for size in sizes.split(",") if size]) for kind, sizes in _SHAPE.findall(match[1])]
    if not shapes:
        return None
    members = devices if match[2] == "collective-permute" else _members(line, devices)
    if members < 2 and match[2] != "collective-permute":
        return None
    total = sum(math.prod(sizes) * _bytes(kind) for kind, sizes in shapes)
    share = (members - 1) / members
    sent = {
        "all-gather": total * share,
        "all-reduce": 2 * total * share,
        "reduce-scatter": total * (members - 1),  # what is scattered is as many times its result
        "all-to-all": total * share,
        "collective-permute": total,
    }[match[2]]
    largest = max((sizes for _, sizes in shapes), key=math.prod)
    return Exchange(match[2], tuple(largest), sent, times)


def _members(line: str, devices: int) -> int:
    """How many devices exchange with each other: a list of lists, sizes of a count, axes of a mesh, or all."""
    groups = _GROUPS.search(line)
    if groups is None:
        raise ValueError(
            f"no known form of replica_groups: {(line.partition('replica_groups=')[2] or line).strip()[:300]}"
        )
    counted, listed, mesh, axes, everyone = groups.groups()
    if everyone:
        return devices
    if counted:
        return int(counted)
    if listed is not None:
        return len(listed.split(","))
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    named = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes)  # of an axis a part, if it says of which size
    return math.prod(int(part) if part else sizes[name] for name, part in named)


def _bytes(kind: str) -> float:
    bits = BITS.get(kind) or int(re.sub(r"^[a-z]+([0-9]+).*", r"\1", kind) or 32)
    return bits / 8
