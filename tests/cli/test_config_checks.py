"""The tables of allowed values speak of fields that exist, and agree with the code that takes the values."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config, declared, stage_section
from regrpo_jax.config.checks import TRAINING_STAGES, check_config
from regrpo_jax.config.command_line import _list_of, field_values, load_config, parse_command_line
from regrpo_jax.config.fields import declared_fields
from regrpo_jax.core.advantages import BASELINES
from regrpo_jax.core.kl import KL_ESTIMATORS
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.huggingface import param_shapes
from regrpo_jax.stages.table import STAGES, check_stages

ROOT = Path(__file__).resolve().parents[2]
FIELDS = declared_fields(declared())
LOWEST = {field: int(bound.remedy.split()[-1]) for field, bound in FIELDS.items() if "at least" in bound.remedy
          and "below" not in bound.remedy}  # fmt: skip


def test_choices_are_those_of_the_code() -> None:
    assert set(FIELDS["objective.kl_estimator"].choices) == set(KL_ESTIMATORS)
    assert set(FIELDS["objective.baseline"].choices) == set(BASELINES)
    assert set(TRAINING_STAGES) == {name for name, stage in STAGES.items() if stage.batch}


@pytest.mark.parametrize("gated", [False, True])
def test_targets_are_the_projections_of_the_blocks(gated: bool) -> None:
    vision = VisionConfig(depth=1, embed_dim=16, num_heads=2, intermediate_size=16, patch_size=2, gated=gated)
    shapes = param_shapes(PolicyConfig(8, 16, 16, 1, 2, 2, 8, vision=vision))
    projections = {path.rsplit("/", 2)[-2] for path in shapes if path.endswith("kernel") and path.startswith("layers")}
    assert set(FIELDS["lora.targets"].choices) == projections
    tower = {path.split("/")[2] for path in shapes if path.endswith("kernel") and path.startswith("vision/blocks")}
    other = {"fc1", "fc2"} if gated else {"gate_proj", "up_proj", "down_proj"}
    assert set(FIELDS["lora.vision_targets"].choices) == tower | other


def test_every_number_is_looked_at() -> None:
    fields = field_values(base_config())
    numbers = {name for name, value in fields.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    assert numbers - FIELDS.keys() == {
        "seed",
        "model.vocab_size",
    }  # any seed will do; the tokenizer tells its own minimum


@pytest.mark.parametrize("path", [*sorted((ROOT / "configs").glob("*.py")), ROOT / "tests" / "tiny_config.py"])
def test_configs_of_the_project_are_good(path: Path) -> None:
    config = load_config(path)
    assert config.is_locked
    check_config(config)
    check_stages(config)


@pytest.mark.parametrize("field", sorted(LOWEST))
def test_a_number_below_its_lowest_is_refused(field: str) -> None:
    config = base_config()
    lowest = type(field_values(config)[field])(LOWEST[field] - 1)
    config.update_from_flattened_dict({field: lowest})
    with pytest.raises(UserError, match=rf"config\.{field} is -?\d.*; it must be at least {LOWEST[field]}"):
        check_config(config)


@pytest.mark.parametrize(
    "places", [("wandb",), ("wandb:",), ("tensorbord",), ("tensorboard:x",), ("mlflow:a", "mlflow:b"), (3,)]
)
def test_boards_that_there_are_not_are_refused(places: tuple[object, ...]) -> None:
    config = base_config()
    config.log_to = places
    with pytest.raises(UserError, match=r"config\.log_to is .*; list some of 'tensorboard', 'wandb:PROJECT', .* once"):
        check_config(config)


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("objective.eta", "1e-3", 1e-3),
        ("objective.eta", "1", 1.0),
        ("rl.steps", "7", 7),
        ("objective.advantage_clip", "2.5", 2.5),
        ("model.images", "False", False),
        ("model.images", "1", True),
        ("stages", "rl", ("rl",)),
        ("stages", "('sft', 'eval')", ("sft", "eval")),
        ("stages", "'sft','eval'", ("sft", "eval")),
        ("log_to", "wandb:shop", ("wandb:shop",)),
        ("log_to", "('tensorboard', 'mlflow:http://here:5000')", ("tensorboard", "mlflow:http://here:5000")),
        ("data.branch_buckets", "(64, 128)", (64, 128)),
        ("data.rot", "a=b.json", "a=b.json"),
        ("data.rot", "none", "none"),
    ],
)
def test_overrides_keep_the_type_of_the_field(field: str, text: str, value: object) -> None:
    config, workdir = parse_command_line(
        [f"--config={ROOT / 'tests' / 'tiny_config.py'}", "--workdir", "a run", f"--config.{field}={text}"]
    )
    found = field_values(config)[field]
    assert found == value and type(found) is type(value)
    assert workdir == Path("a run")


def overridden(field: str, text: str) -> object:
    told = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", "--workdir=x", f"--config.{field}", text]
    return field_values(parse_command_line(told)[0])[field]


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("suite.families", "moved,search", ("moved", "search")),
        ("suite.families", "moved, search,", ("moved", "search")),
        ("suite.families", "[moved,search]", ("moved", "search")),
        ("suite.families", "2024,007", ("2024", "007")),
        ("suite.families", "", ()),
        ("suite.difficulties", "1,3", (1, 3)),
        ("suite.difficulties", "2", (2,)),
        ("data.branch_buckets", "[64, 128]", (64, 128)),
        ("tools.mcp", "'shop=python a.py --x 1,2',b=c", ("shop=python a.py --x 1,2", "b=c")),
        ("tools.mcp", "shop=python 'my, server.py'", ("shop=python 'my, server.py'",)),
    ],
)
def test_a_list_is_written_with_commas(field: str, text: str, value: object) -> None:
    assert overridden(field, text) == value


ITEMS = st.text(st.characters(codec="utf-8", exclude_characters="\"'\\,()[]"), min_size=1, max_size=6).map(str.strip)


@settings(deadline=None, max_examples=30)
@given(st.lists(ITEMS.filter(bool), max_size=4), st.sampled_from((", ", ",")), st.data())
def test_what_is_listed_is_what_is_read(items: list[str], comma: str, data: st.DataObject) -> None:
    quotes = [data.draw(st.sampled_from(("", "'", '"'))) for _ in items]
    text = comma.join(f"{quote}{item}{quote}" for item, quote in zip(items, quotes, strict=True))
    held = tuple(items)
    assert _list_of("--f", text, ("a",)) == _list_of("--f", repr(held), ()) == held
    assert _list_of("--f", f"[{text}]", ["a"]) == items


def test_a_list_of_numbers_takes_numbers_alone() -> None:
    with pytest.raises(UserError, match=r"--config.suite.difficulties=1,hard: list numbers, parted by commas"):
        parse_command_line(
            [f"--config={ROOT / 'tests' / 'tiny_config.py'}", "--workdir=x", "--config.suite.difficulties=1,hard"]
        )


def test_the_last_override_counts() -> None:
    arguments = [
        f"--config={ROOT / 'tests' / 'tiny_config.py'}",
        "--workdir=x",
        "--config.seed=1",
        "--config.seed",
        "2",
    ]
    assert parse_command_line(arguments)[0].seed == 2


def test_a_stage_may_have_settings_of_the_optimizer_of_its_own() -> None:
    config = base_config()
    config.optimizer.microbatches = 2
    config.rl.optimizer = ConfigDict({"weight_decay": 0.5})
    check_config(config)
    rl, sft = (stage_section(config, stage) for stage in ("rl", "sft"))
    assert (rl.weight_decay, rl.microbatches, rl.eta) == (0.5, 2, 0.1)
    assert (sft.weight_decay, sft.microbatches) == (0.0, 2)
    config.rl.optimizer = ConfigDict({"weight_decay": -1.0})
    with pytest.raises(UserError, match=r"config\.rl\.optimizer\.weight_decay is -1\.0; it must be at least 0"):
        check_config(config)
    config.rl.optimizer = ConfigDict({"weight_decay": "much"})
    with pytest.raises(UserError, match=r"config\.rl\.optimizer\.weight_decay is 'much'; give a number such as 0\.0"):
        check_config(config)
    config.rl.optimizer = ConfigDict({"wait_decay": 1.0})
    with pytest.raises(UserError, match=r"has the unknown rl\.optimizer\.wait_decay"):
        check_config(config)
