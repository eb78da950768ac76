"""How confident the policy is in actions that were recorded, which is what the gate's adaptive threshold needs."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from regrpo_jax.agent.gate import confidence
from regrpo_jax.data.batches import collate_images
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_parts import images_before
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.types import RotRecord


def recorded_confidences(
    functions: PolicyFunctions,
    variables: dict[str, Any],
    reader: ConversationReader,
    records: Sequence[RotRecord],
    *,
    batch: int,
    chunk_size: int,
) -> list[list[float]]:
    """u_1 .. u_i of each record: one number per assistant turn up to and including the failed one.

    u = exp(mean log pi) over the tokens of the turn's code, the whole action where there is no code.
    """

    @jax.jit
    def score(variables: dict[str, Any], block: TokenBlock, images: ImagePatches | None, mask: jax.Array) -> jax.Array:
        hidden, _ = functions.run_prefix(variables, block, images)
        head = functions.head(variables)
        return token_logprobs(hidden[:, :-1], head, block.tokens[:, 1:], mask[:, 1:], chunk_size=chunk_size)

    chats = [
        reader.read(r.conversation[: r.failed_turn + 1], images_before(r.conversation, r.failed_turn, r.images))
        for r in records
    ]
    length = 64 * -(-max((len(chat.tokens) for chat, _, _ in chats), default=1) // 64)
    confidences = []
    for start in range(0, len(chats), batch):
        chosen = chats[start : start + batch]
        padded = chosen + [chosen[-1]] * (batch - len(chosen))
        shape = (batch, length)
        tokens, valid, mask = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool)
        positions, image_index = np.zeros((*shape, 3), np.int32), np.full(shape, -1, np.int32)
        for row, (chat, place, images) in enumerate(padded):
            size = len(chat.tokens)
            tokens[row, :size], valid[row, :size], positions[row, :size] = chat.tokens, 1, place
            mask[row, :size] = chat.segments > 0
            image_index[row, :size] = images.image_index(chat.tokens == reader.renderer.image_token_id)
        block = TokenBlock(tokens, valid, positions, image_index)
        logprobs = np.asarray(score(variables, block, collate_images([c[2] for c in padded]), mask))
        for row, (chat, _, _) in enumerate(chosen):
            values = []
            for first, end in chat.spans:
                inside = np.arange(first, end)
                code = inside[chat.code[first:end]]
                values.append(confidence([float(v) for v in logprobs[row, (code if len(code) else inside) - 1]]))
            confidences.append(values)
    return confidences
