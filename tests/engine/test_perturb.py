"""Near misses: what each rule makes of real tasks' steps, and that no code text whatever upsets them."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smolagents.tools import Tool

from regrpo_jax.engine.cases import ArgumentShape, CleanStep, NearMiss, Situation, ToolShape
from regrpo_jax.engine.perturb.near_misses import RULES, feasible_types, near_misses
from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.records.actions import (
    FINAL_ANSWER,
    KNOWN_TOOLS,
    actions_equivalent,
    extract_tool_calls,
    parse_python,
    primary_tool,
)
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.toolrepair import families, make_task, plan_of
from regrpo_jax.suites.toolrepair.plan import call
from regrpo_jax.suites.toolrepair_tools.compact_toolset import load_compact_tools
from regrpo_jax.suites.toolrepair_tools.full_toolset import load_full_tools
from regrpo_jax.toolbox.behind import WORLD_FILE
from regrpo_jax.toolbox.toolset import load_toolset

GIVEAWAYS = ("wrong", "mistake", "incorrect", "error", "fail", "typo", "invalid")


def shape_of(tool: Tool) -> ToolShape:
    arguments = tuple(
        ArgumentShape(
            name,
            told["type"] if isinstance(told["type"], str) else "any",
            told["description"],
            bool(told.get("nullable")),
        )
        for name, told in tool.inputs.items()
    )
    return ToolShape(tool.name, tool.description, arguments)


def shapes(tools: Iterable[Tool]) -> dict[str, ToolShape]:
    return {tool.name: shape_of(tool) for tool in tools}


SUITE_TOOLS = {"compact": shapes(load_compact_tools().values()), "full": shapes(load_full_tools().values())}
TOOLBOX = shapes(load_toolset().values())
GTA = {
    "OCR": ToolShape("OCR", "Recognizes all text on the image.", (ArgumentShape("image", "image"),)),
    "CountGivenObject": ToolShape(
        "CountGivenObject", "Counts an object.", (ArgumentShape("image", "image"), ArgumentShape("text", "text"))
    ),
    "GoogleSearch": ToolShape(
        "GoogleSearch", "Searches.", (ArgumentShape("query", "text"), ArgumentShape("k", "int", "", True))
    ),
    FINAL_ANSWER: TOOLBOX[FINAL_ANSWER],
}


def suite_situations(
    profile: str, family: str, seed: int, split: str = "train", surprises: float = 0.5
) -> list[Situation]:
    """A task's clean steps, each as a situation."""
    task = make_task(family, split, seed, seed % 3 + 1, profile, surprises=surprises)
    plan = plan_of(task)
    codes = [(one.thought, one.repair.code if one.repair else one.code) for one in plan.attempts]
    steps = tuple(CleanStep(*pair) for pair in (*codes, ("that is the answer.", call(FINAL_ANSWER, plan.answer))))
    tools = {name: SUITE_TOOLS[profile][name] for name in (*task.tools, FINAL_ANSWER)}
    at = Situation("oracle", task.id, task, "system", f"Task: {task.instruction}", steps, 0, tools)
    return [replace(at, index=index) for index in range(len(steps))]


def situation(
    code: str,
    instruction: str = "Read the report.",
    *,
    tools: Mapping[str, ToolShape] = TOOLBOX,
    files: Iterable[str] = (),
    images: Iterable[str] = (),
    thought: str = "I look at it.",
    later: tuple[CleanStep, ...] = (),
    before: tuple[tuple[str, str], ...] = (),
    own: tuple[NearMiss, ...] = (),
) -> Situation:
    """One step of a trajectory; before: codes and observations of earlier steps."""
    names = (*files, *images)
    task = Task(
        id="one",
        family="any",
        split="train",
        instruction=instruction,
        checker=AnswerChecker(CheckKind.EXACT, "1"),
        files=tuple(TaskFile(name, b"") for name in names),
        images=tuple(images),
    )
    earlier = tuple(CleanStep("before.", one) for one, _ in before)
    return Situation(
        source="trajectory",
        source_id="one",
        task=task,
        system="system",
        instruction=instruction,
        steps=(*earlier, CleanStep(thought, code), *later),
        index=len(earlier),
        tools=tools,
        observations=tuple(text for _, text in before),
        own=own,
    )


def misses(at: Situation, kind: ErrorType, seed: int = 0) -> list[NearMiss]:
    return near_misses(at, kind, random.Random(seed))


def codes(at: Situation, kind: ErrorType, proposer: str = "") -> set[str]:
    """The codes of many draws, so that what is kept of a rule by chance does not matter."""
    found = [miss for seed in range(20) for miss in misses(at, kind, seed)]
    return {miss.code for miss in found if proposer in ("", miss.proposer)}


def check(at: Situation, kind: ErrorType, found: list[NearMiss]) -> None:
    """What holds of every near miss."""
    clean, tools = at.step.code, KNOWN_TOOLS | set(at.tools)
    assert len({miss.code for miss in found}) == len(found)
    for miss in found:
        tree = parse_python(miss.code)
        assert miss.error_type == kind and miss.code != clean and miss.code.strip()
        assert not actions_equivalent(miss.code, clean, tools=tools)
        assert not any(word in miss.thought.lower() for word in GIVEAWAYS if word not in at.step.thought.lower())
        assert (tree is None) == (miss.proposer == "unclosed")
        called = extract_tool_calls(miss.code, tools)
        if kind == ErrorType.TOOL_MISMATCH:
            assert primary_tool(called) not in (None, primary_tool(extract_tool_calls(clean, tools)))
        if kind == ErrorType.NON_COMMIT:
            assert all(one.name != FINAL_ANSWER for one in called)


@pytest.mark.parametrize("profile", ["compact", "full"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_step_of_every_family(profile: str, split: str) -> None:
    for family in families(profile):
        for seed in range(2):
            for at in suite_situations(profile, family, seed, split):
                possible = feasible_types(at)
                final = at.step.code.startswith(FINAL_ANSWER)
                wanted = {ErrorType.NON_COMMIT, ErrorType.CODE_ERROR}
                assert possible == wanted if final else possible >= {*wanted, ErrorType.ARG_INVALID}
                for kind in ErrorType:
                    found = misses(at, kind, seed)
                    check(at, kind, found)
                    assert bool(found) == (kind in possible)
                    assert found == misses(at, kind, seed)


@pytest.mark.parametrize("profile", ["compact", "full"])
def test_each_of_the_papers_types_can_be_had_in_the_suite(profile: str) -> None:
    steps = [at for family in families(profile) for at in suite_situations(profile, family, 2, surprises=0.0)]
    assert set.union(*(set(feasible_types(at)) for at in steps)) == set(ErrorType)


def test_chance_decides_the_order_and_not_what_is_possible() -> None:
    at = situation('inspect_file_as_text("invoice.pdf")', files=["invoice.pdf"])
    draws = [misses(at, ErrorType.ARG_INVALID, seed) for seed in range(12)]
    assert len({tuple(miss.code for miss in draw) for draw in draws}) > 1
    assert len({frozenset(miss.proposer for miss in draw) for draw in draws}) == 1


def test_rare_rules_come_last_and_the_others_take_turns() -> None:
    at = situation('inspect_file_as_text("a_report.pdf")', files=["a_report.pdf", "b_report.pdf"])
    proposers = [miss.proposer for miss in misses(at, ErrorType.ARG_INVALID)]
    assert proposers[:4] == ["wrong_path", "wrong_type", "unknown_keyword", "missing_argument"]
    assert proposers[-1] == "other_file" and "other_file" not in proposers[:-1]


def test_what_the_source_brings_is_not_proposed_again() -> None:
    at = situation('ocr("a.png", "top left")', images=["a.png"])
    taken = misses(at, ErrorType.GROUNDING_DRIFT)[0]
    left = codes(replace(at, own=(taken,)), ErrorType.GROUNDING_DRIFT)
    assert left == codes(at, ErrorType.GROUNDING_DRIFT) - {taken.code}


def test_the_source_around_a_change_stays_as_it_was_written() -> None:
    code = "# look\nbox = 'top left'   # corner\nprint( ocr('a.png',  box) )\n"
    found = codes(situation(code, images=["a.png"]), ErrorType.GROUNDING_DRIFT, "wrong_region")
    others = ("top right", "bottom left", "bottom right")
    assert {code.replace("'top left'", f"'{other}'") for other in others} <= found


def test_bytes_and_characters_are_not_confused() -> None:
    found = codes(situation('print("é…"); read_ = ocr("größe.png", "links")', images=["größe.png"]),
                  ErrorType.ARG_INVALID, "wrong_type")  # fmt: skip
    assert 'print("é…"); read_ = ocr(["größe.png"], "links")' in found


def test_a_region_goes_to_another_place_and_the_thought_with_it() -> None:
    at = situation('crop("topleft")', tools=SUITE_TOOLS["compact"], thought="I look at the topleft.")
    found = [one for one in misses(at, ErrorType.GROUNDING_DRIFT) if one.proposer == "wrong_region"]
    assert {one.code for one in found} == {'crop("topright")', 'crop("lowleft")', 'crop("lowright")'}
    assert all(one.thought == f"I look at the {one.code[6:-2]}." for one in found)


def test_a_box_moves_and_keeps_its_form() -> None:
    at = situation('visualizer("read the sign", "scene.jpg", bbox=[10,8,150,70])', images=["scene.jpg"])
    found = codes(at, ErrorType.GROUNDING_DRIFT, "shifted_box")
    assert 'visualizer("read the sign", "scene.jpg", bbox=[150, 8, 290, 70])' in found
    for code in found:
        box = ast.literal_eval(code[code.index("bbox=") + 5 : -1])
        assert all(isinstance(one, int) and one >= 0 for one in box) and box[0] < box[2] and box[1] < box[3]
    text = situation('ocr("scene.jpg", "(10, 8, 150, 70)")', images=["scene.jpg"])
    assert 'ocr("scene.jpg", "(150, 8, 290, 70)")' in codes(text, ErrorType.GROUNDING_DRIFT, "shifted_box")
    shares = situation('crop("scene.jpg", [0.1, 0.1, 0.4, 0.4])', images=["scene.jpg"])
    assert all("1." not in code for code in codes(shares, ErrorType.GROUNDING_DRIFT, "shifted_box"))


def test_another_object_another_picture_and_no_crop() -> None:
    at = situation(
        'CountGivenObject(image="image/1.jpg", text="beer")',
        "How much is the beer on the table, by the menu?",
        tools=GTA,
        images=["image/1.jpg", "image/2.jpg"],
    )
    found = codes(at, ErrorType.GROUNDING_DRIFT)
    assert 'CountGivenObject(image="image/1.jpg", text="menu")' in found
    assert 'CountGivenObject(image="image/2.jpg", text="beer")' in found
    assert not any("beers" in code for code in found)
    cropped = situation('visualizer("what is it?", "a.jpg", bbox=[1, 2, 30, 40])', images=["a.jpg"])
    assert 'visualizer("what is it?", "a.jpg")' in codes(cropped, ErrorType.GROUNDING_DRIFT, "dropped_region")


def test_another_tool_takes_what_it_can_use() -> None:
    at = situation('objectlocation("person", "image1.jpg")', "How many people are there?", images=["image1.jpg"])
    found = codes(at, ErrorType.TOOL_MISMATCH)
    assert {'ask_search_agent("person")', 'inspect_file_as_text("image1.jpg")', 'ocr("image1.jpg")'} <= found
    assert not any(code.startswith(("image_generator", "list_files", "calculator")) for code in found)
    report = situation('inspect_file_as_text("a.pdf")', "What is the total?", files=["a.pdf"])
    found = codes(report, ErrorType.TOOL_MISMATCH)
    assert 'table_query("a.pdf", "SELECT * FROM a")' in found and 'search("What is the total?")' in found
    assert not any(code.startswith("ocr") for code in found), "there is no picture"
    keywords = situation('CountGivenObject(image="1.jpg", text="beer")', tools=GTA, images=["1.jpg"])
    assert 'OCR(image="1.jpg")' in codes(keywords, ErrorType.TOOL_MISMATCH)


def test_a_compact_opener_is_exchanged_and_named_in_the_thought() -> None:
    at = situation('load("tiger")', tools=SUITE_TOOLS["compact"], thought="I load it.")
    found = [one for seed in range(20) for one in misses(at, ErrorType.TOOL_MISMATCH, seed)]
    assert ('scan("tiger")', "I scan it.") in {(one.code, one.thought) for one in found}


def test_arguments_that_a_tool_cannot_take() -> None:
    at = situation('table_query("pay_2017.csv", "SELECT pay FROM pay_2017 WHERE name = \'Ann\'")',
                   'What does "Bob" pay?', files=["pay_2017.csv", "rent.csv"])  # fmt: skip
    found = codes(at, ErrorType.ARG_INVALID)
    sql = "\"SELECT pay FROM pay_2017 WHERE name = 'Ann'\""
    assert {f'table_query("pay_2017.xlsx", {sql})', f'table_query("pay-2017.csv", {sql})',
            f'table_query(["pay_2017.csv"], {sql})', 'table_query("pay_2017.csv")',
            f'table_query("pay_2017.csv", query={sql})', f'table_query("rent.csv", {sql})',
            f'table_query("pay_2017.csv", {sql.replace("Ann", "Bob")})'} <= found  # fmt: skip
    numbers = situation('search("total", k=1)', tools=GTA | TOOLBOX)
    assert {'search("total", k=2)', 'search("total", k="1")'} <= codes(numbers, ErrorType.ARG_INVALID)


def test_names_are_taken_from_what_was_told() -> None:
    tools = SUITE_TOOLS["compact"]
    at = situation('read("eagle")', 'Get the total of "eagle" for "Milan", with "read".', tools=tools)
    assert codes(at, ErrorType.ARG_INVALID, "other_name") == {'read("Milan")'}
    later = situation('read("eagle")', 'Open "eagle".', tools=tools, before=(('where("Ann")', 'at "tiger"'),))
    assert codes(later, ErrorType.ARG_INVALID, "other_name") == {'read("tiger")'}


def test_too_little_is_asked() -> None:
    at = situation('ask_search_agent("population of Canberra 2024")', "Find the population of the capital.")
    found = codes(at, ErrorType.INFO_INSUFFICIENT)
    assert {'ask_search_agent("population")', 'ask_search_agent("population of 2024")'} <= found
    assert 'ask_search_agent("population of")' not in found
    detail = situation(
        'search("Ann", "Oslo")', 'Search the pay of "Ann", "Oslo", "2015".', tools=SUITE_TOOLS["compact"]
    )
    assert codes(detail, ErrorType.INFO_INSUFFICIENT) == {'search("Ann")', 'search("Ann", "2015")'}
    assert feasible_types(situation('ocr("a.png")', images=["a.png"])).isdisjoint({ErrorType.INFO_INSUFFICIENT})


def test_a_step_is_skipped_only_where_a_later_one_needs_it() -> None:
    tools = SUITE_TOOLS["compact"]
    needs = (CleanStep("open it.", 'total("moon")'), CleanStep("answer.", 'final_answer("17")'))
    at = situation('where("Ann")', 'Get the total of "Ann".', tools=tools, later=needs)
    (found,) = [one for one in misses(at, ErrorType.INFO_INSUFFICIENT) if one.proposer == "skipped_step"]
    assert (found.code, found.thought) == ('total("Ann")', "open it.")
    knows = replace(at, instruction='Get the total of "moon", of "Ann".')
    assert not codes(knows, ErrorType.INFO_INSUFFICIENT, "skipped_step")
    variable = (CleanStep("count.", "print(len(names))"), CleanStep("read.", "print(read(names[0]))"))
    uses = situation('names = votes("fox")', "Vote.", tools=tools, later=variable)
    assert codes(uses, ErrorType.INFO_INSUFFICIENT, "skipped_step") == {"print(read(names[0]))"}


def test_in_a_world_a_later_step_may_come_too_early() -> None:
    later = (CleanStep("go up.", "act('up')"), CleanStep("open.", "act('open')"), CleanStep("done.", "final_answer(1)"))
    act = {"act": ToolShape("act", "Does one thing.", (ArgumentShape("action", "string"),))}
    at = situation("act('down')", "Open it.", tools=act, thought="go down.", later=later)
    assert not codes(at, ErrorType.INFO_INSUFFICIENT, "skipped_step")
    files = (TaskFile(WORLD_FILE, b"{}", behind=True),)
    inside = replace(at, task=replace(at.task, files=files))
    found = [one for one in misses(inside, ErrorType.INFO_INSUFFICIENT) if one.proposer == "skipped_step"]
    assert {(one.code, one.thought) for one in found} == {("act('up')", "go up."), ("act('open')", "open.")}


def test_the_answer_is_not_given() -> None:
    at = situation('answer = "42"\nfinal_answer(answer)', 'Is it "42" or "17"?')
    found = codes(at, ErrorType.NON_COMMIT, "missing_final_answer")
    assert found == {'answer = "42"\nanswer', 'answer = "42"\nprint(answer)', 'answer = "42"\nanswer = answer'}
    plain = situation('final_answer("42")', 'Is it "42" or "17"?', thought="I know it.")
    assert {'print("42 or 17")', '"42 or 17"', 'print("42")', '"42"', 'print("I know it.")'} <= codes(
        plain, ErrorType.NON_COMMIT
    )
    handed = situation('file("42")', 'File "42" or "17".', tools=SUITE_TOOLS["compact"])
    assert 'file("42 or 17")' in codes(handed, ErrorType.NON_COMMIT, "undecided")


def test_code_that_raises() -> None:
    at = situation('import re\ntext = ocr("a.png")\nprint(re.findall("x", text))', images=["a.png"])
    found = codes(at, ErrorType.CODE_ERROR)
    assert 'import re\ntext = ocr("a.png")\nprint(re.findall("x", text)' in found
    sheet = situation('sheet("moon")["pay"]', 'Get "pay", not "rent".', tools=SUITE_TOOLS["compact"])
    assert 'sheet("moon")["rent"]' in codes(sheet, ErrorType.CODE_ERROR, "wrong_subscript")
    assert 'sheet(moon)["pay"]' in codes(sheet, ErrorType.CODE_ERROR, "undefined_variable")
    sql = situation('table_query("a.csv", "SELECT pay FROM a")', files=["a.csv"])
    assert 'table_query("a.csv", "SELECT pays FROM a")' in codes(sql, ErrorType.CODE_ERROR, "wrong_column")


def test_a_thought_that_would_give_it_away_is_not_used() -> None:
    at = situation('crop("a.png", "top left")', images=["a.png"], thought="I look at the top left.")
    told = replace(at, steps=(CleanStep("I look at the top left, not at the wrong place.", at.step.code),))
    assert codes(told, ErrorType.GROUNDING_DRIFT) == codes(at, ErrorType.GROUNDING_DRIFT)
    named = situation('ask_search_agent("Leo")', 'Who made the "Error", "Leo"?', thought="I search for Leo.")
    assert all("Error" not in miss.thought for miss in misses(named, ErrorType.ARG_INVALID))


HARD = (
    "",
    "   ",
    "\n",
    "ocr(",
    "ocr(*x, **y)",
    "ocr()",
    "f\"{ocr('a.png')}\"",
    'print(f"{ocr("a.png", \'top left\')!r:>10}")',
    "ocr(('a.png'), (('top left')))",
    "ocr(x := 'a.png')",
    "[ocr(p) for p in ['a.png']]",
    "ocr(p for p in 'ab')",
    "lambda: ocr('a.png')",
    "ocr('a.png')('b')",
    "ocr(ocr('a.png'))",
    "tools.ocr('a.png')",
    "import ocr\nocr('a.png')",
    "ocr('a' 'b.png')",
    "ocr('''a\n.png''')",
    "ocr(b'a.png')",
    "ocr('\\ud800', [1, 2, 3, 1e400])",
    "ocr('a.png',\r\n 'left')",
    "\ufeffocr('a.png')",
    "ocr('é' , 'ü\u2028')",
    "final_answer(final_answer('1'))",
    "final_answer(*[1])",
    "final_answer()",
    "ocr(" * 80 + ")" * 80,
    "-" * 3000 + "1",
    "(" * 500,
    "ocr('a.png', " + "-" * 2500 + "1)",
    "async def f(): ocr(await x)",
    "ocr(image=1, image=2)",
    "ocr('a.png', region={1: 2})",
    "search('x', k=10**400)",
    "search('x', k=-1)",
    "crop('a', True)",
    "ocr('a.png', '0 0 0 0')",
    "ocr('a.png', (0, 0, 0, 0))",
    "ocr('a.png', [1e308, -1e308, 1e308, 5])",
    "del ocr",
    "table_query('a.csv', 'SELECT')",
    "x = 'a.png'\nx = 'b.png'\nocr(x)",
    "ocr('" + "a" * 5000 + ".png')",
    "\f\nocr('a.png')",
    "calculator('" + "1+" * 400 + "')",
    "ocr('top left' if x else 'a')",
    "\0",
    "ocr('a.png'); \\\nocr('b.png')",
)


@pytest.mark.parametrize("code", HARD)
def test_hard_code(code: str) -> None:
    check_any(code, 0, "Read it.", "Find the top left of 'a.png', 17 or 18?")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.builds("{}({})".format, st.sampled_from(sorted(TOOLBOX)), st.text(max_size=40)),
        st.builds(
            lambda tool, values: call(tool, *values),
            st.sampled_from(sorted(TOOLBOX)),
            st.lists(st.one_of(st.text(max_size=20), st.integers()), max_size=4),
        ),
    ),
    st.integers(0, 2**32),
    st.text(max_size=30),
    st.text(max_size=80),
)
def test_any_code(code: str, seed: int, thought: str, instruction: str) -> None:
    check_any(code, seed, thought, instruction)


def check_any(code: str, seed: int, thought: str, instruction: str) -> None:
    later = (CleanStep("next.", 'ask_search_agent("Oslo")'),)
    at = situation(code, instruction, images=["a.png", "b.png"], thought=thought, later=later)
    possible = feasible_types(at)
    for kind in ErrorType:
        found = misses(at, kind, seed)
        check(at, kind, found)
        assert found == misses(at, kind, seed)
        assert bool(found) == (kind in possible)


def test_rules_have_names_of_their_own_and_say_what_they_do() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all((rule.propose.__doc__ or "").strip() for rule in RULES)
    assert {rule.error_type for rule in RULES} == set(ErrorType)
