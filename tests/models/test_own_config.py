"""The tiny preset as a directory of its own: written, read back, the same policy; and refused where it is broken."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import tiny
from regrpo_jax.models.huggingface import load_policy, save_policy
from regrpo_jax.models.own_config import describe_own, parse_own
from regrpo_jax.models.policy import policy_functions


@given(vocab=st.integers(1, 5000), width=st.sampled_from((32, 64, 128)), images=st.booleans())
def test_every_size_comes_back(vocab: int, width: int, images: bool) -> None:
    config = tiny(vocab, hidden_size=width, images=images)
    assert parse_own(json.loads(json.dumps(describe_own(config)))) == tiny_with_default_choices(config)


def tiny_with_default_choices(config):
    import dataclasses

    return dataclasses.replace(config, remat="full")


@pytest.mark.parametrize("images", (True, False))
def test_weights_come_back(tmp_path: Path, images: bool) -> None:
    config = tiny(50, hidden_size=32, num_layers=2, images=images)
    params = policy_functions(config).init(jax.random.key(0))["params"]
    save_policy(tmp_path, config, params, token_ids={"image_token_id": 5}, own=True)
    loaded_config, loaded = load_policy(tmp_path, remat="none")
    assert loaded_config == config
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


@pytest.mark.parametrize("damage", ({"policy": {}}, {"policy": {"vocab_size": 3, "depth": 1}}, {"policy": 3}))
def test_a_damaged_description_is_named(tmp_path: Path, damage: dict) -> None:
    config = tiny(50, hidden_size=32, num_layers=2, images=False)
    save_policy(tmp_path, config, policy_functions(config).init(jax.random.key(0))["params"], own=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(UserError, match=str(path)):
        load_policy(tmp_path)
