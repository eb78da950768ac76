"""One run from a config: corpus, policy, stages in order, and everything a person needs afterwards in the workdir.

workdir/config.json      the configuration, versions and commit of the run
workdir/corpus/          the generated corpus, where no data file is named
workdir/tokenizer/       the tokenizer
workdir/metrics.jsonl    one object a line, with "stage" and "step"
workdir/tensorboard/     the same, for TensorBoard
workdir/checkpoints/     sft/ and rl/
workdir/evaluation.json  the numbers of the table
workdir/adapter/         the LoRA adapter in PEFT's format
workdir/model/           full weights for transformers, where `config.export_weights` asks for them
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from regrpo_jax.config_checks import check_config
from regrpo_jax.data.corpus import Corpus, clean_examples, load_corpus, rot_examples, rot_groups
from regrpo_jax.data.examples import ConversationReader, Example
from regrpo_jax.data.groups import Group
from regrpo_jax.evaluation.stage import Evaluation
from regrpo_jax.models.huggingface import save_policy
from regrpo_jax.models.lora import merge_adapter
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.peft_import import full_weights
from regrpo_jax.models.qwen2_vl.hf_config import describe
from regrpo_jax.records import RotRecord
from regrpo_jax.rollouts.online_stage import run_online
from regrpo_jax.run_record import check_earlier_start, prepare_workdir, record_run
from regrpo_jax.starting_policy import starting_policy
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
    prepare_workdir(workdir)
    resuming = check_earlier_start(config, workdir)
    if config.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", config.compilation_cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    mesh = device_mesh(model=config.mesh.model)
    check_batches(config, mesh)
    needs_clean = "sft" in config.stages and config.sft.clean_ratio > 0
    corpus = load_corpus(config, workdir, needs_clean=needs_clean, resuming=resuming)
    functions, variables, reader = starting_policy(config, corpus, workdir, mesh, resuming=resuming)
    if config.export_weights:
        describe(functions.config)  # refuses what Hugging Face has no name for, before anything is trained
    record_run(config, workdir)
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
    if "online" in config.stages:
        check_divisible(config.online.tasks, config.online.microbatches, mesh, key="config.online.tasks")


def records_for_rl(records: Sequence[RotRecord], config: ml_collections.ConfigDict) -> list[RotRecord]:
    """A seeded choice of as many records as the stage's updates can visit, so that no group is built in vain."""
    order = np.random.default_rng(config.seed).permutation(len(records))
    return [records[index] for index in order[: config.rl.steps * config.rl.groups_per_batch]]


def _sft_examples(
    config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader
) -> tuple[list[Example], list[Example]]:
    """Clean and RoT examples, as far as `clean_ratio` asks for them."""
    ratio = config.sft.clean_ratio
    clean = clean_examples(corpus.clean, reader, config) if ratio > 0 else []
    rot = rot_examples(corpus.rot, reader, config) if ratio < 1 else []
    return clean, rot


def _rl_groups(config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader) -> list[Group]:
    return rot_groups(records_for_rl(corpus.rot, config), reader, config.data, config.data.rot)


def _run_stages(context: RunContext, corpus: Corpus, reader: ConversationReader, variables: dict[str, Any]) -> None:
    config = context.config
    evaluation = Evaluation(context, corpus, reader)
    start = config.lora.path
    replaced = full_weights(Path(start), variables["params"], context.functions.config) if start else []
    trained: dict[str, int] = {}  # stage -> its updates, in order
    for stage in config.stages:
        if stage == "eval":
            evaluation.measure(variables, trained)
            continue
        if stage == "sft":
            variables = run_sft(context, variables, lambda: _sft_examples(config, corpus, reader), after=trained)
        elif stage == "rl":
            variables = run_rl(context, variables, lambda: _rl_groups(config, corpus, reader), after=trained)
        elif stage == "online":
            variables = run_online(context, variables, reader, after=trained)
        else:  # done before this program was started, without jax
            continue
        trained = trained | {stage: config[stage].steps}
        if "lora" in variables:
            _export_adapter(context, variables, replaced, stage)
    if config.export_weights and trained:
        _export_weights(context, variables)
    evaluation.print_tables()


def _export_adapter(context: RunContext, variables: dict[str, Any], replaced: Sequence[str], stage: str) -> None:
    folder, base = context.workdir / "adapter", context.config.model.path or "tiny"
    export_adapter(folder, variables, context.functions.config, base_model=base, full_weights=replaced)
    print(f"{stage}: adapter written to {folder}", flush=True)


def _export_weights(context: RunContext, variables: dict[str, Any]) -> None:
    """Full weights for transformers, the adapter merged."""
    folder, source, config = context.workdir / "model", Path(context.config.model.path), context.functions.config
    params = (
        merge_adapter(variables["params"], variables["lora"], config) if "lora" in variables else variables["params"]
    )
    save_policy(folder, config, params, source=source)
    print(f"full weights written to {folder}", flush=True)
