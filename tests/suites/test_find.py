"""What a config makes of a suite: the words in which its policy is told of the tools."""

from pathlib import Path

import pytest

from regrpo_jax.agent.prompt import BRIEF, RELEASE
from regrpo_jax.config.base_config import base_config
from regrpo_jax.engine.suite_source import situation_of
from regrpo_jax.errors import UserError
from regrpo_jax.stages.online import collect_settings
from regrpo_jax.suites.find import suite_of


def test_records_and_live_episodes_are_told_the_same_words(tmp_path: Path) -> None:
    config = base_config()
    (tmp_path / "words.txt").write_text("Do as you are told.\n{tools}\nNow begin.\n")
    for system, begins in (
        ("", BRIEF),
        ("release", RELEASE.partition("{tools}")[0]),
        (str(tmp_path / "words.txt"), "Do as you are told."),
    ):
        config.suite.system = system
        suite = suite_of(config)
        (task,) = suite.tasks("train", 1, 3)
        live = collect_settings(config, tmp_path, None, branches=1).system_text(task)
        recorded = situation_of(task, suite.tools, brief=suite.brief).system
        assert live == recorded and live.startswith(begins)
        assert all(name in live for name in task.tools if name != "final_answer")
    assert live.endswith("\nNow begin.")


def test_words_that_cannot_be_had(tmp_path: Path) -> None:
    config = base_config()
    (tmp_path / "words.txt").write_text("Do as you are told.")
    for system, words in (
        (str(tmp_path / "words.txt"), "says nothing of the tools; write {tools}"),
        (str(tmp_path / "none.txt"), "cannot be read"),
    ):
        config.suite.system = system
        with pytest.raises(UserError) as told:
            suite_of(config)
        assert words in str(told.value) and "\n" not in str(told.value)
