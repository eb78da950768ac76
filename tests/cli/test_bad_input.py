"""What a person can get wrong: every mistake ends in one line that names it, exit status 2, and no checkpoint."""

import copy
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.data.tokenizer import train_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.main import main, run_from_command_line
from regrpo_jax.sandbox.results import SandboxError
from tests.compact_records import FEW, CorpusPaths

ROOT = Path(__file__).resolve().parents[2]
SERVED = ["--config.player.server=http://localhost:8000/v1 m", "--config.model.path=m"]
CONFIG = f"--config={ROOT / 'tests' / 'tiny_config.py'}"

# Arguments beside the config and the workdir -> words of the message. None of these gets as far as importing jax.
EARLY_MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "unknown_field": (["--config.objective.etaa=1"], ["objective.etaa", "did you mean --config.objective.eta?"]),
    "unknown_section": (["--config.rll.eta=1"], ["rll.eta", "did you mean --config.objective.eta?"]),
    "field_without_section": (
        ["--config.learning_rate=1"],
        ["did you mean --config.", "rl.learning_rate", "sft.learning_rate", "online.learning_rate?"],
    ),
    "section_as_field": (["--config.rl=1"], ["--config.rl", "no such field"]),
    "field_as_section": (["--config.seed.x=1"], ["--config.seed.x", "no such field"]),
    "text_for_float": (["--config.objective.eta=abc"], ["--config.objective.eta=abc", "to float"]),
    "float_for_int": (["--config.rl.steps=2.5"], ["--config.rl.steps=2.5", "for int()"]),
    "text_for_bool": (["--config.model.images=maybe"], ["--config.model.images=maybe", "boolean"]),
    "text_for_tuple_of_int": (["--config.data.branch_buckets=('64','x')"], ["config.data.branch_buckets"]),
    "none_for_number": (["--config.objective.eta=none"], ["--config.objective.eta=none", "to float"]),
    "field_without_value": (["--config.objective.eta"], ["Missing value", "--config.objective.eta"]),
    "unknown_flag": (["--rl.eta=1"], ["--rl.eta: unknown flag", "did you mean --config.objective.eta?"]),
    "misspelled_flag": (["--wrkdir=x"], ["--wrkdir: unknown flag", "did you mean --workdir?"]),
    "stray_word": (["train"], ["unexpected argument 'train'"]),
    "unknown_stage": (
        ["--config.stages=('sft','rll')"],
        ["config.stages", "'rll'", "sft, rl, preference, online, recovery, benchmark"],
    ),
    "stage_twice": (["--config.stages=('rl','rl')"], ["config.stages", "'rl' twice"]),
    "no_stage": (["--config.stages=()"], ["config.stages is empty"]),
    "unknown_policy": (
        ["--config.data.on_bad_record=drop"],
        ["config.data.on_bad_record", "'drop'", "'skip' or 'fatal'"],
    ),
    "unknown_conditioning": (["--config.data.conditioning=ours"], ["config.data.conditioning", "'paper' or 'release'"]),
    "unknown_estimator": (
        ["--config.objective.kl_estimator=k4"],
        ["config.objective.kl_estimator", "'k4'", "'k3_release'"],
    ),
    "unknown_baseline": (["--config.objective.baseline=median"], ["config.objective.baseline", "'leave_one_out'"]),
    "unknown_zero_variance": (
        ["--config.objective.zero_variance=drop"],
        ["config.objective.zero_variance", "'keep_kl'"],
    ),
    "unknown_trainable": (
        ["--config.sft.optimizer.trainable=Lora"],
        ["config.sft.optimizer.trainable", "'Lora'", "'full' or 'lora'"],
    ),
    "unknown_remat": (["--config.model.remat=some"], ["config.model.remat", "'none' or 'dots' or 'full'"]),
    "unknown_dtype": (["--config.model.dtype=float8"], ["config.model.dtype", "'bfloat16'"]),
    "unknown_target": (["--config.lora.targets=('q_proj','qkv')"], ["config.lora.targets", "'qkv'", "gate_proj"]),
    "unknown_vision_target": (["--config.lora.vision_targets=('q_proj',)"], ["config.lora.vision_targets", "fc1"]),
    "few_bits_trained": (
        ["--config.model.quantize=int8", "--config.optimizer.trainable=full"],
        ["config.optimizer.trainable is 'full'", "choose 'lora'"],
    ),
    "unknown_bits": (["--config.model.quantize=int3"], ["config.model.quantize is 'int3'", "'nf4'"]),
    "negative_price": (["--config.objective.eta=-1"], ["config.objective.eta is -1.0", "at least 0"]),
    "not_a_number": (["--config.rl.beta=nan"], ["config.rl.beta is nan"]),
    "no_learning": (["--config.sft.learning_rate=0"], ["config.sft.learning_rate is 0.0", "above 0"]),
    "ratio_above_one": (["--config.sft.clean_ratio=2"], ["config.sft.clean_ratio is 2.0", "between 0 and 1"]),
    "odd_width": (["--config.model.hidden_size=48"], ["config.model.hidden_size is 48", "multiple of 32"]),
    "no_bucket": (["--config.data.prefix_buckets=()"], ["config.data.prefix_buckets"]),
    "no_size": (
        ["--config.data.pixels=(9000, 8000)"],
        ["config.data.pixels is (9000, 8000)", "not below the first"],
    ),
    "one_bound": (["--config.online.clip=0.2"], ["config.online.clip is (0.2,)", "give 2 numbers"]),
    "a_key_in_the_place_of_its_variable": (
        ["--config.teacher.server=https://a.com/v1 m sk-secret"],
        ["config.teacher.server is 'https://a.com/v1'", "KEY_VARIABLE"],
    ),
    "a_teacher_without_a_server": (
        ["--config.stages=data", "--config.engine.teacher=reflections"],
        ["config.engine.teacher is ('reflections',)", "name config.teacher.server"],
    ),
    "unknown_type": (["--config.engine.error_types=TypoError=0.5"], ["config.engine.error_types", "GroundingDrift"]),
    "a_type_without_a_share": (["--config.engine.error_types=CodeError"], ["ArgInvalid, InfoInsufficient may stand"]),
    "former_field": (
        ["--config.player.base_url=http://localhost:8000/v1"],
        ["config.player.base_url is config.player.server='ADDRESS MODEL KEY_VARIABLE' now"],
    ),
    "former_section": (
        ["--config.sft.trainable=lora"],
        ["is config.sft.optimizer.trainable=.., or config.optimizer.trainable=.. of all stages now"],
    ),
    "field_of_no_use": (["--config.checkpoint.keep=3"], ["config.checkpoint.keep is no field any more, it is 2"]),
    "several_splits": (
        ["--config.stages=baselines", "--config.recovery.splits=('train','test')"],
        ["config.recovery.splits", "plays one split"],
    ),
    "curriculum_of_nothing": (
        ["--config.stages=online", "--config.data.curriculum=linear"],
        ["config.data.curriculum is 'linear'", "neither is in config.stages"],
    ),
    "more_than_all": (
        ["--config.online.starts=('middle_states=0.7', 'near_misses=0.5')"],
        ["config.online.starts is ('middle_states=0.7', 'near_misses=0.5')", "at most 1"],
    ),
    "held_back_for_nothing": (
        ["--config.stages=recovery", "--config.agent.timing=pre", "--config.online.algorithm=grpo"],
        ["config.agent.timing is 'pre'", "choose 'post'"],
    ),
    "reflects_and_never_does": (
        ["--config.stages=online", "--config.agent.gate=never"],
        ["config.agent.gate is 'never'", "config.online.algorithm='grpo'"],
    ),
    "no_failure_to_force": (
        ["--config.stages=online", "--config.online.starts=forced_failures=0.1", "--config.suite.surprises=0"],
        ["config.online.starts is ('forced_failures=0.1',)", "config.suite.surprises above 0"],
    ),
    "stale_without_weights": (
        ["--config.stages=online", "--config.online.staleness=1"],
        ["config.online.staleness is 1", "config.online.weight_cap", "importance weights"],
    ),
    "stale_on_shared_weights": (
        [
            "--config.stages=online",
            "--config.online.staleness=1",
            "--config.online.weight_cap=2",
            "--config.mesh.model=2",
        ],
        ["config.online.staleness is 1", "config.mesh.model=1"],
    ),
    "served_weights_do_not_learn": (
        ["--config.stages=('online','recovery')", *SERVED, "--config.online.optimizer.trainable=full"],
        ["config.online.optimizer.trainable is 'full'", "a server can be given an adapter"],
    ),
    "an_engine_without_a_model": (
        ["--config.stages=recovery", "--config.player.server=http://localhost:8000/v1"],
        ["config.player.server is 'http", "'ADDRESS MODEL'"],
    ),
    "a_served_model_that_is_not_here": (
        ["--config.stages=('sft','recovery')", SERVED[0], "--config.optimizer.trainable=lora"],
        ["config.player.server is 'http", "name config.model.path, the same model on disk"],
    ),
    "another_engine_without_weights": (
        ["--config.stages=online", *SERVED, "--config.optimizer.trainable=lora"],
        ["config.online.weight_cap is None", "needs importance weights"],
    ),
    "ray_client": (["--config.workers.address=ray://head:10001"], ["config.workers.address is 'ray://", "HOST:PORT"]),
    "no_amount": (["--config.workers.resources=tools"], ["config.workers.resources is ('tools',)", "NAME=NUMBER"]),
    "no_record": (["--config.eval.records=0"], ["config.eval.records is 0", "at least 1"]),
    "unresumable": (["--config.checkpoint.every=5"], ["config.checkpoint.every=5", "config.log_every=2"]),
}
SMALL_MODEL = {
    "model_type": "qwen2", "vocab_size": 100, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 0,
    "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
}  # fmt: skip
# Text of the config file (None: there is no file) -> words of the message.
BAD_CONFIGS: dict[str, tuple[str | None, list[str]]] = {
    "missing": (None, ["config.py", "No such file"]),
    "syntax": ("def get_config(:\n", ["config.py, line 1", "invalid syntax"]),
    "no_function": ("config = 1\n", ["config.py", "defines no get_config()"]),
    "returns_nothing": (
        "def get_config():\n    return None\n",
        ["config.py", "must return a ConfigDict, not NoneType"],
    ),
    "raises": ("def get_config():\n    return 1 + ''\n", ["config.py, line 2", "TypeError"]),
    "misspells": (
        "from regrpo_jax.config.base_config import base_config\n\n\n"
        "def get_config():\n    config = base_config()\n    config.objective.etaa = 1\n    return config\n",
        ["config.py, line 6", '"etaa"', 'Did you mean "eta" instead of "etaa"?'],
    ),
    "a_former_field": (
        "from regrpo_jax.config.base_config import base_config\n\n\n"
        "def get_config():\n    config = base_config()\n    config.eval.batch = 2\n    return config\n",
        ["config.py, line 6: config.eval.batch is config.played_at_once=NUMBER now"],
    ),
    "its_own_fields": (
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({'steps': 1})\n",
        ["lacks", "objective.eta", "unknown steps", "base_config()"],
    ),
}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "regrpo_jax.main", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600
    )


def check_told(done: subprocess.CompletedProcess[str], words: list[str]) -> None:
    """Exit status 2, one line on standard error with all of the words, nothing else."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def no_checkpoint(workdir: Path) -> bool:
    return not list(workdir.glob("checkpoints/*/*"))


@pytest.fixture
def corpus() -> CorpusPaths:
    return FEW


@pytest.fixture
def start(tmp_path: Path, corpus: CorpusPaths) -> Callable[..., None]:
    """`main` on the corpus in files, with overrides as keywords; "objective__eta" stands for rl.eta."""

    def run(**overrides: Any) -> None:
        chosen = {"data__rot": corpus.rot_train, "data__clean": corpus.clean_train} | overrides
        main([CONFIG, f"--workdir={tmp_path / 'run'}"]
             + [f"--config.{name.replace('__', '.')}={value}" for name, value in chosen.items()])  # fmt: skip

    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def to_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return to_file


def records_of(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", EARLY_MISTAKES)
def test_mistake_on_the_command_line(case: str, tmp_path: Path) -> None:
    arguments, words = EARLY_MISTAKES[case]
    check_told(command(CONFIG, f"--workdir={tmp_path / 'run'}", *arguments), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_mistake_in_the_config_file(case: str, tmp_path: Path) -> None:
    text, words = BAD_CONFIGS[case]
    path = tmp_path / "config.py"
    if text is not None:
        path.write_text(text)
    check_told(command(f"--config={path}", f"--workdir={tmp_path / 'run'}"), words)
    assert not (tmp_path / "run").exists()


def test_missing_flags(tmp_path: Path) -> None:
    check_told(command(f"--workdir={tmp_path}"), ["--config is missing", "--help"])
    check_told(command(CONFIG), ["--workdir is missing", "--help"])
    check_told(command(CONFIG, "--workdir"), ["Missing value for flag --workdir"])


def test_config_that_is_a_folder_or_no_text(tmp_path: Path, write: Callable[[str, bytes], Path]) -> None:
    check_told(command(f"--config={tmp_path}", "--workdir=x"), [str(tmp_path), "Is a directory"])
    binary = write("config.py", b"\xff\xfe\x00")
    check_told(command(f"--config={binary}", "--workdir=x"), [str(binary), "not a text file"])


def test_a_mistake_found_by_the_pipeline_exits_like_the_others(tmp_path: Path) -> None:
    done = command(CONFIG, f"--workdir={tmp_path / 'run'}", "--config.stages=eval", "--config.data.rot=lost.json")
    check_told(done, ["lost.json", "there is no such file"])
    assert no_checkpoint(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["the file is empty"]),
        ('[{"id": "a", ', ["invalid or truncated JSON at line 1, column"]),
        ('{"id": 1}\n{"id": \n', ["invalid or truncated JSON at line 2"]),
        ("[]", ["none of its 0 records"]),
        ("3", ["not a list of objects"]),
        (b"\xff\xfe{}", ["invalid or truncated JSON at line 1"]),
    ],
)
def test_data_file_that_cannot_be_read(
    content: str | bytes, words: list[str], start: Callable[..., None], write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write("records.json", content)
    for field in ("data__rot", "data__clean", "data__eval_rot"):
        with pytest.raises(UserError) as error:
            start(**{field: path})
        assert str(path) in str(error.value)
        assert all(word in str(error.value) for word in words), error.value
    assert no_checkpoint(tmp_path / "run")


def test_folder_as_data_file(start: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is a directory"):
        start(data__rot=tmp_path)


def test_a_mistyped_path_can_be_mended_under_the_same_workdir(
    start: Callable[..., None], corpus: CorpusPaths, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"lost\.json: there is no such file"):
        start(data__rot=tmp_path / "lost.json")
    start(sft__steps=0, rl__steps=0)
    assert (tmp_path / "run" / "config.json").exists()
    with pytest.raises(UserError, match=r"holds a run with other data\.rot"):
        start(data__rot=corpus.rot_test)


def test_other_model_in_the_same_workdir(start: Callable[..., None], tmp_path: Path) -> None:
    start(sft__steps=0, rl__steps=0)
    with pytest.raises(UserError, match=r"holds a run with other model\.num_layers, seed"):
        start(seed=1, model__num_layers=2)
    (tmp_path / "run" / "config.json").write_text('{"conf')
    with pytest.raises(UserError, match=r"config\.json: cannot be read as the record of an earlier start"):
        start()


def test_record_without_an_assistant_turn(
    start: Callable[..., None],
    write: Callable[..., Path],
    corpus: CorpusPaths,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    clean = records_of(corpus.clean_train)
    mute = copy.deepcopy(clean[0]) | {"id": "mute"}
    mute["conversations"] = [turn for turn in mute["conversations"] if turn["role"] != "assistant"]
    path = write("clean.json", json.dumps([clean[1], mute, *clean[2:]]))
    with caplog.at_level(logging.WARNING):
        start(data__clean=path, sft__steps=0, rl__steps=0)
    told = [message for message in caplog.messages if "mute" in message]
    assert len(told) == 1
    assert f"{path}: record 1 (id 'mute') is skipped: no_assistant_turn" in told[0]

    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(UserError, match=r"record 1 \(id 'mute'\) cannot be used: no_assistant_turn"):
        start(data__clean=path, data__on_bad_record="fatal", sft__steps=0)


def test_record_that_exceeds_the_budget(
    start: Callable[..., None],
    write: Callable[..., Path],
    corpus: CorpusPaths,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    rot = records_of(corpus.rot_train)
    path = write("rot.json", json.dumps([_with_long_action(rot[0]), *rot[1:]]))
    told = f"{path}: record endless: the correct branch has"
    with pytest.raises(UserError) as error:
        start(stages="rl", data__rot=path, data__on_bad_record="fatal", rl__groups_per_batch=len(rot))
    assert told in str(error.value)
    assert "config.data.branch_buckets is 192" in str(error.value)
    assert no_checkpoint(tmp_path / "run")

    (tmp_path / "run" / "config.json").unlink()
    with caplog.at_level(logging.WARNING):
        start(stages="rl", data__rot=path, rl__steps=1, rl__groups_per_batch=len(rot))
    assert [message.startswith(f"skipped {told}") for message in caplog.messages if "endless" in message] == [True]
    assert (tmp_path / "run" / "checkpoints" / "rl" / "1").is_dir()


def test_conversation_that_exceeds_the_length(
    start: Callable[..., None], write: Callable[..., Path], corpus: CorpusPaths, tmp_path: Path
) -> None:
    path = write("rot.json", json.dumps([_with_long_action(records_of(corpus.rot_train)[0])]))
    with pytest.raises(UserError, match=r"rot\.json: no record fits"):
        start(stages="sft", data__rot=path)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(UserError, match=r"record endless: \d+ tokens exceed config\.sft\.row_length=256; raise it"):
        start(stages="sft", data__rot=path, data__on_bad_record="fatal")
    assert no_checkpoint(tmp_path / "run")


def test_hugging_face_folder_without_a_chat_template(start: Callable[..., None], tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a thought"], vocab_size=300)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps(SMALL_MODEL))
    with pytest.raises(UserError, match=r"model: the tokenizer has no chat template; add `chat_template\.jinja`"):
        start(model__path=tmp_path / "model")
    with pytest.raises(UserError, match=r"lost/config\.json: no such file"):
        start(model__path=tmp_path / "lost")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text(json.dumps(SMALL_MODEL))
    (tmp_path / "damaged" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged: no tokenizer could be read"):
        start(model__path=tmp_path / "damaged")
    assert not (tmp_path / "run" / "config.json").exists()


def test_tokenizer_of_another_model(start: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    train_tokenizer(["a thought"], vocab_size=300).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(SMALL_MODEL))
    with pytest.raises(UserError, match=r"the tokenizer has \d+ tokens, but config\.json says .* 100"):
        start(model__path=folder)
    (folder / "config.json").write_text(json.dumps(SMALL_MODEL | {"vocab_size": 300}))
    with pytest.raises(UserError, match=r"model/model\.safetensors: no such file"):
        start(model__path=folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lora__last_layers": 3}, r"config\.lora\.last_layers is 3; the decoder has 1 layers"),
        ({"lora__vision_rank": 4}, r"config\.lora\.vision_rank is set, but this policy has no vision tower"),
        ({"lora__path": "nowhere"}, r"nowhere/adapter_config\.json: no such file; config\.lora\.path must be"),
    ],
)
def test_adapter_that_the_policy_cannot_have(
    start: Callable[..., None], tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        start(**overrides)
    assert no_checkpoint(tmp_path / "run")


def test_workdir_that_cannot_be_written(corpus: CorpusPaths, write: Callable[..., Path]) -> None:
    path = write("a_file", "x")
    for workdir in (path, path / "run"):
        with pytest.raises(UserError, match=rf"--workdir={workdir}: cannot be written \(.+\); choose another folder"):
            main([CONFIG, f"--workdir={workdir}"])


def test_batches_that_do_not_split(start: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.sft\.batch_rows=3 does not split over \d+ .*device.* 2 microbatch"):
        start(sft__batch_rows=3, optimizer__microbatches=2)
    # Told before the supervised stage has cost hours.
    with pytest.raises(UserError, match=r"config\.rl\.groups_per_batch=5 .* make it a multiple of \d+"):
        start(rl__groups_per_batch=5, optimizer__microbatches=2)
    assert no_checkpoint(tmp_path / "run")


def test_rows_that_hold_a_part_of_an_image_token(start: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.sft\.row_patches is 130; it must be a multiple of 4, .* such as 132"):
        start(model__images=True, sft__row_patches=130)
    assert no_checkpoint(tmp_path / "run")
    start(sft__row_patches=130, sft__steps=0, rl__steps=0)  # a text policy has no patches


@pytest.mark.parametrize(
    ("kernel", "needs"), [("cudnn", "a GPU and config.model.dtype='bfloat16'"), ("splash", "a TPU")]
)
def test_attention_of_another_device(start: Callable[..., None], tmp_path: Path, kernel: str, needs: str) -> None:
    with pytest.raises(UserError) as error:
        start(model__attention=kernel)
    told = f"config.model.attention is '{kernel}', which needs {needs}; choose 'auto', because this run computes on cpu"
    assert str(error.value) == f"{told} in float32"
    assert no_checkpoint(tmp_path / "run")


def test_evaluation_without_records(start: Callable[..., None], write: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"config\.data\.rot is empty"):
        start(stages="eval", data__rot="")
    with pytest.raises(UserError, match=r"none of its 0 records can be used"):
        start(stages="eval", data__eval_rot=write("none.json", "[]"))


def test_clean_records_are_asked_for_only_where_they_are_needed(start: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=r"config\.data\.clean is empty but config\.sft\.clean_ratio=0\.5"):
        start(data__clean="")
    start(data__clean="", sft__clean_ratio=0, sft__steps=0, rl__steps=0)


def _with_long_action(record: dict[str, Any]) -> dict[str, Any]:
    """The record, its corrected action beginning with a comment that no bucket of the tiny config holds."""
    changed = copy.deepcopy(record) | {"id": "endless"}
    old = changed["rot_meta"]["corrected_action"]
    new = old.replace("```py\n", "```py\n# " + "0123456789 " * 100 + "\n")
    assert new != old
    changed["rot_meta"]["corrected_action"] = new
    for turn in changed["conversations"]:
        turn["content"] = turn["content"].replace(old, new)
    return changed


def test_a_run_to_replay_that_is_not_there(start: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"elsewhere/rollouts: no rollouts are stored here"):
        start(stages="('sft','online')", online__replay=tmp_path / "elsewhere")
    assert no_checkpoint(tmp_path / "run")


def test_a_sandbox_that_fails_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def fails(arguments: object) -> None:
        raise SandboxError("no sandbox can be started")

    monkeypatch.setattr("regrpo_jax.main.main", fails)
    with pytest.raises(SystemExit) as ended:
        run_from_command_line()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said == "error: no sandbox can be started; start again with the same --workdir to go on\n"
