"""An answer is the tools' where they gave it, its parts, or what code makes of them; a constant alone never is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.answer_seen import answer_is_seen, computed_of_results

TOOLS = frozenset({"see", "find", "final_answer"})
LOOK = 'print(see("what?", "a.jpg"))'


def seen(answer: str, *observations: str, task: str = "Compare the houses.", code: tuple[str, ...] = ()) -> bool:
    steps = code or (*[LOOK] * len(observations), f"final_answer({answer!r})")
    return answer_is_seen([answer], observations, task, steps, TOOLS)


@pytest.mark.parametrize(
    ("answer", "observations"),
    [
        ("EXIT", ["The sign reads: EXIT"]),
        ("42.50", ["total 42.50"]),
        ("exit", ["EXIT"]),
        ("The first house is red and the second one blue.", ["It is red.", "It is blue."]),
        (
            "Ana Velde, born in Tomar, painted it in 1932.",
            ["Painted by Ana Velde in 1932.", "Velde was born in Tomar."],
        ),
        ("2,417 m and 1874", ["It is 2417 m high.", "First climbed in 1874."]),
        ("There are 3 dogs.", ["[[1, 2], [3, 4], [5, 6]]", "dogs are animals"]),
        ("2", ["boxes\n[[1, 1, 5, 5], [9, 9, 12, 12]]"]),
        ("yes", ["[[40, 60, 180, 220]]"]),
        ("yes", ["faces: [[4, 4, 20, 20]] 1"]),
        ("2.5", ["it weighs 2.50 kg"]),
        ("166.67", ["166.66666666666666"]),
        ("25", ["8", "2"]),  # per cent
        ("It is 10 in all", ["There are 7 men.", "There are 3 women."]),
    ],
)
def test_what_tools_gave(answer: str, observations: list[str]) -> None:
    assert seen(answer, *observations)


@pytest.mark.parametrize(
    ("answer", "observations", "task"),
    [
        ("EXIT", ["empty pavement"], "What does the sign say?"),
        ("17 houses", ["There are 16 houses."], "How many houses?"),
        ("The house is red.", ["No colour can be told."], "Is the house red or blue?"),  # words of the task alone
        ("It was built in 1911", ["It was built long ago."], "When was it built?"),
        ("1911", ["1912 19110 0.1911"], "When?"),
        ("It was built by Ana Velde of Tomar", ["by Ana"], "Who built it?"),
        ("yes", ["It is dark."], "Is it dark?"),
        ("3", ["[[1, 2], [5, 6]]"], "How many?"),
        ("10", ["7, 3 and 12 were sold."], "How many?"),  # any number comes of many
        ("11", ["There are 7 men.", "There are 3 women."], "How many?"),
        ("166.67", ["166.6"], "How many?"),
    ],
)
def test_what_tools_did_not_give(answer: str, observations: list[str], task: str) -> None:
    assert not seen(answer, *observations, task=task)


@pytest.mark.parametrize(
    ("code", "computed"),
    [
        (("b = find('dog', 'a')", "final_answer(len(b))"), True),
        (("b = find('dog', 'a')\nn = len(b)", "final_answer(f'{n} dogs')"), True),
        (("final_answer('yes' if find('dog', 'a') else 'no')",), True),
        (("r = []\nfor p in ['a']:\n    r.append(see('q', p))", "final_answer(', '.join(r))"), True),
        (("t = 0\nfor b in find('dog', 'a'):\n    t += b", "final_answer(t)"), True),
        (("final_answer(see('q', 'a'))",), True),
        (("b = find('dog', 'a')\nn = 3", "final_answer(n)"), False),
        (("b = find('dog', 'a')", "final_answer('3')"), False),
        (("n = 1 + 2", "final_answer(n)"), False),
        (("final_answer(",), False),
    ],
)
def test_what_code_makes_of_results(code: tuple[str, ...], computed: bool) -> None:
    assert computed_of_results(code, TOOLS) is computed


@given(st.text("abcdefgh 12345", min_size=3, max_size=60))
def test_nothing_observed_gives_no_answer(answer: str) -> None:
    assert not seen(f"{answer} zzz", "-", "no")


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_it(answer: str, observed: str) -> None:
    assert seen(answer, f"{answer} {observed}")
    assert seen(answer, observed) in (True, False)
