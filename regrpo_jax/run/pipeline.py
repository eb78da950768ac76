"""One run from a config: corpus, policy, stages in order, and everything a person needs afterwards in the workdir.

workdir/config.json      the configuration, versions and commit of the run
workdir/corpus/          the generated corpus, where no data file is named
workdir/tokenizer/       the tokenizer
workdir/metrics.jsonl    one object a line, with "stage" and "step"
workdir/tensorboard/     the same, for TensorBoard
workdir/checkpoints/     sft/, rl/, preference/ and online/
workdir/rollouts/        the episodes that the online stage learnt from
workdir/player/          the adapter that an engine was last handed, where one plays
workdir/evaluation.json  the numbers of the table
workdir/recovery.json    what became of unseen tasks; see rollouts/recovery_stage.py
workdir/report.html      all of it for a browser
workdir/adapter/         the LoRA adapter in PEFT's format
workdir/model/           full weights, where `config.export_weights` asks for them
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from regrpo_jax.config.checks import TRAINING_STAGES, check_config
from regrpo_jax.data.corpus import Corpus, clean_examples, groups_to_visit, load_corpus, rot_examples
from regrpo_jax.data.examples import ConversationReader, Example
from regrpo_jax.data.groups import Group
from regrpo_jax.data.preference_pairs import preference_pairs
from regrpo_jax.errors import UserError
from regrpo_jax.models.huggingface import save_policy
from regrpo_jax.models.lora import merge_adapter
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.peft_import import full_weights
from regrpo_jax.models.qwen2_vl.hf_config import foreign_parts
from regrpo_jax.report.page import run_alarms, write_report
from regrpo_jax.rollouts.players import player_of
from regrpo_jax.rollouts.replayed_updates import stored_updates
from regrpo_jax.run.model_defaults import describe_choices, with_model_defaults
from regrpo_jax.run.record import check_earlier_start, prepare_workdir, record_run
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.stages.online import run_online
from regrpo_jax.stages.preference import run_preference
from regrpo_jax.stages.recovery import RecoveryEvaluation
from regrpo_jax.stages.replay import Evaluation
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import check_divisible, device_mesh
from regrpo_jax.training.stages import run_rl, run_sft


def run(config: ml_collections.ConfigDict, workdir: Path) -> None:
    """Runs the stages of a config.

    Raises:
      UserError: for everything that a person can mend.
    """
    check_config(config)
    config = with_model_defaults(config)
    prepare_workdir(workdir)
    resuming = check_earlier_start(config, workdir)
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    mesh = device_mesh(model=config.mesh.model)
    check_batches(config, mesh)
    if "online" in config.stages and config.online.replay:
        stored_updates(Path(config.online.replay), range(1, config.online.steps + 1))  # told before a stage costs time
    needs_clean = "sft" in config.stages and config.sft.clean_ratio > 0
    corpus = load_corpus(
        config, workdir, needs_clean=needs_clean, needs_rot=needs_rot_records(config), resuming=resuming
    )
    functions, variables, reader = starting_policy(config, corpus, workdir, mesh, resuming=resuming)
    record_run(config, workdir)
    training = tuple(stage for stage in config.stages if stage in TRAINING_STAGES)
    print(describe_choices(config, functions.config, training), flush=True)
    writer = MetricsWriter(workdir)
    context = RunContext(config, workdir, functions, mesh, reader.renderer.image_token_id, writer)
    try:
        _run_stages(context, corpus, reader, variables)
    finally:
        writer.close()
    print(f"everything was written to {workdir}", flush=True)


def check_batches(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
    """Raises UserError when a stage's batch does not split evenly, before an earlier stage has cost hours."""
    if "sft" in config.stages:
        check_divisible(config.sft.batch_rows, config.sft.microbatches, mesh, key="config.sft.batch_rows")
    if "rl" in config.stages:
        check_divisible(config.rl.groups_per_batch, config.rl.microbatches, mesh, key="config.rl.groups_per_batch")
    if "preference" in config.stages:
        pairs, parts = config.preference.pairs_per_batch, config.preference.microbatches
        check_divisible(pairs, parts, mesh, key="config.preference.pairs_per_batch")
    if "online" in config.stages:
        check_divisible(config.online.tasks, config.online.microbatches, mesh, key="config.online.tasks")


def needs_rot_records(config: ml_collections.ConfigDict) -> bool:
    """Whether a stage trains on RoT records or replays them."""
    supervised = "sft" in config.stages and config.sft.clean_ratio < 1
    return supervised or bool({"rl", "preference", "eval"} & set(config.stages))


def _sft_examples(
    config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader
) -> tuple[list[Example], list[Example]]:
    """Clean and RoT examples, as far as `clean_ratio` asks for them."""
    ratio = config.sft.clean_ratio
    clean = clean_examples(corpus.clean, reader, config) if ratio > 0 else []
    rot = rot_examples(corpus.rot, reader, config) if ratio < 1 else []
    return clean, rot


def _rl_groups(config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader) -> list[Group]:
    """As many as the stage visits; all of them where a curriculum orders them first."""
    visits = config.rl.steps * config.rl.groups_per_batch
    most = visits if config.data.curriculum == "none" else None
    return groups_to_visit(corpus.rot, reader, config, most=most)


def _preference_groups(config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader) -> list[Group]:
    """As many as the stage visits, of those that prefer something."""
    visits = config.preference.steps * config.preference.pairs_per_batch
    return groups_to_visit(corpus.rot, reader, config, most=visits, keep=lambda group: bool(preference_pairs([group])))


def _run_stages(context: RunContext, corpus: Corpus, reader: ConversationReader, variables: dict[str, Any]) -> None:
    config = context.config
    player = player_of(context, reader)
    evaluation, recovery = Evaluation(context, corpus, reader), RecoveryEvaluation(context, player)
    start = config.lora.path
    replaced = full_weights(Path(start), variables["params"], context.functions.config) if start else []
    if replaced and config.player.base_url:
        raise UserError(f"{start}: it replaces {replaced[0]}, and an engine takes no whole weights")
    trained: dict[str, int] = {}  # stage -> its updates, in order
    for stage in config.stages:
        if stage == "eval":
            evaluation.measure(variables, trained)
            continue
        if stage == "recovery":
            recovery.measure(variables, trained)
            continue
        if stage == "sft":
            variables = run_sft(context, variables, lambda: _sft_examples(config, corpus, reader), after=trained)
        elif stage == "rl":
            variables = run_rl(context, variables, lambda: _rl_groups(config, corpus, reader), after=trained)
        elif stage == "preference":
            variables = run_preference(
                context, variables, lambda: _preference_groups(config, corpus, reader), after=trained
            )
        elif stage == "online":
            variables = run_online(context, variables, reader, player, after=trained)
        else:  # done before this program was started, without jax
            continue
        if stage == "online" and config.online.algorithm == "none":
            continue  # the policy is as it was
        trained = trained | {stage: config[stage].steps}
        if "lora" in variables:
            _export_adapter(context, variables, replaced, stage)
    if config.export_weights and trained:
        _export_weights(context, variables)
    evaluation.print_tables()
    recovery.print_tables()
    for words in run_alarms(context.workdir):
        print(f"alarm: {words}", flush=True)
    print(f"report written to {write_report(context.workdir)}", flush=True)


def _export_adapter(context: RunContext, variables: dict[str, Any], replaced: Sequence[str], stage: str) -> None:
    folder, base = context.workdir / "adapter", context.config.model.path or "tiny"
    export_adapter(folder, variables, context.functions.config, base_model=base, full_weights=replaced)
    print(f"{stage}: adapter written to {folder}", flush=True)


def _export_weights(context: RunContext, variables: dict[str, Any]) -> None:
    """Full weights, the adapter merged: for transformers, or in a form of our own where it has no such architecture."""
    path, config = context.config.model.path, context.functions.config
    folder, source = context.workdir / "model", Path(path) if path else None
    params = (
        merge_adapter(variables["params"], variables["lora"], config) if "lora" in variables else variables["params"]
    )
    token_ids = {"image_token_id": context.image_token_id} if context.image_token_id >= 0 else {}
    save_policy(folder, config, params, source=source, token_ids=token_ids, own=bool(foreign_parts(config)))
    if source is None:
        shutil.copytree(context.workdir / "tokenizer", folder, dirs_exist_ok=True)
    print(f"full weights written to {folder}", flush=True)
