"""The same update in torch: as the authors' minimal trainer does it, and as TRL does; and transformers' decoding.

The authors' `trainer_minimal` (github.com/showlab/ReGRPO) runs each candidate as a sequence of its own, one after
another, through the policy and through the reference, takes the log-softmax of the whole vocabulary at every position,
and calls backward once for the five. This repeats its arithmetic, not its code.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import Qwen2Config, Qwen2ForCausalLM

from experiments.group_update.benchmark import BETA, BRANCHES, full_sequence
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.models.config import PolicyConfig

Call = Callable[[], Any]


def random_model(config: PolicyConfig) -> Qwen2ForCausalLM:
    """A model of transformers with these sizes."""
    torch.manual_seed(0)
    sizes = Qwen2Config(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(sizes).eval()


@dataclasses.dataclass(frozen=True)
class TorchGroup:
    """A group as five full sequences. tokens: [branch, token]. segments: of the tokens that are predicted, likewise."""

    tokens: torch.Tensor
    segments: torch.Tensor
    advantages: torch.Tensor

    @classmethod
    def of(cls, batch: GroupBatch, advantages: np.ndarray) -> TorchGroup:
        """The first group of a batch."""
        rows = [full_sequence(batch, number) for number in range(BRANCHES)]
        tokens = np.concatenate([block.tokens for block, _ in rows]).astype(np.int64)
        segments = np.concatenate([segments for _, segments in rows])
        return cls(*(torch.tensor(array) for array in (tokens, segments, advantages[0])))


def with_adapter(folder: Path, adapter: Path) -> PeftModel:
    """The model in a folder, the adapter on it to be trained."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter, is_trainable=True).train()


def frozen(folder: Path) -> torch.nn.Module:
    """The model in a folder, as a reference."""
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def authors_update(policy: PeftModel, reference: torch.nn.Module, group: TorchGroup) -> Callable[[], float]:
    """() -> loss of one more update: five sequences, full-vocabulary log-probs, one backward, AdamW."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-4)

    def logprobs(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
        scores = torch.log_softmax(model(input_ids=tokens[None]).logits[0, :-1], dim=-1)  # [token - 1, vocab]
        return scores.gather(-1, tokens[1:, None])[:, 0]

    def run() -> float:
        losses = []
        for tokens, segments, advantage in zip(group.tokens, group.segments, group.advantages, strict=True):
            scored = segments > 0
            mine = logprobs(policy, tokens)[scored]
            with torch.no_grad():
                theirs = logprobs(reference, tokens)[scored]
            losses.append(-advantage * mine.sum() + BETA * (mine - theirs).sum())
        loss = torch.stack(losses).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run


def transformers_decoding(model: torch.nn.Module, prompt: np.ndarray, new: int) -> tuple[Call, Call]:
    """() -> the first token after five copies of a prompt; () -> `new` tokens, greedily."""
    inputs = torch.tensor(prompt.astype(np.int64)).repeat(BRANCHES, 1)

    def generate(tokens: int) -> np.ndarray:
        found = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
        )
        return found[:, inputs.shape[1] :].numpy()

    return lambda: generate(1), lambda: generate(new)


def trl_update(policy: PeftModel, group: TorchGroup, folder: Path) -> Callable[[], float]:
    """() -> loss of one more update by TRL's own `compute_loss`, its reference pass included.

    Its inputs are what its sampling would have left: the prompt and the completions of a group. Raises ImportError
    where TRL is not installed.
    """
    os.environ.setdefault("WANDB_DISABLED", "true")
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "<unk>": 2}, unk_token="<unk>")),
        pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
    )  # fmt: skip
    length = int((group.segments[0] > 0).sum())
    arguments = GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BRANCHES,
        num_generations=BRANCHES,
        max_completion_length=length,
        beta=BETA,
        loss_type="grpo",
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=_prompts(),
        processing_class=words,
    )
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW((one for one in policy.parameters() if one.requires_grad), lr=2e-4)
    inputs = dict(_trl_inputs(group, length))
    rows = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.ones_like(rows)

    def run() -> float:
        with torch.no_grad(), policy.disable_adapter():
            reference = trainer._get_per_token_logps_and_entropies(policy, rows, mask, length)[0]
        loss = trainer.compute_loss(policy, inputs | {"ref_per_token_logps": reference})
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run


def _prompts() -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": ["a"] * BRANCHES})


def _trl_inputs(group: TorchGroup, length: int) -> Iterator[tuple[str, torch.Tensor]]:
    prompt, completion = group.tokens[:, :-length], group.tokens[:, -length:]
    for name, tokens in (("prompt", prompt), ("completion", completion)):
        yield f"{name}_ids", tokens
        yield f"{name}_mask", torch.ones_like(tokens)
    yield "advantages", group.advantages.float()
    yield "num_items_in_batch", torch.tensor(completion.numel())
