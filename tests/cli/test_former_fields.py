"""Fields of earlier versions: named as they are now, and a run of then goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.config.checks import check_config
from regrpo_jax.config.command_line import field_values, parse_command_line
from regrpo_jax.config.fields import shares_of
from regrpo_jax.config.former_fields import FORMER, GONE, recorded_fields, what_became_of
from regrpo_jax.config.servers import Server, server_of
from regrpo_jax.errors import UserError
from regrpo_jax.run.record import check_earlier_start, record_run

KNOWN = field_values(base_config())
TINY = f"--config={Path(__file__).parents[1] / 'tiny_config.py'}"
EARLIER: dict[str, Any] = {
    "data.min_pixels": 3136, "data.max_pixels": 401408, "data.curriculum_start": 0.3, "data.curriculum_full": 0.5,
    "data.curriculum_success": 0.8, "data.curriculum_window": 20, "data.max_length": 1024, "sft.row_length": 512,
    "engine.error_types.GroundingDrift": 0.294, "engine.error_types.ToolMismatch": 0.246,
    "engine.error_types.ArgInvalid": 0.308, "engine.error_types.InfoInsufficient": 0.152,
    "engine.error_types.NonCommit": 0.0, "engine.error_types.CodeError": 0.0, "engine.proposer": "rules",
    "engine.annotator": "rules", "engine.natural": 0.5, "engine.failures_only": False, "engine.attempts": 40,
    "engine.shard_records": 1000, "lora.alpha": 16.0, "lora.vision_alpha": 16.0, "lora.vision_rank": 0,
    "model.logprob_chunk": 0, "suite.name": "toolrepair", "suite.path": "", "tools.builtin": ["all"],
    "tools.gta_names": False, "tools.corpus": "", "tools.search.url": "", "tools.search.model": "",
    "tools.search.key_variable": "", "tools.vision.url": "", "tools.vision.model": "", "tools.vision.key_variable": "",
    "online.clip_low": 0.2, "online.clip_high": 0.28, "online.success": "step", "online.first_attempt": "own",
    "online.normalize_advantages": True, "online.advantage_epsilon": 0.1, "online.forced_failures": 0.0,
    "online.middle_states": 0.0, "online.near_misses": 0.0, "player.base_url": "", "player.model": "",
    "player.key_variable": "", "player.timeout": 120.0, "eval.batch": 50, "rl.trainable": "lora",
}  # fmt: skip


def nested(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in fields.items():
        *sections, name = field.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return found


def test_every_former_field_is_none_and_names_one_that_is() -> None:
    for former in FORMER:
        field = former.now.partition("=")[0]
        assert field in KNOWN or field.partition(".optimizer")[0] in ("sft", "rl", "preference", "online"), field
        assert set(former.names) - KNOWN.keys(), former
    assert not GONE.keys() & KNOWN.keys()
    assert what_became_of("seed", KNOWN) == what_became_of("never.was", KNOWN) == ""
    assert what_became_of("audit.rot", KNOWN) == "config.audit.rot is config.data.rot=FILE now"


def test_a_record_of_then_says_the_same_in_fields_of_now() -> None:
    found = recorded_fields(nested(EARLIER))
    defaults = json.loads(json.dumps(KNOWN))
    assert {field: value for field, value in found.items() if defaults.get(field) != value} == {
        "rl.optimizer.trainable": "lora"
    }


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"player.base_url": "http://a/v1", "player.model": "m"}, "player.server", "http://a/v1 m"),
        ({"tools.search.url": "http://a", "tools.search.key_variable": "K"}, "tools.search", "http://a K"),
        ({"tools.corpus": "books.jsonl"}, "tools.search", "books.jsonl"),
        ({"tools.gta_names": True}, "tools.builtin", ["all", "gta_names"]),
        ({"suite.name": "folder", "suite.path": "tasks"}, "suite.name", "tasks"),
        ({"engine.annotator": "teacher"}, "engine.teacher", ["reflections"]),
        ({"engine.failures_only": True}, "engine.natural", 1.0),
        ({"online.success": "episode", "online.first_attempt": "shared"}, "online.credit", "episode"),
        ({"online.near_misses": 0.3}, "online.starts", ["near_misses=0.3"]),
        ({"online.normalize_advantages": False}, "online.advantage_epsilon", 0.0),
        ({"engine.attempts": 3}, "engine.attempts", 3),  # which no config of now can say
    ],
)
def test_what_was_set_then_is_set_now(changes: dict[str, Any], field: str, value: Any) -> None:
    assert recorded_fields(nested(EARLIER | changes))[field] == value


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = parse_command_line([TINY, "--workdir=x"])
    record_run(config, tmp_path)
    path = tmp_path / "config.json"
    now = json.loads(path.read_text())["config"]
    for section in ("data", "online", "engine", "tools", "suite", "lora", "requests", "sft"):
        del now[section]  # as of a version that had none of these fields
    del now["optimizer"]["trainable"], now["rl"]["optimizer"]
    of_then = nested(EARLIER | {"sft.row_length": 256, "sft.trainable": "auto"})
    for section, fields in of_then.items():
        now[section] = now.get(section, {}) | fields
    now["data"] |= {name: value for name, value in config.data.items() if name in ("rot", "clean", "eval_rot")}
    now["data"] |= {name: list(config.data[name]) for name in ("prefix_buckets", "branch_buckets")}
    now["lora"]["rank"] = 2
    now["sft"] |= {"steps": 12, "batch_rows": 2}
    path.write_text(json.dumps({"config": now}))
    assert check_earlier_start(config, tmp_path)
    assert capsys.readouterr().out == ""
    now["data"]["max_pixels"] = 1000
    path.write_text(json.dumps({"config": now}))
    with pytest.raises(UserError, match=r"holds a run with other data\.pixels"):
        check_earlier_start(config, tmp_path)


def test_the_command_line_gives_a_stage_its_own_optimizer() -> None:
    config, _ = parse_command_line(
        [TINY, "--workdir=x", "--config.sft.optimizer.weight_decay=0.5", "--config.sft.optimizer.trainable", "lora"]
    )
    check_config(config)
    assert dict(config.sft.optimizer) == {"weight_decay": 0.5, "trainable": "lora"} and config.is_locked
    assert config.optimizer.weight_decay == 0.0


def test_a_server_is_one_text_and_never_tells_what_may_be_a_key() -> None:
    assert server_of("http://a/v1 m KEY") == Server("http://a/v1", "m", "KEY")
    assert server_of("http://a KEY", model=False) == Server("http://a", "", "KEY")
    for wrong in ("http://a/v1", "a/v1 m", "http://a/v1 m KEY more", "http://a/v1 m sk-secret"):
        with pytest.raises(UserError) as error:
            server_of(wrong)
        assert "secret" not in str(error.value)


def test_shares_by_name() -> None:
    known = {"a": 0.3, "b": None}
    assert shares_of(("b=0.5", "a"), known) == {"b": 0.5, "a": 0.3}
    for wrong in ("b", "c=0.1", "a=0", "a=2", "a=x"):
        with pytest.raises(UserError, match="is no share"):
            shares_of((wrong,), known)
