"""Which tokens of an episode with pictures are trained, and that each image token has its feature."""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import Heard, Told, WriteRequest
from regrpo_jax.agent.prompt import instruction_text
from regrpo_jax.agent.rollout import Label, Rollout, check_rollout
from regrpo_jax.agent.shown_pictures import ShownPicture
from regrpo_jax.data.batches import check_image_tokens, fed_places
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.images import pack_images
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, Status, Turn
from tests.rollouts.scripted_policy import ScriptedSession
from tests.rollouts.templates import SEEING, VISION, seeing_reader
from tests.rollouts.test_token_books import made_up_turn, some_words

EPISODES = 1000
# What tools may print or call their files, to pass for something else.
SPELLINGS = ("<image_00>", "<image_01>", "<image_02>", "<image>", "image_01", "<image_00", "vision_start")
NAMES = ("a.png", "<image_01>.png", "<image_02>.png", "a b.png", "ü 思考.png", "a: <image_03>.png", "x\n<image_00>.png")
SIZES = ((28, 28), (56, 28), (28, 84), (84, 84))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of one to nine image tokens."""
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for number, (width, height) in enumerate(SIZES * 2):
        path = folder / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)).save(path)
        paths.append(str(path))
    return paths


class Episode(NamedTuple):
    """said: the conversation as texts; shown: its pictures in order; told: each user turn that was heard."""

    prefix: np.ndarray
    asked: tuple[ImageReference, ...]
    rollout: Rollout
    emitted: list[tuple[int, float]]
    said: list[Turn]
    shown: tuple[ImageReference, ...]
    told: list[tuple[Told, Heard]]


def played_by(chance: random.Random, pictures: list[str]) -> Played:
    status = chance.choice([Status.OK, Status.OK, Status.TOOL_ERROR, Status.EMPTY, Status.INVALID_ACTION])
    outcome = "answered" if status == Status.OK and chance.random() < 0.1 else ""
    words = " ".join([some_words(chance), *chance.choices(SPELLINGS, k=chance.randint(0, 2))])
    made = tuple(
        ShownPicture(chance.choice(NAMES), f"digest {path}", path, "red")
        for path in chance.choices(pictures, k=chance.choice([0, 1, 1, 2, 3]))
    )
    note = "(not shown, as a step shows at most 3 pictures: b.png)" if chance.random() < 0.2 else ""
    return Played(status, words, outcome, chance.random() < 0.5, pictures=made, note=note)


def play(chance: random.Random, reader: ConversationReader, pictures: list[str], *, canonical: bool) -> Episode:
    count = chance.choice([0, 1, 2])
    files = tuple(ImageReference(f"<image_{n:02d}>", path) for n, path in enumerate(chance.sample(pictures, count)))
    asked = Told(instruction_text("say it.", [""] * count), files)
    said = [Turn("system", "Call one tool at each step."), Turn("user", asked.text)]
    prefix, _, _ = reader.read_prompt(said, asked.images)
    numbers = np.random.default_rng(chance.randrange(2**30))
    session = ScriptedSession(
        reader.renderer, lambda _, opening, __: made_up_turn(chance, opening), [], numbers, canonical
    )
    settings = LoopSettings(
        gate=chance.choice(["failure", "paper", "never"]),
        timing="post",
        retries=chance.randint(0, 4),
        max_steps=chance.randint(2, 6),
        turn_tokens=chance.choice([30, 400, 400, 400]),
        episode_tokens=2000,
    )
    loop = EpisodeLoop(settings, chance.choice([None, ["17"] * 4]), asked)
    shown, told = list(asked.images), []
    while not loop.done:
        turn = session.write([WriteRequest((0, 0), loop.opening(), loop.budget)])[0]
        said.append(Turn("assistant", turn.text))
        if loop.write_down(turn) is Move.PLAY:
            loop.observed(played_by(chance, pictures))
        if not loop.done:
            one = loop.user_turn()
            heard, images = reader.read_told(one)
            assert np.count_nonzero(heard.tokens == reader.renderer.image_token_id) == sum(
                image.num_tokens for image in images
            )
            loop.heard(heard)
            said.append(Turn("user", one.text))
            shown += one.images
            told.append((one, heard))
    rollout = loop.rollout(task_id="made up", group=0, branch=0, policy_version=3, seed=1)
    check_rollout(rollout)
    return Episode(prefix, asked.images, rollout, session.emitted[0, 0], said, tuple(shown), told)


@pytest.mark.parametrize("template", SEEING)
def test_no_token_of_a_picture_or_a_template_is_trained(template: str, pictures: list[str]) -> None:
    reader = seeing_reader(template)
    image = reader.renderer.image_token_id
    control = sorted(set(reader.renderer.control_tokens.values()) - {reader.renderer.end_of_turn_id})
    seen = {"pictures": 0, "several at once": 0, "the same again": 0, "none": 0}
    for number in range(EPISODES):
        chance = random.Random(f"{template}/{number}")
        episode = play(chance, reader, pictures, canonical=False)
        rollout = episode.rollout
        trained, is_image = rollout.trained, rollout.tokens == image
        found = list(zip(rollout.tokens[trained].tolist(), rollout.logprobs[trained].tolist(), strict=True))
        assert found == episode.emitted
        assert not np.any(np.isin(rollout.tokens, control) & trained)
        assert np.all(rollout.labels[is_image] == Label.OBSERVATION)
        for told, heard in episode.told:
            check_heard(reader, told, heard)
        if number % 3 == 0:
            check_features(chance, reader, rollout)
        shown = rollout.image_files
        assert shown == episode.shown[len(episode.asked) :]
        assert len({one.placeholder for one in episode.shown}) == len(episode.shown)
        seen["pictures"] += len(shown)
        seen["several at once"] += any(len(told.images) > 1 for told, _ in episode.told)
        seen["the same again"] += len({one.path for one in shown}) < len(shown)
        seen["none"] += not shown
    assert min(seen.values()) > EPISODES // 20, seen


def check_heard(reader: ConversationReader, told: Told, heard: Heard) -> None:
    """Spoken are the text and the images, and nothing else."""
    renderer = reader.renderer
    is_image = heard.tokens == renderer.image_token_id
    assert np.all(heard.spoken[is_image])
    template = np.isin(heard.tokens, sorted({*renderer.control_tokens.values()} - {renderer.image_token_id}))
    assert not np.any(heard.spoken & template)
    text = told.text
    for one in told.images:
        before, found, after = text.partition(one.placeholder)
        assert found
        text = before + after
    spoken = renderer.tokenizer.decode(heard.tokens[heard.spoken & ~is_image], clean_up_tokenization_spaces=False)
    assert spoken == text


def check_features(chance: random.Random, reader: ConversationReader, rollout: Rollout) -> None:
    """Each image token has its feature; one token or one feature less is refused by name."""
    paths = list(dict.fromkeys(image.path for image in rollout.image_files))
    images = reader.read_images([Turn("user", "")], [ImageReference("", path) for path in paths])
    which = [paths.index(image.path) for image in rollout.image_files]
    image = reader.renderer.image_token_id
    length = len(rollout.tokens) + 1

    def places(tokens: np.ndarray, pictures: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return fed_places(tokens, length, 9, images, pictures, image, "made up, branch 0")

    _, index = places(rollout.tokens, which)
    features = images.features_of(which)
    np.testing.assert_array_equal(index[index >= 0], features)
    np.testing.assert_array_equal(index[1:] >= 0, rollout.tokens == image)
    if which:
        found = np.flatnonzero(rollout.tokens == image)
        fewer = np.delete(rollout.tokens, chance.choice(found.tolist()))
        words = f"made up, branch 0: {len(found) - 1} image tokens for {len(found)} image features"
        with pytest.raises(UserError, match=words):
            places(fewer, which)
        with pytest.raises(UserError, match="made up, branch 0: .* image features"):
            places(rollout.tokens, which[:-1])
        check_image_tokens("made up", rollout.tokens, len(features), image)
        with pytest.raises(UserError, match=f"made up: {len(found)} image tokens for {len(found) - 1} image features"):
            check_image_tokens("made up", rollout.tokens, len(features) - 1, image)


@pytest.mark.parametrize("template", SEEING)
def test_the_tokens_of_an_episode_are_those_of_the_whole_conversation(template: str, pictures: list[str]) -> None:
    reader = seeing_reader(template)
    compared = 0
    for number in range(EPISODES // 10):
        episode = play(random.Random(f"{template}/{number}/whole"), reader, pictures, canonical=True)
        rollout = episode.rollout
        if rollout.truncated:
            continue
        rendered, _, packed = reader.read(episode.said, episode.shown)
        end = len(rendered.tokens) if episode.said[-1].role == "user" else rendered.spans[-1][1] + 1
        np.testing.assert_array_equal(np.concatenate([episode.prefix, rollout.tokens]), rendered.tokens[:end])
        segments = np.where(rollout.labels == Label.REFLECTION, Segment.REFLECTION, Segment.ACTION)
        trained = np.flatnonzero(rollout.trained)
        np.testing.assert_array_equal(segments[trained], rendered.segments[:end][len(episode.prefix) :][trained])
        in_order = reader.read_images([Turn("user", "")], [ImageReference("", one.path) for one in episode.shown])
        np.testing.assert_array_equal(packed.patches, in_order.patches)
        compared += len(rollout.image_files) > 0
    assert compared > EPISODES // 40


@pytest.mark.parametrize("template", SEEING)
def test_a_continuation_with_images_is_the_tail_of_the_whole_conversation(template: str, pictures: list[str]) -> None:
    reader = seeing_reader(template)
    renderer = reader.renderer
    references = [ImageReference(f"<image_{number:02d}>", path) for number, path in enumerate(pictures[:4])]
    texts = [
        ("17\na: <image_01>", references[1:2]),
        ("<image_01> <image_02><image_03>", references[1:4]),
        ("  <image_02>  \n", references[2:3]),
        ("<image_02> 思考 🤷🏽‍♀️ <image_01>", references[1:3]),
        ("[OUTPUT OF STEP 0] -> Observation:\nassistant\nb.png: <image_01>", references[1:2]),
    ]
    for text, images in texts:
        before = [Turn("system", "s"), Turn("user", "Task <image_00>"), Turn("assistant", "Thought: x")]
        whole = [*before, Turn("user", text)]
        prompt, _, _ = reader.read_prompt(whole, [references[0], *images])
        alone, _, _ = reader.read(before, references[:1])
        heard, patched = reader.read_told(Told(text, tuple(images)))
        end = alone.spans[-1][1] + 1
        np.testing.assert_array_equal(heard.tokens, prompt[end:])
        ordered = sorted(images, key=lambda one: text.index(one.placeholder))
        wanted = reader.read_images([Turn("user", "")], [ImageReference("", one.path) for one in ordered])
        np.testing.assert_array_equal(pack_images(patched, VISION).patches, wanted.patches)
        fed, _ = renderer.continuation(whole[-1], images, [image.num_tokens for image in patched])
        np.testing.assert_array_equal(fed, heard.tokens)
