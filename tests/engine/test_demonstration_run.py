"""Demonstrations as a person asks the data stage for them: written once, and what the supervised stage reads."""

from pathlib import Path

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.corpus import load_corpus
from regrpo_jax.errors import UserError
from regrpo_jax.run.corpus_files import with_corpus
from regrpo_jax.run.run import Run
from regrpo_jax.stages.data import run


def test_demonstrations_are_what_a_later_stage_trains_on(tmp_path: Path) -> None:
    config = base_config()
    config.data.source = "toolrepair"
    config.engine.records, config.engine.demonstrations = 0, 6
    config.suite.families = ("moved",)
    config = with_corpus(config, tmp_path)
    run(Run(config, tmp_path))
    assert not config.data.rot and not (tmp_path / "summary.json").exists()
    corpus = load_corpus(config, needs_clean=True, needs_rot=False)
    episodes = [record for record in corpus.clean if record.id.startswith("demonstration_")]
    assert len(episodes) == 6 and len(corpus.clean) > 6  # drills beside them
    shard = next((tmp_path / "corpus").glob("demonstrations-*.jsonl"))
    before = shard.stat().st_mtime_ns
    run(Run(config, tmp_path))
    assert shard.stat().st_mtime_ns == before  # played once


def test_demonstrations_of_something_else_are_refused(tmp_path: Path) -> None:
    config = base_config()
    config.data.source = "toolrepair"
    config.engine.demonstrations, config.suite.profile = 6, "full"
    with pytest.raises(UserError, match="demonstrations=6 needs .*'compact', not 'toolrepair' and 'full'"):
        run(Run(config, tmp_path))
