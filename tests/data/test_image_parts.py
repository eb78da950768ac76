"""Images stand where the record puts them, as many image tokens as there are features."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatError, ChatRenderer
from regrpo_jax.data.image_parts import image_order, images_before, with_image_parts
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, IMAGE_TOKEN
from regrpo_jax.records import ImageReference, Turn

Decode = Callable[[ChatRenderer, np.ndarray], str]
PAIR = (ImageReference("<image_00>", "a.png"), ImageReference("<image_01>", "b.png"))


def image_runs(renderer: ChatRenderer, tokens: np.ndarray) -> list[int]:
    """Lengths of the runs of image tokens."""
    return [len(list(run)) for is_image, run in itertools.groupby(tokens == renderer.image_token_id) if is_image]


def slow_parts(turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[list[str]]:
    """Texts and image paths of each user turn, read character by character."""
    waiting = {image.placeholder or "<image>": [] for image in images}
    for image in images:
        waiting[image.placeholder or "<image>"].append(image.path)
    read = []
    for turn in turns:
        parts, text, rest = [], "", turn.content
        while rest:
            mark = max((mark for mark in waiting if rest.startswith(mark)), key=len, default=rest[0])
            rest = rest[len(mark) :]
            if waiting.get(mark):
                parts += [text, waiting[mark].pop(0)]
                text = ""
            else:
                text += mark
        read.append([part for part in (*parts, text) if part])
    left = [path for paths in waiting.values() for path in paths]
    read[0] = [image.path for image in images if image.path in left] + read[0]
    return [parts or [""] for parts in read]


class TestImages:
    """Image tokens stand where the record puts its images, as many as there are features."""

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
    def test_placeholders_in_any_order(
        self, renderers: dict[str, ChatRenderer], decode: Decode, order: tuple[int, ...]
    ) -> None:
        images = [ImageReference(f"<image_{index:02}>", f"{index}.png") for index in range(3)]
        lengths = {f"{index}.png": 2 + index for index in range(3)}
        turns = (Turn("user", "; ".join(f"<image_{index:02}>" for index in order)), Turn("assistant", "seen"))
        ordered = image_order(turns, images)
        assert [image.path for image in ordered] == [f"{index}.png" for index in order]
        for name in ("chatml", "default_system", "content_parts"):
            chat = renderers[name].render(turns, images, [lengths[image.path] for image in ordered])
            assert image_runs(renderers[name], chat.tokens) == [2 + index for index in order]
            start, end = chat.spans[0]
            assert decode(renderers[name], chat.tokens[start:end]) == "seen"
            assert not chat.segments[chat.tokens == renderers[name].image_token_id].any()

    def test_one_image_token_a_feature_and_the_rest_unchanged(
        self, renderers: dict[str, ChatRenderer], decode: Decode
    ) -> None:
        turns = (Turn("user", "a <image_00>b"), Turn("assistant", "c"))
        chat = renderers["chatml"].render(turns, PAIR[:1], [5])
        text = decode(renderers["chatml"], chat.tokens)
        images = f"<|vision_start|>{IMAGE_TOKEN * 5}<|vision_end|>"
        assert text == f"<|im_start|>user\na {images}b<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n"

    def test_images_without_a_place_lead_the_first_user_turn(self) -> None:
        turns = (Turn("system", "s"), Turn("user", "u <image_01>"), Turn("assistant", "<image_00>"), Turn("user", "v"))
        images = (ImageReference("", "bare.png"), *PAIR)
        assert [image.path for image in image_order(turns, images)] == ["bare.png", "a.png", "b.png"]
        messages = with_image_parts(turns, images)
        assert messages[1]["content"] == [
            {"type": "image"},
            {"type": "image"},
            {"type": "text", "text": "u "},
            {"type": "image"},
        ]
        assert [messages[index]["content"] for index in (0, 2, 3)] == ["s", "<image_00>", "v"]

    def test_bare_paths_take_the_image_markers_in_order(self) -> None:
        turns = (Turn("user", "<image>\nfirst"), Turn("assistant", "<image>"), Turn("user", "<image>, <image>"))
        images = (ImageReference("", "a.png"), ImageReference("", "b.png"))
        assert [image.path for image in image_order(turns, images)] == ["a.png", "b.png"]
        messages = with_image_parts(turns, images)
        assert messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "\nfirst"}]
        assert messages[2]["content"] == [{"type": "image"}, {"type": "text", "text": ", <image>"}]

    def test_a_placeholder_said_again_is_text(self, renderers: dict[str, ChatRenderer], decode: Decode) -> None:
        turns = (
            Turn("user", "<image_00> and <image_00>"),
            Turn("assistant", "b"),
            Turn("user", "saw <image_00>"),
            Turn("assistant", "c"),
        )
        chat = renderers["chatml"].render(turns, PAIR[:1], [3])
        assert image_runs(renderers["chatml"], chat.tokens) == [3]
        assert decode(renderers["chatml"], chat.tokens).count("<image_00>") == 2

    def test_a_placeholder_that_begins_another_is_not_confused_with_it(self) -> None:
        images = (ImageReference("image_1", "one.png"), ImageReference("image_10", "ten.png"))
        turns = (Turn("user", "image_10 then image_1."),)
        assert [image.path for image in image_order(turns, images)] == ["ten.png", "one.png"]
        content = with_image_parts(turns, images)[0]["content"]
        assert [part.get("text", "") for part in content] == ["", " then ", "", "."]

    @given(
        texts=st.lists(st.lists(st.sampled_from(("<image_00>", "<image_01>", "<image>", "x ", "é")), max_size=5)),
        images=st.permutations((*PAIR, ImageReference("", "c.png"), ImageReference("", "d.png"))),
        count=st.integers(0, 4),
    )
    def test_parts_are_those_of_a_slow_reader(
        self, texts: list[list[str]], images: list[ImageReference], count: int
    ) -> None:
        turns = [Turn("user", "".join(words)) for words in [["task "], *texts]]
        chosen = images[:count]
        waiting = iter(image_order(turns, chosen))
        read = []
        for message in with_image_parts(turns, chosen):
            parts = message["content"]
            whole = [{"type": "text", "text": parts}] if isinstance(parts, str) else parts
            read.append([part["text"] if part["type"] == "text" else next(waiting).path for part in whole])
        assert next(waiting, None) is None
        assert read == slow_parts(turns, chosen)

    @pytest.mark.parametrize("lengths", ((), (2,), (2, 2, 2)))
    def test_image_tokens_and_images_must_match(
        self, renderers: dict[str, ChatRenderer], lengths: tuple[int, ...]
    ) -> None:
        turns = (Turn("user", "<image_00><image_01>"), Turn("assistant", "b"))
        with pytest.raises(ChatError, match=f"2 image tokens in the text for {len(lengths)} images"):
            renderers["chatml"].render(turns, PAIR, lengths)

    @pytest.mark.parametrize("name", ("llama", "mistral", "gemma"))
    def test_a_template_without_images_is_refused(self, renderers: dict[str, ChatRenderer], name: str) -> None:
        turns = (Turn("user", "look <image_00>"), Turn("assistant", "b"))
        with pytest.raises(ChatError, match="0 image tokens in the text for 1 images|rejects this conversation"):
            renderers[name].render(turns, PAIR[:1], [4])

    def test_images_without_a_user_turn_are_refused(self, renderers: dict[str, ChatRenderer]) -> None:
        with pytest.raises(ChatError, match="0 image tokens in the text for 1 images"):
            renderers["chatml"].render((Turn("system", "a"), Turn("assistant", "b")), PAIR[:1], [4])

    def test_an_unknown_image_token_is_refused(self, make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
        renderer = ChatRenderer(make_tokenizer(CHAT_TEMPLATE), image_token="<|picture|>")
        with pytest.raises(ChatError, match=r"no image token '<\|picture\|>'"):
            renderer.render((Turn("user", "a"), Turn("assistant", "b")))


def test_an_image_is_seen_only_from_its_turn_on() -> None:
    turns = [Turn("user", "<a> Task: look."), Turn("assistant", "x"), Turn("user", "Observation: <b>")]
    images = [ImageReference("<b>", "b.png"), ImageReference("<a>", "a.png"), ImageReference("", "c.png")]
    assert [image.path for image in images_before(turns, 1, images)] == ["c.png", "a.png"]
    assert [image.path for image in images_before(turns, 2, images)] == ["c.png", "a.png"]
    assert [image.path for image in images_before(turns, 3, images)] == ["c.png", "a.png", "b.png"]
