"""The suite: families by name, and tasks as pure functions of (profile, family, split, seed, difficulty).

`compact` has short texts, small pictures and cheap tools, for a policy of one to a few million parameters; `full` has
the toolbox's own tools on documents and pictures of ordinary size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.faults import Fault
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.suites.suite import SPLITS
from regrpo_jax.suites.toolrepair import (
    compact_desk_families,
    compact_picture_families,
    compact_text_families,
    compact_visual_families,
    full_chain_families,
    full_document_families,
    full_picture_families,
    full_record_families,
    full_visual_families,
)
from regrpo_jax.suites.toolrepair.draft import Ask, Draft, Family
from regrpo_jax.suites.toolrepair.plan import VISUAL, oracle_steps, plan_to_json
from regrpo_jax.suites.toolrepair.words import split_of
from regrpo_jax.suites.toolrepair_tools.compact_tools import HELD_OUT_OPENERS, OPENERS
from regrpo_jax.suites.toolrepair_tools.compact_toolset import HELD_OUT_TOOLS, TRAINING_TOOLS
from regrpo_jax.suites.toolrepair_tools.full_toolset import FULL_HELD_OUT_TOOLS, FULL_TRAINING_TOOLS

DIFFICULTIES = (1, 2, 3)
SURPRISES = 0.6  # share of tasks that have one
_MOST_DRAWS = 1000
_OTHERS = 1  # tools of a compact task that do not help


@dataclass(frozen=True)
class Profile:
    """A set of families and the tools that their tasks have, of the usual splits and of the held-out one.

    of_family: where a task has few tools, those of its family in the two kinds of splits; a task has them and
    `_OTHERS` more. Empty where every task has all tools. visual: families whose failure is seen, not told; they are
    chosen by name and are none of `families`. visual_tools: their tools, as of_family has them. beside: in the two
    kinds of splits, tools that do not help them, of which a task has `_OTHERS`; none of them looks at a picture.
    """

    families: Mapping[str, Family]
    tools: frozenset[str]
    held_out_tools: frozenset[str]
    of_family: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)
    visual: Mapping[str, Family] = field(default_factory=dict)
    visual_tools: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)
    beside: tuple[Sequence[str], Sequence[str]] = ((), ())


PROFILES: Mapping[str, Profile] = {
    "compact": Profile(
        {
            "moved": compact_text_families.moved,
            "service": compact_text_families.service,
            "search": compact_text_families.search,
            "region": compact_picture_families.region,
            "colour": compact_picture_families.colour,
            "count": compact_picture_families.count,
            "sheet": compact_desk_families.sheet,
            "ballot": compact_desk_families.ballot,
            "chain": compact_desk_families.chain,
        },
        TRAINING_TOOLS,
        HELD_OUT_TOOLS,
        {
            "moved": (("read",), ("unfold",)),
            "service": (OPENERS, HELD_OUT_OPENERS),
            "search": (("search",), ("consult",)),
            "region": (("crop",), ("peek",)),
            "colour": (("spot",), ("dab",)),
            "count": (("count",), ("tally",)),
            "sheet": (("sheet",), ("note",)),
            "ballot": (("votes", "file"), ("bids", "pledge")),
            "chain": (("where", "total", "fee", "levy", "toll", "add"), ("trace", "amount", "plus")),
        },
        {
            "zoom": compact_visual_families.zoom,
            "plot": compact_visual_families.plot,
            "compare": compact_visual_families.compare,
        },
        {"zoom": (("zoom",), ("loupe",)), "plot": (("chart",), ("graph",)), "compare": (("pair",), ("match",))},
        (("read", "search", "where", "add"), ("unfold", "consult", "trace", "plus")),
    ),
    "full": Profile(
        {
            "moved": full_document_families.moved,
            "service": full_document_families.service,
            "search": full_record_families.search,
            "region": full_picture_families.region,
            "colour": full_picture_families.colour,
            "count": full_picture_families.count,
            "sheet": full_record_families.sheet,
            "ballot": full_record_families.ballot,
            "chain": full_chain_families.chain,
        },
        FULL_TRAINING_TOOLS,
        FULL_HELD_OUT_TOOLS,
        visual={
            "zoom": full_visual_families.zoom,
            "plot": full_visual_families.plot,
            "compare": full_visual_families.compare,
        },
        visual_tools={
            "zoom": (("cut_out",), ("magnify",)),
            "plot": (("draw_chart",), ("plot_register",)),
            "compare": (("side_by_side",), ("collate",)),
        },
        beside=(("calculator", "search", "list_files"), ("solver", "sign_off", "json_value")),
    ),
}


def families(profile: str) -> tuple[str, ...]:
    """The names of a profile's families but the visual ones. UserError for an unknown profile."""
    return tuple(_of(PROFILES, profile, "profile").families)


def visual_families(profile: str) -> tuple[str, ...]:
    """The names of the families whose failure is seen, not told. UserError for an unknown profile."""
    return tuple(_of(PROFILES, profile, "profile").visual)


def _of(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise UserError(f"{what} {name!r} is not in the ToolRepair suite; choose one of {', '.join(known)}")
    return known[name]


def make_task(
    family: str,
    split: str,
    seed: int,
    difficulty: int = 1,
    profile: str = "compact",
    *,
    surprises: float = SURPRISES,
) -> Task:
    """One task, the same for the same arguments.

    difficulty: 1 to 3. surprises: the probability (0 to 1) that something goes wrong with the natural first action.
    UserError for a family, split, difficulty or profile that does not exist.
    """
    chosen = _of(PROFILES, profile, "profile")
    build = _of({**chosen.families, **chosen.visual}, family, "family")
    if split not in SPLITS:
        raise UserError(f"split {split!r} is not in the ToolRepair suite; choose one of {', '.join(SPLITS)}")
    if difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty {difficulty} is not in the ToolRepair suite; choose 1, 2 or 3")
    if not 0 <= surprises <= 1:
        raise UserError(f"the share of surprises is {surprises}; it must be between 0 and 1")
    rng = Random(f"{profile}/{family}/{split}/{seed}/{difficulty}")

    def fits(names: tuple[str, ...]) -> bool:
        return split_of((family, *names)) == split

    ask = Ask(rng.random() < surprises, difficulty, split == "held_out", fits)
    for _ in range(_MOST_DRAWS):
        draft = build(rng, ask)
        if fits(draft.names):
            break
    else:
        raise RuntimeError(f"family {family} has too few combinations of names for the split {split}")
    name = f"toolrepair/{profile}/{family}/{split}/{seed}/{difficulty}"
    return _task(draft, name, family, split, seed, ask, _tools(chosen, family, ask.held_out, Random(f"{name}/tools")))


def _tools(profile: Profile, family: str, held_out: bool, rng: Random) -> frozenset[str]:
    """The tools of a task: all of the split's, or its family's and some that do not help."""
    if family in profile.visual:
        return frozenset((*profile.visual_tools[family][held_out], *rng.sample(profile.beside[held_out], _OTHERS)))
    known = profile.held_out_tools if held_out else profile.tools
    if family not in profile.of_family:
        return known
    own = profile.of_family[family][held_out]
    return frozenset((*own, *rng.sample(sorted(known - {*own, "final_answer"}), _OTHERS)))


def _task(draft: Draft, name: str, family: str, split: str, seed: int, ask: Ask, tools: frozenset[str]) -> Task:
    repair = next((attempt.repair for attempt in draft.plan.attempts if attempt.repair is not None), None)
    return Task(
        id=name,
        family=family,
        split=split,
        instruction=draft.instruction,
        checker=AnswerChecker(CheckKind(draft.answer_kind), draft.plan.answer),
        files=tuple(TaskFile(file, draft.files[file]) for file in sorted(draft.files))
        + tuple(TaskFile(file, draft.behind[file], behind=True) for file in sorted(draft.behind)),
        images=draft.images,
        tools=tuple(sorted(tools - {"final_answer"})),
        faults=tuple(Fault.from_json(fault) for fault in draft.faults),
        error_type=None if repair is None else repair.error_type,
        difficulty=ask.difficulty,
        oracle=oracle_steps(draft.plan),
        seed=seed,
        metadata={
            "suite": "toolrepair",
            "surprise": draft.surprise,
            "plan": plan_to_json(draft.plan),
            "names": list(draft.names),
            **({VISUAL: True} if draft.visual else {}),
        },
    )


def make_suite(
    split: str,
    count: int,
    seed: int = 0,
    profile: str = "compact",
    *,
    surprises: float = SURPRISES,
    difficulties: Sequence[int] = DIFFICULTIES,
    chosen: Sequence[str] = (),
) -> list[Task]:
    """`count` different tasks, family after family in turn and difficulties in turn.

    chosen: only these families, visual ones perhaps; () is `families(profile)`. UserError as in `make_task`.
    """
    names = tuple(chosen) or families(profile)
    if count < 1 or not difficulties:
        raise UserError(f"a suite needs at least one task and one difficulty, not {count} and {tuple(difficulties)}")
    return [
        make_task(
            names[number % len(names)],
            split,
            seed * 1_000_003 + number // len(names),
            difficulties[(number // len(names)) % len(difficulties)],
            profile,
            surprises=surprises,
        )
        for number in range(count)
    ]
