"""Writes tiny models and what transformers computes with them, so that parity is checked where torch is not.

    python -m tests.goldens.make            # with the extras [test,parity], from the repository's root

One folder a family: `config.json` and `model.safetensors` as transformers saves them, and `case.npz` with a batch of a
text, one image, and two images, the logits, the loss, the norm of the loss's gradient for every tensor (by published
name), and the greedy continuation of the last row. `tests/models/test_goldens.py` reads them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.qwen2_vl.hf_config import read_config
from regrpo_jax.models.qwen2_vl.weights import canonical_name
from tests.parity.conftest import PAD, Batch, make_batch, make_theirs, their_loss

FOLDER = Path(__file__).parent
FAMILIES = ("llama", "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
NEW_TOKENS = 8


def samples(config: PolicyConfig) -> list[Any]:
    """Rows of the case; the last one is continued."""
    if config.vision is None:
        return [(9,), (4,), (12,)]
    return [(9,), (4, (2, 3), 5), (2, (5, 3), 3, (1, 4), 2)]


def case_of(model: Any, batch: Batch) -> dict[str, np.ndarray]:
    """What transformers computes."""
    arguments = batch.theirs()
    model.zero_grad()
    logits = model(**arguments).logits
    loss = their_loss(logits, arguments)
    loss.backward()
    norms = {
        f"gradient_norm/{canonical_name(name)}": np.float32(0 if p.grad is None else p.grad.norm().item())
        for name, p in model.named_parameters()
    }
    last = batch.last_row().theirs()
    greedy = model.generate(**last, do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=PAD)
    block = {f"block/{name}": np.asarray(array) for name, array in vars(batch.block).items()}
    images = (
        {}
        if batch.images is None
        else {f"images/{name}": a for name, a in vars(batch.images).items() if name != "block"}
    )
    return {
        **block,
        **images,
        **norms,
        "logits": logits.detach().numpy(),
        "loss": np.float32(loss.item()),
        "greedy": greedy[0, last["input_ids"].shape[1] :].numpy(),
    }


def main() -> None:
    """Makes all of them anew."""
    for family in FAMILIES:
        folder = FOLDER / family
        model: Any = make_theirs(family, heads=4, key_value_heads=2, tied=False)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        config = read_config(folder / "config.json")
        np.savez_compressed(
            folder / "case.npz", **case_of(model, make_batch(policy_functions(config), samples(config)))
        )
        print(folder, sum(file.stat().st_size for file in folder.iterdir()) // 1024, "KiB")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
