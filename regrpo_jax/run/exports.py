"""What a run leaves for other programs: the adapter in PEFT's format, full weights for transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

from regrpo_jax.data.tokenizer import load_tokenizer
from regrpo_jax.hosts.role import role
from regrpo_jax.models.gguf_files import gguf_notes, is_gguf
from regrpo_jax.models.huggingface import save_policy
from regrpo_jax.models.lora import merge_adapter
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.qwen2_vl.hf_config import foreign_parts
from regrpo_jax.run.learner import Learner


def write_adapter(learner: Learner, stage: str) -> None:
    """workdir/adapter: the adapter as it stands after a stage, where the policy has one."""
    if "lora" not in learner.variables:
        return
    context, folder = learner.context, learner.workdir / "adapter"
    base = context.config.model.path or "tiny"
    export_adapter(
        folder, learner.variables, context.functions.config, base_model=base, full_weights=learner.replaced
    )  # fmt: skip
    print(f"{stage}: adapter written to {folder}", flush=True)


def write_weights(learner: Learner) -> None:
    """workdir/model: the adapter merged; in transformers' form, or in our own where it has no such architecture."""
    context, variables = learner.context, learner.variables
    path, config = context.config.model.path, context.functions.config
    folder, source = learner.workdir / "model", Path(path) if path else None
    params = (
        merge_adapter(variables["params"], variables["lora"], config) if "lora" in variables else variables["params"]
    )
    if source is not None and is_gguf(source):
        save_policy(folder, config, params, token_ids=gguf_notes(source))
        if role().writes:
            load_tokenizer(source).save_pretrained(folder)
    else:
        token_ids = {"image_token_id": context.image_token_id} if context.image_token_id >= 0 else {}
        save_policy(folder, config, params, source=source, token_ids=token_ids, own=bool(foreign_parts(config)))
    if source is None and role().writes:
        shutil.copytree(learner.workdir / "tokenizer", folder, dirs_exist_ok=True)
    print(f"full weights written to {folder}", flush=True)
