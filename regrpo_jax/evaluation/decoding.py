"""Assistant turns from the policy, for many conversations at once."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from regrpo_jax.data.batches import collate_prefixes
from regrpo_jax.data.chat import ChatError, code_range
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group
from regrpo_jax.errors import UserError
from regrpo_jax.models.decode_driver import decode
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Prompt, append, start
from regrpo_jax.models.token_choice import Sampling, sampling_controls
from regrpo_jax.records import split_reflection
from regrpo_jax.records.types import ImageReference, Turn

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TurnRequest:
    """A conversation that waits for an assistant turn, and the words that the turn must start with."""

    record_id: str
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
      top_k: only the k likeliest tokens are drawn; 0 for all.
      top_p: only the likeliest tokens that hold this share of the probability are drawn; 1 for all.
      prefix_buckets: padded prompt lengths; a conversation longer than the largest ends.
      seed: of the sampling.
    """

    functions: PolicyFunctions
    variables: dict[str, Any]
    reader: ConversationReader
    batch: int
    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    prefix_buckets: tuple[int, ...]
    seed: int

    def write(self, requests: Sequence[TurnRequest]) -> list[GeneratedTurn]:
        """One turn per request: an empty, unfinished one where the conversation so far cannot be a prompt.

        A record is known to fit, but what the policy itself said before may fill the context or spell a control token.

        Raises:
          UserError: the opening alone is longer than `max_new_tokens`.
        """
        turns = [GeneratedTurn("", 0, (), False)] * len(requests)
        for first in range(0, len(requests), self.batch):
            prompts = [(i, self._prompt_group(requests[i])) for i in range(len(requests))[first : first + self.batch]]
            chosen = {index: group for index, group in prompts if group is not None}
            for index, turn in self._turns(chosen, requests).items():
                turns[index] = turn
        return turns

    def _turns(self, groups: Mapping[int, Group], requests: Sequence[TurnRequest]) -> dict[int, GeneratedTurn]:
        """The turns of at most `batch` prompts, each under the number of its request."""
        if not groups:
            return {}
        openings = {index: self._opening(requests[index].opening) for index in groups}
        unused = self.batch - len(groups)  # rows that only fill the batch, so that there is one shape to compile
        width = min(16 * -(-max(map(len, openings.values())) // 16), self.max_new_tokens)
        tokens = np.zeros((self.batch, 1, width), np.int32)  # [group, branch, token]
        lengths, budget = np.zeros((2, self.batch, 1), np.int32)  # [group, branch]
        for row, opening in enumerate(openings.values()):
            tokens[row, 0, : len(opening)] = opening
            lengths[row], budget[row] = len(opening), self.max_new_tokens - len(opening)
        decoding = start(
            self.functions,
            self.variables,
            self._prompt([*groups.values(), *[next(iter(groups.values()))] * unused], [*groups, *[0] * unused]),
            jax.random.key(self.seed),
            branches=1,
            capacity=width + self.max_new_tokens,
        )
        decoding, logprobs = append(self.functions, self.variables, decoding, tokens, lengths, scored=True)
        samples, _ = decode(self.functions, self.variables, decoding, self._sampling(), budget)
        samples, logprobs = jax.device_get((samples, logprobs))
        turns = {}
        for row, (index, opening) in enumerate(openings.items()):
            finished = bool(samples.stopped[row, 0])
            count = int(samples.lengths[row, 0]) - int(finished)
            drawn, scores = samples.tokens[row, 0, :count], samples.logprobs[row, 0, :count]
            whole = np.concatenate([logprobs[row, 0, : len(opening)], scores])  # [token]
            turns[index] = self._turn([*opening, *drawn.tolist()], whole, finished)
        return turns

    def _opening(self, text: str) -> list[int]:
        opening = list(self.reader.renderer.tokenizer(text, add_special_tokens=False)["input_ids"])
        if len(opening) >= self.max_new_tokens:
            raise UserError(
                f"config.eval.max_new_tokens={self.max_new_tokens} leaves no room after the {len(opening)} tokens "
                "that a turn opens with; raise it"
            )
        return opening

    def _prompt(self, groups: Sequence[Group], draw_ids: Sequence[int]) -> Prompt:
        image_token_id = self.reader.renderer.image_token_id
        prefix, images = collate_prefixes(groups, image_token_id=image_token_id, buckets=self.prefix_buckets)
        return Prompt(
            prefix=prefix,
            images=images,
            last_token=np.array([group.prefix[-1] for group in groups], np.int32),
            next_position=np.array([group.positions[-1].max() + 1 for group in groups], np.int32),
            draw_ids=np.array(draw_ids, np.int32),
        )

    def _sampling(self) -> Sampling:
        renderer = self.reader.renderer
        stop_id = renderer.end_of_turn_id
        # A model's vocabulary is often padded with rows that no token of the tokenizer has.
        without_token = range(len(renderer.tokenizer), self.functions.config.vocab_size)
        return sampling_controls(
            max_tokens=self.max_new_tokens,
            stops=((stop_id,),),
            banned_ids=tuple(sorted({*renderer.control_tokens.values(), *without_token} - {stop_id})),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )

    def _prompt_group(self, request: TurnRequest) -> Group | None:
        try:
            tokens, positions, images = self.reader.read_prompt(request.turns, request.images)
        except ChatError as error:
            _log.warning("a conversation ends early: record %s: %s", request.record_id, error)
            return None
        longest = max(self.prefix_buckets) + 1  # the last token leads the turn
        if len(tokens) > longest:
            _log.warning(
                "a conversation ends early: record %s: its %d tokens exceed the largest of "
                "config.data.prefix_buckets (%d); add a larger bucket",
                request.record_id,
                len(tokens),
                longest - 1,
            )
            return None
        return Group(request.record_id, tokens, positions, images, ())

    def _turn(self, tokens: list[int], logprobs: np.ndarray, finished: bool) -> GeneratedTurn:
        """A turn out of its tokens and their log-probs, the opening's included and the end's not.  # [token]"""
        text, ends = _decoded(self.reader.renderer.tokenizer, tokens)
        reflection, action = split_reflection(text)
        start, end = code_range(action)
        start, end = (start, end) if start < end else (0, len(action))
        starts = np.concatenate([[0], ends[:-1]])
        in_code = (ends > len(reflection) + start) & (starts < len(reflection) + end)
        return GeneratedTurn(
            text,
            int(np.sum(ends <= len(reflection))) if reflection else 0,
            tuple(float(value) for value in logprobs[in_code]),
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
