"""Assistant turns from the policy, for many conversations at once."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from regrpo_jax.data.batches import collate_prefixes
from regrpo_jax.data.chat import ChatError, code_range
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group
from regrpo_jax.errors import UserError
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Prompt, Samples, sample
from regrpo_jax.records import split_reflection
from regrpo_jax.records.types import ImageReference, Turn

_log = logging.getLogger(__name__)

# What the gate puts in the policy's mouth: it decides whether a block opens, the policy writes the rest.
REFLECTION_OPENING = "Reflection:\n- ErrorType:"
ACTION_OPENING = "Thought:"


@dataclasses.dataclass(frozen=True)
class TurnRequest:
    """A conversation that waits for an assistant turn, and the words that the turn must start with."""

    turns: tuple[Turn, ...]
    images: tuple[ImageReference, ...]
    opening: str


@dataclasses.dataclass(frozen=True)
class GeneratedTurn:
    """A turn that the policy wrote.

    Attributes:
      text: the turn, opening included.
      reflection_tokens: number of tokens of its reflection block.
      code_logprobs: log-probs of the tokens of its code (of the whole action where there is no code).  # [token]
      finished: whether it ended within the budget.
    """

    text: str
    reflection_tokens: int
    code_logprobs: tuple[float, ...]
    finished: bool


@dataclasses.dataclass(frozen=True)
class TurnWriter:
    """The policy as a writer of assistant turns.

    Attributes:
      batch: conversations decoded at once.
      max_new_tokens: budget of one turn, opening included.
      temperature: 0 takes the likeliest token.
      prefix_buckets: padded prompt lengths; a longer prompt is cut on its left.
      seed: of the sampling.
    """

    functions: PolicyFunctions
    variables: dict[str, Any]
    reader: ConversationReader
    batch: int
    max_new_tokens: int
    temperature: float
    prefix_buckets: tuple[int, ...]
    seed: int

    def write(self, requests: Sequence[TurnRequest]) -> list[GeneratedTurn]:
        """One turn per request: an empty, unfinished one where the conversation so far cannot be a prompt.

        A record is known to fit, but what the policy itself said before may fill the context or spell a control token.

        Raises:
          UserError: the opening alone is longer than `max_new_tokens`.
        """
        turns = [GeneratedTurn("", 0, (), False)] * len(requests)
        for start in range(0, len(requests), self.batch):
            indices = range(start, min(start + self.batch, len(requests)))
            prompts = [(index, self._prompt_group(requests[index])) for index in indices]
            chosen = [(index, group) for index, group in prompts if group is not None]
            if not chosen:
                continue
            padded = chosen + [chosen[-1]] * (self.batch - len(chosen))
            openings = [requests[index].opening for index, _ in padded]
            samples = self._sample([group for _, group in padded], openings, start)
            for row, (index, _) in enumerate(chosen):
                turns[index] = self._turn(samples, row)
        return turns

    def _sample(self, groups: Sequence[Group], texts: Sequence[str], start: int) -> Samples:
        tokenizer = self.reader.renderer.tokenizer
        image_token_id = self.reader.renderer.image_token_id
        prefix, images = collate_prefixes(groups, image_token_id=image_token_id, buckets=self.prefix_buckets)
        openings = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(len(opening) for opening in openings)
        if longest >= self.max_new_tokens:
            raise UserError(
                f"config.eval.max_new_tokens={self.max_new_tokens} leaves no room after the {longest} tokens that a "
                "turn opens with; raise it"
            )
        width = min(16 * -(-longest // 16), self.max_new_tokens)
        forced = np.zeros((len(groups), 1, width), np.int32)
        for row, opening in enumerate(openings):
            forced[row, 0, : len(opening)] = opening
        prompt = Prompt(
            prefix=prefix,
            images=images,
            last_token=np.array([group.prefix[-1] for group in groups], np.int32),
            next_position=np.array([group.positions[-1].max() + 1 for group in groups], np.int32),
            forced=forced,
            forced_lengths=np.array([[len(opening)] for opening in openings], np.int32),
        )
        stop_id = self.reader.renderer.end_of_turn_id
        banned = tuple(sorted(set(self.reader.renderer.control_tokens.values()) - {stop_id}))
        samples = sample(
            self.functions,
            self.variables,
            prompt,
            jax.random.fold_in(jax.random.key(self.seed), start),
            jnp.asarray(self.temperature, jnp.float32),
            max_tokens=self.max_new_tokens,
            stop_id=stop_id,
            banned_ids=banned,
        )
        return jax.device_get(samples)

    def _prompt_group(self, request: TurnRequest) -> Group | None:
        try:
            tokens, positions, images = self.reader.read_prompt(request.turns, request.images)
        except ChatError as error:
            _log.warning("a conversation ends early: %s", error)
            return None
        excess = max(0, len(tokens) - 1 - max(self.prefix_buckets))
        if (tokens[:excess] == self.reader.renderer.image_token_id).any():
            _log.warning(
                "a conversation ends early: its %d tokens exceed the largest of config.data.prefix_buckets and "
                "cutting on the left would cut an image",
                len(tokens),
            )
            return None
        return Group("", tokens[excess:], positions[excess:], images, ())

    def _turn(self, samples: Samples, row: int) -> GeneratedTurn:
        finished = bool(samples.stopped[row, 0])
        count = int(samples.lengths[row, 0]) - int(finished)
        tokens = samples.tokens[row, 0, :count]
        text, ends = _decoded(self.reader.renderer.tokenizer, [int(token) for token in tokens])
        reflection, action = split_reflection(text)
        start, end = code_range(action)
        start, end = (start, end) if start < end else (0, len(action))
        starts = np.concatenate([[0], ends[:-1]])
        in_code = (ends > len(reflection) + start) & (starts < len(reflection) + end)
        return GeneratedTurn(
            text,
            int(np.sum(ends <= len(reflection))) if reflection else 0,
            tuple(float(value) for value in samples.logprobs[row, 0, :count][in_code]),
            finished,
        )


def _decoded(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> tuple[str, np.ndarray]:
    """The text of tokens, and where in it each of them ends.  # [token]"""

    def decode(part: list[int]) -> str:
        return str(tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    text, pieces = decode(tokens), [decode([token]) for token in tokens]
    if "".join(pieces) == text:
        return text, np.cumsum([len(piece) for piece in pieces], dtype=int)
    # Tokens of parts of a character do not decode alone.
    return text, np.array([len(decode(tokens[: count + 1])) for count in range(len(tokens))], int)
