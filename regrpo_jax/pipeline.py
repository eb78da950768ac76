"""One run from a config: corpus, policy, stages in order, and everything a person needs afterwards in the workdir.

workdir/config.json      the configuration, versions and commit of the run
workdir/corpus/          the generated corpus, where no data file is named
workdir/tokenizer/       the tokenizer
workdir/metrics.jsonl    one object a line, with "stage" and "step"
workdir/tensorboard/     the same, for TensorBoard
workdir/checkpoints/     sft/ and rl/
workdir/evaluation.json  the numbers of the table
workdir/adapter/         the LoRA adapter in PEFT's format
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from regrpo_jax.config_checks import check_config
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.corpus import Corpus, clean_examples, load_corpus, rot_examples, rot_groups
from regrpo_jax.data.examples import ConversationReader, Example
from regrpo_jax.data.groups import Group
from regrpo_jax.data.tokenizer import IMAGE_TOKEN, load_tokenizer, train_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.stage import Evaluation
from regrpo_jax.models.config import PolicyConfig, tiny
from regrpo_jax.models.huggingface import load_text_policy
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.records import RotRecord
from regrpo_jax.run_record import check_earlier_start, prepare_workdir, record_run
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import check_divisible, data_mesh, replicate
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
    mesh = data_mesh()
    check_batches(config, mesh)
    needs_clean = "sft" in config.stages and config.sft.clean_ratio > 0
    corpus = load_corpus(config, workdir, needs_clean=needs_clean, resuming=resuming)
    functions, variables, reader = load_policy(config, corpus, workdir, resuming=resuming)
    record_run(config, workdir)
    writer = MetricsWriter(workdir)
    context = RunContext(config, workdir, functions, mesh, reader.renderer.image_token_id, writer)
    try:
        _run_stages(context, corpus, reader, replicate(variables, mesh))
    finally:
        writer.close()
    print(f"everything was written to {workdir}", flush=True)


def check_batches(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
    """Raises UserError when a stage's batch does not split evenly, before an earlier stage has cost hours."""
    if "sft" in config.stages:
        check_divisible(config.sft.batch_rows, config.sft.microbatches, mesh, key="config.sft.batch_rows")
    if "rl" in config.stages:
        check_divisible(config.rl.groups_per_batch, config.rl.microbatches, mesh, key="config.rl.groups_per_batch")


def load_policy(
    config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path, *, resuming: bool
) -> tuple[PolicyFunctions, dict[str, Any], ConversationReader]:
    """The policy that the run starts from: a Hugging Face directory, or the tiny preset with fresh weights.

    Args:
      resuming: the tokenizer in `workdir` belongs to this run; without it a leftover one is written anew.
    Raises:
      UserError: the directory cannot be used.
    """
    model = config.model
    if model.path:
        tokenizer = load_tokenizer(Path(model.path))
        policy_config, params = load_text_policy(
            Path(model.path),
            dtype=model.dtype,
            param_dtype=model.param_dtype,
            remat=model.remat,
            lora_alpha=config.lora.alpha,
        )
        if len(tokenizer) > policy_config.vocab_size:
            raise UserError(
                f"{model.path}: the tokenizer has {len(tokenizer)} tokens, but config.json says that the model knows "
                f"{policy_config.vocab_size}; the two belong to different models"
            )
        functions, variables = policy_functions(policy_config), {"params": params}
    else:
        folder = workdir / "tokenizer"
        if resuming:
            tokenizer = load_tokenizer(folder)
        else:
            tokenizer = train_tokenizer(corpus.texts(), vocab_size=model.vocab_size)
            tokenizer.save_pretrained(folder)
        functions = policy_functions(_tiny_config(config, len(tokenizer)))
        # Compiled as a whole: op by op it takes more than twice as long.
        variables = jax.jit(functions.init)(jax.random.fold_in(jax.random.key(config.seed), 0))
    image_token = IMAGE_TOKEN if functions.config.vision else None
    renderer = ChatRenderer(tokenizer, config.data.train_end_of_turn, image_token)
    return functions, variables, ConversationReader(renderer, functions.config.vision, config.data.max_pixels)


def records_for_rl(records: Sequence[RotRecord], config: ml_collections.ConfigDict) -> list[RotRecord]:
    """A seeded choice of as many records as the stage's updates can visit, so that no group is built in vain."""
    order = np.random.default_rng(config.seed).permutation(len(records))
    return [records[index] for index in order[: config.rl.steps * config.rl.groups_per_batch]]


def _tiny_config(config: ml_collections.ConfigDict, vocab_size: int) -> PolicyConfig:
    model = config.model
    preset = tiny(vocab_size, hidden_size=model.hidden_size, num_layers=model.num_layers, images=model.images)
    return dataclasses.replace(
        preset,
        dtype=model.dtype,
        param_dtype=model.param_dtype,
        remat=model.remat,
        lora_alpha=config.lora.alpha,
    )


def _sft_examples(
    config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader
) -> tuple[list[Example], list[Example]]:
    """Clean and RoT examples, as far as `clean_ratio` asks for them."""
    data, ratio = config.data, config.sft.clean_ratio
    length = min(data.max_length, config.sft.row_length)
    clean = clean_examples(corpus.clean, reader, data, length) if ratio > 0 else []
    rot = rot_examples(corpus.rot, reader, data, length) if ratio < 1 else []
    return clean, rot


def _rl_groups(config: ml_collections.ConfigDict, corpus: Corpus, reader: ConversationReader) -> list[Group]:
    return rot_groups(records_for_rl(corpus.rot, config), reader, config.data, config.data.rot)


def _run_stages(context: RunContext, corpus: Corpus, reader: ConversationReader, variables: dict[str, Any]) -> None:
    config = context.config
    evaluation = Evaluation(context, corpus, reader)
    trained: dict[str, int] = {}  # stage -> its updates, in order
    for stage in config.stages:
        if stage == "eval":
            evaluation.measure(variables, trained)
            continue
        if stage == "sft":
            variables = run_sft(context, variables, lambda: _sft_examples(config, corpus, reader), after=trained)
        else:
            variables = run_rl(context, variables, lambda: _rl_groups(config, corpus, reader), after=trained)
        trained = trained | {stage: config[stage].steps}
        if "lora" in variables:
            folder = context.workdir / "adapter"
            export_adapter(folder, variables["lora"], alpha=config.lora.alpha, base_model=config.model.path or "tiny")
            print(f"{stage}: adapter written to {folder}", flush=True)
    evaluation.print_tables()
