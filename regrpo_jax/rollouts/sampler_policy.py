"""The policy in this process as a player: one prefix per group, its branches live on until their episodes end."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from regrpo_jax.agent.policy import Branch, EpisodePrompt, Heard, PolicyError, Prefix, SampledTurn, Told, WriteRequest
from regrpo_jax.data.batches import collate_prefixes
from regrpo_jax.data.chat import ChatError
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group
from regrpo_jax.data.images import PatchedImage
from regrpo_jax.models.decoding_state import Decoding
from regrpo_jax.models.play_sharding import spread
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Prompt, append, generate, layers_together, start
from regrpo_jax.models.token_choice import Sampling, sampling_controls
from regrpo_jax.rollouts.live_rows import Rows, arranged, moved, slot_count
from regrpo_jax.rollouts.token_text import TokenText
from regrpo_jax.rollouts.waiting_tokens import FeatureTable, WaitingToken, pictures_of, waiting_tokens

CHUNK = 16  # tokens that are fed, or drawn, between two looks at the branches: a width that is compiled
WIDE_CHUNK = 128  # the other one: of long observations, such as pictures


@dataclasses.dataclass(frozen=True)
class SamplerPolicy:
    """A policy for `collect_groups`.

    Attributes:
      reader: knows the tokenizer, its chat template and the vision tower.
      prefix_buckets: padded prompt lengths; a longer prompt is refused.
      branch_tokens: most tokens of a branch; an episode that needs more ends.
      lanes: branches that share one copy of their prefix in the arrays; fewer let finished ones go sooner, more keep a
        long prefix from being copied.
      temperature, top_k, top_p: of the sampling; log-probs are always those at temperature 1.
      version: updates that the weights have seen.
      mesh: that groups are split over where their number divides; None where one device has all.
      prefill_parts: parts that prefixes are run in, one after the other, or fewer where they do not divide.
    """

    functions: PolicyFunctions
    variables: dict[str, Any]
    reader: ConversationReader
    prefix_buckets: tuple[int, ...]
    branch_tokens: int
    lanes: int = 2
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    version: int = 0
    mesh: Mesh | None = None
    prefill_parts: int = 1

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> "SamplerSession":
        """A session; nothing runs before the first turn. PolicyError: a prompt does not fit."""
        return SamplerSession(self, prompts, branches, seed)

    @property
    def sampling(self) -> Sampling:
        """How a chunk is drawn: neither control tokens nor rows of the vocabulary without a token."""
        renderer = self.reader.renderer
        stop = renderer.end_of_turn_id
        without_token = range(len(renderer.tokenizer), self.functions.config.vocab_size)
        return sampling_controls(
            max_tokens=CHUNK,
            stops=((stop,),),
            banned_ids=tuple(sorted({*renderer.control_tokens.values(), *without_token} - {stop})),
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )


class SamplerSession:
    """Live branches of some prompts; see `agent.policy.Session`."""

    def __init__(self, policy: SamplerPolicy, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> None:
        self._policy, self._count, self._seed = policy, branches, seed
        self._prompts = prompts
        self.prefixes = [self._prefix(prompt) for prompt in prompts]
        self._sampling = policy.sampling
        self._text = TokenText(policy.reader.renderer.tokenizer)
        self._openings: dict[str, list[int]] = {}
        self._heard: dict[Told, Heard | None] = {}
        self._images: dict[str, PatchedImage] = {}  # by path, those that branches wait to be shown
        self._decoding: Decoding | None = None
        self._rows, self._most_rows = Rows((), policy.lanes), 0
        every = [(group, branch) for group in range(len(prompts)) for branch in range(branches)]
        self._lengths = dict.fromkeys(every, 0)  # tokens of each live branch, those that wait included
        self._waiting: dict[Branch, list[WaitingToken]] = {branch: [] for branch in every}
        starts = [int(prefix.positions[-1].max()) + 1 for prefix in self.prefixes]
        self._next_position = {branch: starts[branch[0]] for branch in every}
        self._shared = [0] * len(prompts)  # tokens of each group's branches that ran with the prefix

    def write(self, requests: Sequence[WriteRequest]) -> list[SampledTurn]:
        """One turn of each branch, all drawn together."""
        openings = [self._opening(request.opening) for request in requests]
        budgets = {}
        for request, opening in zip(requests, openings, strict=True):
            self._say(request.branch, opening)
            room = self._policy.branch_tokens - self._lengths[request.branch]
            budgets[request.branch] = max(0, min(request.budget, room))
        if self._decoding is None:
            self._begin()
        self._feed()
        drawn = self._draw(budgets)
        return [
            self._turn(opening, *drawn[request.branch]) for request, opening in zip(requests, openings, strict=True)
        ]

    def observe(self, observations: Sequence[tuple[Branch, Told]]) -> list[Heard | None]:
        """Puts user turns after the branches' last ones; None where the text spells a control token or has no room."""
        found = []
        for branch, told in observations:
            heard = self._said(told)
            if heard is not None and self._lengths[branch] + len(heard.tokens) >= self._policy.branch_tokens:
                heard = None
            if heard is not None:
                self._say(branch, heard.tokens.tolist(), [image.path for image in told.images])
            found.append(heard)
        return found

    def finish(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            del self._lengths[branch], self._waiting[branch], self._next_position[branch]

    def _prefix(self, prompt: EpisodePrompt) -> Prefix:
        try:
            tokens, positions, images = self._policy.reader.read_prompt(prompt.turns, prompt.images)
        except ChatError as error:
            raise PolicyError(str(error)) from error
        longest = max(self._policy.prefix_buckets) - CHUNK  # an opening may go with it
        if len(tokens) > longest:
            raise PolicyError(
                f"a prompt of {len(tokens)} tokens is longer than the largest of config.data.prefix_buckets allows "
                f"({longest}); add a larger bucket"
            )
        return Prefix(tokens, positions, images)

    def _opening(self, text: str) -> list[int]:
        if text not in self._openings:
            tokenizer = self._policy.reader.renderer.tokenizer
            self._openings[text] = [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
        return self._openings[text]

    def _said(self, told: Told) -> Heard | None:
        gone = any(image.path not in self._images for image in told.images)
        if told not in self._heard or (gone and self._heard[told] is not None):
            try:
                heard, images = self._policy.reader.read_told(told)
            except ChatError:
                self._heard[told] = None
            else:
                self._heard[told] = heard
                self._images |= {image.path: one for image, one in zip(told.images, images, strict=True)}
        return self._heard[told]

    def _say(self, branch: Branch, tokens: list[int], shown: Sequence[str] = ()) -> None:
        """Puts tokens at the end of a branch; shown: paths of the images among them, in order."""
        start, image_token_id = self._next_position[branch], self._policy.reader.renderer.image_token_id
        said = waiting_tokens(tokens, self._images, shown, start, image_token_id)
        self._waiting[branch] += said
        self._lengths[branch] += len(tokens)
        if said:
            self._next_position[branch] = 1 + max(said[-1].position)

    def _begin(self) -> None:
        """Runs the prefixes, each with what all its branches open with."""
        groups, draw_ids = [], []
        for index, (prompt, prefix) in enumerate(zip(self._prompts, self.prefixes, strict=True)):
            shared = self._take_shared(index)
            positions = prefix.positions[-1].max() + 1 + np.arange(len(shared))
            tokens = np.concatenate([prefix.tokens, np.array(shared, np.int32)])
            places = np.concatenate([prefix.positions, np.repeat(positions[:, None], 3, axis=1)]).astype(np.int32)
            groups.append(Group(str(index), tokens, places, prefix.images, ()))
            draw_ids.append(prompt.draw_id)
        unused = (1 << (len(groups) - 1).bit_length()) - len(groups)
        filled, ids = [*groups, *groups[:1] * unused], [*draw_ids, *[0] * unused]
        image_token_id = self._policy.reader.renderer.image_token_id
        buckets = self._policy.prefix_buckets
        block, images = collate_prefixes(filled, image_token_id=image_token_id, buckets=buckets)
        prompts = Prompt(
            prefix=block,
            images=images,
            last_token=np.array([group.prefix[-1] for group in filled], np.int32),
            next_position=np.array([group.positions[-1].max() + 1 for group in filled], np.int32),
            draw_ids=np.array(ids, np.int32),
        )
        key = jax.random.key(self._seed)
        policy = self._policy
        capacity = slot_count(1)
        decoding = start(
            policy.functions,
            policy.variables,
            spread(prompts, policy.mesh),
            key,
            branches=self._count,
            capacity=capacity,
            parts=math.gcd(len(filled), policy.prefill_parts),
            layers_together=layers_together(jax.default_backend()),
        )
        self._rows = arranged(list(self._lengths), policy.lanes)
        self._most_rows = len(self._rows.branches)
        old = {branch: branch for branch in self._lengths}
        self._decoding = moved(decoding, old, self._rows, capacity)

    def _take_shared(self, group: int) -> list[int]:
        """What all branches of the group wait to be fed, if it is the same; it then runs once, with the prefix."""
        waiting = [tokens for branch, tokens in self._waiting.items() if branch[0] == group]
        if not waiting or any(tokens != waiting[0] for tokens in waiting):
            return []
        shared = [one.token for one in waiting[0]]
        self._shared[group] = len(shared)
        for branch in self._waiting:
            if branch[0] == group:
                self._waiting[branch] = []
        return shared

    def _make_room(self, free: int = CHUNK) -> Decoding:
        """Rows for the live branches alone, and as many free slots."""
        assert self._decoding is not None
        rows = arranged(list(self._lengths), self._policy.lanes, self._most_rows)
        full = int(self._decoding.cache.length) + free > self._decoding.cache.valid.shape[-1]
        if full or len(rows.branches) < len(self._rows.branches):
            run = [
                length - len(self._waiting[branch]) - self._shared[branch[0]]
                for branch, length in self._lengths.items()
            ]
            slots = slot_count(max(run) + free)
            self._decoding = moved(self._decoding, self._rows.places, rows, slots)
            self._rows = rows
        return self._decoding

    def _feed(self) -> None:
        """Appends what the branches wait for, in chunks."""
        policy = self._policy
        paths = [one.feature[0] for waiting in self._waiting.values() for one in waiting if one.feature is not None]
        table = FeatureTable(policy.functions, policy.variables, self._images, paths) if paths else None
        while longest := max(map(len, self._waiting.values()), default=0):
            width = WIDE_CHUNK if longest >= WIDE_CHUNK else CHUNK
            decoding = self._make_room(width)
            shape = (len(self._rows.branches), policy.lanes, width)
            tokens, lengths = np.zeros(shape, np.int32), np.zeros(shape[:2], np.int32)
            chunks = {branch: waiting[:width] for branch, waiting in self._waiting.items()}
            for branch, chunk in chunks.items():
                place = self._rows.places[branch]
                tokens[place][: len(chunk)], lengths[place] = [one.token for one in chunk], len(chunk)
                self._waiting[branch] = self._waiting[branch][width:]
            pictures = None if table is None else pictures_of(chunks, self._rows.places, shape, table)
            self._decoding, _ = append(policy.functions, policy.variables, decoding, tokens, lengths, pictures)
        self._images.clear()

    def _draw(self, budgets: dict[Branch, int]) -> dict[Branch, tuple[list[int], list[float], bool]]:
        """Tokens, their log-probs, and whether the turn has an end, of each branch that has a budget."""
        drawn: dict[Branch, tuple[list[int], list[float], bool]] = {branch: ([], [], False) for branch in budgets}
        left = {branch: budget for branch, budget in budgets.items() if budget > 0}
        while left:
            decoding = self._make_room()
            budget = np.zeros((len(self._rows.branches), self._policy.lanes), np.int32)
            for branch, most in left.items():
                budget[self._rows.places[branch]] = min(most, CHUNK)
            policy = self._policy
            samples, self._decoding = generate(policy.functions, policy.variables, decoding, self._sampling, budget)
            samples = jax.device_get(samples)
            for branch in list(left):
                place = self._rows.places[branch]
                count, stopped = int(samples.lengths[place]), bool(samples.stopped[place])
                tokens, logprobs, _ = drawn[branch]
                tokens += samples.tokens[place][:count].tolist()
                logprobs += samples.logprobs[place][:count].tolist()
                drawn[branch] = (tokens, logprobs, stopped)
                self._lengths[branch] += count
                self._next_position[branch] += count
                left[branch] -= count
                if stopped or left[branch] < 1:
                    del left[branch]
        return drawn

    def _turn(self, opening: list[int], tokens: list[int], logprobs: list[float], finished: bool) -> SampledTurn:
        text, starts = self._text.text_of([*opening, *(tokens[:-1] if finished else tokens)])
        starts = starts[len(opening) :]
        return SampledTurn(
            opening=np.array(opening, np.int32),
            tokens=np.array(tokens, np.int32),
            logprobs=np.array(logprobs, np.float32),
            text=text,
            starts=np.append(starts, len(text)).astype(np.int32) if finished else starts,
            finished=finished,
        )
