"""Search over local corpora: answers, ambiguity, and nothing found."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrpo_jax.records import Status, classify_observation_text
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, ToolFailure, Unavailable
from regrpo_jax.toolbox.search_tools import AskSearchAgent, SearchTool
from tests.toolbox.tool_workspace import write_corpus

pytestmark = pytest.mark.usefixtures("workspace")
PAGES = {
    "Canberra population": "Canberra had 456,692 inhabitants in 2024.",
    "Lima population": "Lima had 10,151,000 inhabitants in 2024.",
    "Oslo population": "Oslo had 717,710 inhabitants in 2024.",
    "Giant panda": "A panda eats 12 to 38 kg of bamboo every day.",
    "Mercury (planet)": "Mercury is the planet closest to the Sun.",
    "Mercury (element)": "Mercury is a metal that is liquid at room temperature.",
}
CORPUS = ".corpus.jsonl"


def test_a_clear_question_is_answered_by_its_page() -> None:
    write_corpus(CORPUS, PAGES)
    ask = AskSearchAgent(CORPUS)
    assert ask("population of Canberra 2024") == "Canberra population: Canberra had 456,692 inhabitants in 2024."
    assert "12 to 38 kg" in ask("How much does a panda eat?")
    assert "liquid" in ask("mercury element")


def test_an_ambiguous_query_lists_what_would_tell_the_pages_apart() -> None:
    write_corpus(CORPUS, PAGES)
    with pytest.raises(EmptyResult) as failure:
        AskSearchAgent(CORPUS)("population")
    text = str(failure.value)
    assert text.startswith('Ambiguous query: "population" fits 3 pages equally well:')
    assert '"Canberra population"' in text and '"Lima population"' in text and '"Oslo population"' in text
    with pytest.raises(EmptyResult, match=r'"Mercury \(element\)", "Mercury \(planet\)"|planet.*element'):
        AskSearchAgent(CORPUS)("mercury")


def test_no_results_name_the_closest_pages() -> None:
    write_corpus(CORPUS, PAGES)
    with pytest.raises(EmptyResult) as failure:
        AskSearchAgent(CORPUS)("population of Quito")
    text = str(failure.value)
    assert text.startswith('No results found for "population of Quito".') and '"Lima population"' in text
    with pytest.raises(EmptyResult) as failure:
        SearchTool(CORPUS)("xylophone")
    assert str(failure.value) == 'No results found for "xylophone" in 6 pages.'
    assert classify_observation_text(str(failure.value)) is Status.EMPTY


def test_search_lists_pages_as_gta_does_and_takes_k() -> None:
    write_corpus(CORPUS, PAGES)
    found = SearchTool(CORPUS)("inhabitants 2024", k=2)
    assert [entry[:4] for entry in found.split("\n\n")] == ["1 - ", "2 - "]
    assert found == SearchTool(CORPUS)("inhabitants 2024", 2)
    assert SearchTool(CORPUS)("panda Quito").startswith('No page has all words of "panda Quito"; pages with some')


def test_a_corpus_of_the_workspace_is_read_anew_when_it_changes() -> None:
    tool = AskSearchAgent(CORPUS)
    write_corpus(CORPUS, {"Quito": "Quito lies at 2,850 metres."})
    assert "2,850" in tool("Quito")
    write_corpus(CORPUS, {"Quito": "Quito lies high, at 2,851 m."})
    assert "2,851" in tool("Quito")


def test_a_corpus_elsewhere_is_shared_and_may_be_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    (folder / "more").mkdir(parents=True)
    (folder / "rivers.md").write_text("# Nile\n\nThe Nile is 6,650 km long.\n", encoding="utf-8")
    (folder / "more" / "hills.txt").write_text("Etna\nEtna is 3,403 m high.", encoding="utf-8")
    tool = AskSearchAgent(str(folder))
    tool.warm_up()
    assert tool("how long is the Nile") == "Nile: The Nile is 6,650 km long."
    assert "3,403" in tool("Etna")


@pytest.mark.parametrize("corpus", ["", "nowhere", "bad.jsonl", "hollow"])
def test_without_a_corpus_the_tool_is_unavailable_and_says_why(corpus: str) -> None:
    Path("bad.jsonl").write_text('{"title": 1}\n')
    Path("hollow").mkdir()
    for tool in (SearchTool(corpus), AskSearchAgent(corpus)):
        with pytest.raises(Unavailable, match=f"{tool.name} is unavailable: .*(corpus|bad.jsonl, line 1)") as failure:
            tool("panda")
        assert failure.value.status is Status.TOOL_ERROR


def test_a_query_without_words_is_an_error() -> None:
    write_corpus(CORPUS, PAGES)
    with pytest.raises(ToolError, match="no words"):
        SearchTool(CORPUS)('"*" -- ()')


@given(st.text(max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_query_breaks_the_index(query: str) -> None:
    write_corpus(CORPUS, PAGES)
    for tool in (SearchTool(CORPUS), AskSearchAgent(CORPUS)):
        with contextlib.suppress(ToolFailure):
            assert tool(query)
