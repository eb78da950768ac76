"""Pictures appended to live branches, cut at every place, against a scoring pass over whole branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.data.batches import GroupBatch, collate_groups, collate_prefixes
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PatchedImage, pack_images, patch_positions
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.models.sampler import Decoding, Prompt, append, generate, start
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.rollouts.waiting_tokens import FeatureTable, WaitingToken, pictures_of, waiting_tokens

IMAGE = 22  # the token that stands for one merged image feature
GRIDS = {"task": (2, 2), "a": (2, 3), "b": (4, 1), "c": (1, 1), "d": (3, 3)}
CAPACITY, NEW, WIDE = 128, 4, 40
Variables = dict[str, Any]
Place = tuple[int, int]
Said = tuple[int | str, ...]  # so many text tokens, or a picture
PROMPTS: tuple[Said, ...] = ((3, "task", 4), (5,))
# Beside one another: two pictures, one of them twice; text alone; nothing at all; the other group shares a picture.
BRANCHES: tuple[tuple[Said, ...], ...] = (
    ((2, "a", 1, "b", 1, "a", 3), (9,), ()),
    ((1, "d", 2), (4, "b", 1, "c", 1), (3, "task", 2)),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the branches say, and the log-prob of each of their tokens in a scoring pass.

    waiting: tokens of each branch with their places. fresh: log pi.  # [group, branch, token]
    """

    functions: PolicyFunctions
    variables: Variables
    pictures: dict[str, PatchedImage]
    prompt: Prompt
    batch: GroupBatch
    waiting: dict[Place, list[WaitingToken]]
    fresh: np.ndarray

    def begin(self) -> Decoding:
        key = jax.random.key(0)
        return start(self.functions, self.variables, self.prompt, key, branches=3, capacity=CAPACITY)

    def feed(
        self, decoding: Decoding, chunks: dict[Place, list[WaitingToken]], width: int
    ) -> tuple[Decoding, np.ndarray]:
        """Appends a chunk, at most `width` tokens, with the features that stand in it; log-probs."""
        shape = (2, 3, width)
        tokens, lengths = np.full(shape, IMAGE, np.int32), np.zeros(shape[:2], np.int32)  # padding looks like an image
        for place, chunk in chunks.items():
            tokens[place][: len(chunk)], lengths[place] = [one.token for one in chunk], len(chunk)
        table = FeatureTable(self.functions, self.variables, self.pictures, GRIDS)
        pictures = pictures_of(chunks, {place: place for place in chunks}, shape, table)
        decoding, logprobs = append(self.functions, self.variables, decoding, tokens, lengths, pictures, scored=True)
        return decoding, np.asarray(logprobs)


def picture(grid: tuple[int, int], config: PolicyConfig, random: np.random.Generator) -> PatchedImage:
    assert config.vision is not None
    merge = config.vision.spatial_merge_size
    places = patch_positions(merge * grid[0], merge * grid[1], merge)
    return PatchedImage(random.normal(size=(len(places), config.vision.patch_dim)).astype(np.float32), places, grid)


@pytest.fixture(scope="module")
def setting(small_config: PolicyConfig, random_variables: Callable[..., Variables]) -> Setting:
    random = np.random.default_rng(3)
    pictures = {name: picture(grid, small_config, random) for name, grid in GRIDS.items()}

    def said(pieces: Said) -> np.ndarray:
        parts = [
            np.full(pictures[piece].num_tokens, IMAGE) if isinstance(piece, str) else random.integers(0, IMAGE, piece)
            for piece in pieces
        ]
        return np.concatenate([np.zeros(0), *parts]).astype(np.int32)

    def named(pieces: Said) -> list[str]:
        return [piece for piece in pieces if isinstance(piece, str)]

    groups, alone, waiting = [], [], {}
    for row, (prompt, branches) in enumerate(zip(PROMPTS, BRANCHES, strict=True)):
        asked, prefix = named(prompt), said(prompt)
        kept = list(dict.fromkeys([*asked, *(name for branch in branches for name in named(branch))]))
        places = rotary_positions(prefix == IMAGE, [GRIDS[name] for name in asked])
        made = []
        for column, pieces in enumerate(branches):
            tokens = said(pieces)
            which = tuple(map(kept.index, named(pieces)))
            made.append(Branch("b", tokens, np.ones(len(tokens), np.int8), True, 0.0, which))
            first = int(places.max()) + 1
            waiting[row, column] = waiting_tokens(tokens.tolist(), pictures, named(pieces), first, IMAGE)
        images = pack_images([pictures[name] for name in kept], small_config.vision)
        groups.append(Group(str(row), prefix, places, images, tuple(made), prefix_images=len(asked)))
        own = pack_images([pictures[name] for name in asked], small_config.vision)
        alone.append(Group(str(row), prefix, places, own, ()))
    nothing = [np.zeros((3, 1), np.float32)] * 2
    batch = collate_groups(groups, nothing, image_token_id=IMAGE, prefix_buckets=(12,), branch_buckets=(24,))
    block, images = collate_prefixes(alone, image_token_id=IMAGE, buckets=(12,))
    prompt = Prompt(
        prefix=block,
        images=images,
        last_token=np.array([group.prefix[-1] for group in groups], np.int32),
        next_position=np.array([group.positions.max() + 1 for group in groups], np.int32),
        draw_ids=np.array([3, 9], np.int32),
    )
    functions = policy_functions(small_config)
    variables = random_variables(small_config, 7, rank=2)

    @jax.jit
    def score(variables: Variables, batch: GroupBatch) -> jax.Array:
        _, cache = functions.run_prefix(variables, batch.prefix, batch.images)
        hidden = functions.run_branches(variables, batch.branches, cache)
        return token_logprobs(hidden, functions.head(variables), batch.targets, batch.segments > 0, chunk_size=7)

    fresh = np.asarray(score(variables, batch))
    return Setting(functions, variables, pictures, prompt, batch, waiting, fresh)


def check(setting: Setting, parts: list[np.ndarray], taken: list[dict[Place, list[WaitingToken]]]) -> float:
    """Log-probs of the chunks together are those of the scoring pass; the largest difference."""
    largest = 0.0
    for place, tokens in setting.waiting.items():
        chunks = zip(parts, taken, strict=True)
        found = np.concatenate([logprobs[place][: len(chunk[place])] for logprobs, chunk in chunks])
        assert len(found) == len(tokens)
        np.testing.assert_allclose(found, setting.fresh[place][: len(tokens)], atol=1e-4)
        largest = max(largest, float(np.abs(found - setting.fresh[place][: len(tokens)]).max(initial=0)))
    return largest


LONGEST = 2 + 6 + 1 + 4 + 1 + 6 + 3


@pytest.mark.parametrize("width", [16, 7, 1, WIDE])
def test_logprobs_are_those_of_a_scoring_pass_wherever_an_image_is_cut(setting: Setting, width: int) -> None:
    """The first chunk ends at every place in turn, the others are of the width."""
    longest = max(map(len, setting.waiting.values()))
    assert longest == LONGEST
    for cut in range(1, min(width, longest) + 1):
        decoding, parts, taken, done = setting.begin(), [], [], 0
        while done < longest:
            size = width if done else cut
            chunks = {place: said[done : done + size] for place, said in setting.waiting.items()}
            decoding, logprobs = setting.feed(decoding, chunks, width)
            parts.append(logprobs)
            taken.append(chunks)
            done += size
        check(setting, parts, taken)
    assert setting.fresh.min() < -3 and len(np.unique(setting.fresh)) > 40


def test_branches_go_on_from_their_own_places(setting: Setting) -> None:
    """What is drawn after pictures is scored the same again, the new tokens included."""
    decoding, _ = setting.feed(setting.begin(), setting.waiting, WIDE)
    sampling = sampling_controls(max_tokens=NEW, stops=(), banned_ids=(IMAGE,), temperature=1.0)
    samples, decoding = generate(setting.functions, setting.variables, decoding, sampling)
    samples = jax.device_get(samples)
    told = {}
    for place, said in setting.waiting.items():
        last = max(said[-1].position) if said else int(setting.prompt.next_position[place[0]]) - 1
        assert np.asarray(decoding.position[place]).tolist() == [last + NEW] * 3
        drawn = [
            WaitingToken(int(token), (last + 1 + order,) * 3, None) for order, token in enumerate(samples.tokens[place])
        ]
        told[place] = [*said, *drawn]
    _, again = setting.feed(setting.begin(), told, WIDE)
    for place, said in setting.waiting.items():
        np.testing.assert_allclose(again[place][len(said) : len(said) + NEW], samples.logprobs[place][:NEW], atol=1e-4)


def test_other_pictures_give_other_logprobs(setting: Setting) -> None:
    """Only in the branches that are shown them."""
    swapped = dataclasses.replace(
        setting,
        pictures=setting.pictures | {"b": picture(GRIDS["b"], setting.functions.config, np.random.default_rng(8))},
    )
    _, found = swapped.feed(swapped.begin(), setting.waiting, WIDE)
    differs = {
        place: bool(np.abs(found[place][: len(said)] - setting.fresh[place][: len(said)]).max(initial=0) > 1e-3)
        for place, said in setting.waiting.items()
    }
    assert {place for place, different in differs.items() if different} == {(0, 0), (1, 1)}
