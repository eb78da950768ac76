"""A run from its first stage to its last, and everything a person needs afterwards in the workdir.

workdir/config.json      the configuration, versions and commit of the run
workdir/corpus/          what the data stage made
workdir/tokenizer/       the tokenizer
workdir/metrics.jsonl    one object a line, with "stage" and "step"
workdir/tensorboard/     the same, for TensorBoard, and boards.json for others; see run/boards.py
workdir/checkpoints/     of every stage that trains
workdir/reference/       log-probs of the policy that an offline stage began with
workdir/rollouts/        the episodes that the online stage learnt from
workdir/player/          the adapter that an engine was last handed, where one plays
workdir/evaluation.json  the numbers of the table
workdir/recovery.json    what became of unseen tasks; see stages/recovery.py
workdir/report.html      all of it for a browser
workdir/adapter/         the LoRA adapter in PEFT's format
workdir/model/           full weights, where `config.export_weights` asks for them
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.corpus import load_corpus
from regrpo_jax.errors import UserError
from regrpo_jax.hosts.agreement import all_agree
from regrpo_jax.hosts.role import role
from regrpo_jax.models.peft_import import full_weights
from regrpo_jax.report.page import run_alarms, write_report
from regrpo_jax.rollouts.players import ServedPlayer, player_of
from regrpo_jax.rollouts.replayed_updates import stored_updates
from regrpo_jax.run.boards import open_boards
from regrpo_jax.run.compiled_programs import keep_compiled
from regrpo_jax.run.exports import write_adapter, write_weights
from regrpo_jax.run.fingerprints import run_fingerprints
from regrpo_jax.run.learner import Learner, Served
from regrpo_jax.run.model_defaults import describe_choices, with_model_defaults
from regrpo_jax.run.own_play import check_play, check_processes, run_stage
from regrpo_jax.run.record import check_earlier_start, check_unchanged, prepare_workdir, record_run
from regrpo_jax.run.run import Run
from regrpo_jax.run.stage import Stage
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.training.loop import RunContext, RunFolder
from regrpo_jax.training.metrics import MetricsWriter, UnwrittenMetrics
from regrpo_jax.training.parallel import check_divisible, device_mesh, mesh_in_context


def walk(run: Run, table: Mapping[str, Stage]) -> None:
    """Runs the stages of a config that have a policy, one after the other.

    Args:
      table: what each stage is.
    Raises:
      UserError: for everything that a person can mend.
    """
    run.config = with_model_defaults(run.config)
    stages = {name: table[name] for name in run.config.stages if not table[name].host}
    served = run.config.player.server and not run.config.model.path
    with _served(run) if served else _learning(run, stages):
        for name in run.config.stages:
            if name not in stages:
                continue
            run_stage(run, name, stages[name])
            if stages[name].trains(run.config):
                run.trained[name] = run.config[name].steps
                write_adapter(run.learner, name)
        if run.config.export_weights and run.trained:
            write_weights(run.learner)
        if role().writes:
            _tell(run)
    print(f"everything was written to {run.workdir}", flush=True)


def _tell(run: Run) -> None:
    """What a run ends with."""
    for measure in run.measures.values():
        measure.print_tables()
    for words in run_alarms(run.workdir):
        print(f"alarm: {words}", flush=True)
    print(f"report written to {write_report(run.workdir)}", flush=True)


@contextmanager
def _served(run: Run) -> Iterator[None]:
    """The run has a policy that only its server knows."""
    prepare_workdir(run.workdir)
    check_earlier_start(run.config, run.workdir)
    record_run(run.config, run.workdir)
    with closing(_metrics(run.config, run.workdir)) as writer:
        run.begin_served(Served(RunFolder(run.config, run.workdir, writer), ServedPlayer(run.config)))
        yield


@contextmanager
def _learning(run: Run, stages: Mapping[str, Stage]) -> Iterator[None]:
    """The run has a policy; what cannot work is told before anything is read that takes long."""
    config, workdir = run.config, run.workdir
    prepare_workdir(workdir)
    resuming = check_earlier_start(config, workdir)
    keep_compiled(config.compilation_cache)
    check_processes()
    mesh = device_mesh(fsdp=config.mesh.fsdp, model=config.mesh.model)
    check_batches(config, stages, mesh)
    check_play(config, stages, mesh)
    if "online" in stages and config.online.replay:
        stored_updates(Path(config.online.replay), range(1, config.online.steps + 1))  # told before a stage costs time
    needs = {kind for stage in stages.values() for kind in stage.records(config)}
    corpus = load_corpus(config, needs_clean="clean" in needs, needs_rot="rot" in needs)
    fingerprints = run_fingerprints(config, corpus)
    check_unchanged(fingerprints, workdir)
    all_agree(
        "what it read", json.dumps(fingerprints, sort_keys=True), "give all hosts the same files under the same paths"
    )
    functions, variables, reader = starting_policy(config, corpus, workdir, mesh, resuming=resuming)
    record_run(config, workdir, fingerprints)
    training = tuple(name for name, stage in stages.items() if stage.batch)
    print(describe_choices(config, functions.config, training), flush=True)
    with mesh_in_context(mesh), closing(_metrics(config, workdir)) as writer:
        context = RunContext(config, workdir, writer, functions, mesh, reader.renderer.image_token_id)
        start = config.lora.path
        replaced = full_weights(Path(start), variables["params"], functions.config) if start else []
        if replaced and config.player.server:
            raise UserError(f"{start}: it replaces {replaced[0]}, and an engine takes no whole weights")
        run.begin(Learner(context, corpus, reader, player_of(context, reader), variables, replaced))
        yield


def _metrics(config: ConfigDict, workdir: Path) -> MetricsWriter:
    return MetricsWriter(workdir, open_boards(config, workdir)) if role().writes else UnwrittenMetrics(workdir)


def check_batches(config: ConfigDict, stages: Mapping[str, Stage], mesh: Mesh) -> None:
    """Raises UserError when a stage's batch does not split evenly, before an earlier stage has cost hours."""
    for name, stage in stages.items():
        if stage.batch:
            key = f"config.{name}.{stage.batch}"
            check_divisible(config[name][stage.batch], stage_section(config, name).microbatches, mesh, key=key)
