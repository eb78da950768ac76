"""The trained tokenizer keeps every text, and folders without a usable tokenizer are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatError, ChatRenderer
from regrpo_jax.data.tokenizer import (
    CHAT_TEMPLATE,
    IMAGE_TOKEN,
    SPECIAL_TOKENS,
    checkpoint_image_token,
    load_tokenizer,
    train_tokenizer,
)
from regrpo_jax.errors import UserError
from regrpo_jax.records import ImageReference, Turn

CORPUS = ("Thought: I read the ledger.\n\nCode:\n```py\nprint(12345)\n```", "Error: ledger not found, 12345")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, vocab_size=320)


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class TestTraining:
    """A byte-level tokenizer on the spot."""

    @given(text=st.text(st.characters(exclude_categories=["Cs"])))
    @example(text="a  b\r\n\t c ,d . e 's n't\u00a0\u200d\u0301")
    @example(text="<|im_start|>user\n<|image_pad|><|im_end|> <|im_end")
    @example(text="\x00\ufffd\U0001f937\U0001f3fd\u200d♀️١٢٣４５６")
    def test_every_text_round_trips(self, tokenizer: PreTrainedTokenizerFast, text: str) -> None:
        assert round_trip(tokenizer, text) == text

    def test_markers_are_single_tokens_with_their_roles(self, tokenizer: PreTrainedTokenizerFast) -> None:
        for index, marker in enumerate(SPECIAL_TOKENS):
            assert tokenizer(marker, add_special_tokens=False)["input_ids"] == [index]
        assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
        assert IMAGE_TOKEN in SPECIAL_TOKENS and tokenizer.chat_template == CHAT_TEMPLATE

    def test_digits_come_three_at_a_time(self, tokenizer: PreTrainedTokenizerFast) -> None:
        pieces = [tokenizer.decode([index]) for index in tokenizer("12345")["input_ids"]]
        assert "".join(pieces) == "12345" and all(len(piece) <= 3 for piece in pieces)

    def test_the_vocabulary_keeps_its_bound(self) -> None:
        smallest = 256 + len(SPECIAL_TOKENS)
        assert len(train_tokenizer(CORPUS, vocab_size=smallest)) == smallest
        assert smallest < len(train_tokenizer(CORPUS, vocab_size=290)) <= 290
        bare = train_tokenizer((), vocab_size=smallest)
        assert round_trip(bare, "nothing was learnt, ünïcödé") == "nothing was learnt, ünïcödé"

    @pytest.mark.parametrize("vocab_size", (0, 261))
    def test_too_small_a_vocabulary_is_refused(self, vocab_size: int) -> None:
        with pytest.raises(UserError, match=rf"config\.model\.vocab_size is {vocab_size}; .* at least 262"):
            train_tokenizer(CORPUS, vocab_size=vocab_size)


class TestLoading:
    """Local folders only, and an error that says which."""

    def test_a_saved_tokenizer_comes_back(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
        tokenizer.save_pretrained(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert loaded.chat_template == CHAT_TEMPLATE and len(loaded) == len(tokenizer)
        text = "<|im_start|>user\nledger 12345 . é<|im_end|>"
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="gone: no such folder"):
            load_tokenizer(tmp_path / "gone")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=f"{tmp_path}: no tokenizer could be read from this folder"):
            load_tokenizer(tmp_path)

    @pytest.mark.parametrize("content", ("{broken", "{}", "[]", '{"model": 3, "added_tokens": []}'))
    def test_a_damaged_tokenizer_file(self, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, content: str) -> None:
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(UserError, match=f"{tmp_path}: no tokenizer could be read from this folder"):
            load_tokenizer(tmp_path)

    def test_a_tokenizer_without_a_chat_template(
        self, make_tokenizer: Callable[[str], PreTrainedTokenizerFast], tmp_path: Path
    ) -> None:
        make_tokenizer("").save_pretrained(tmp_path)
        with pytest.raises(UserError, match=f"{tmp_path}: the tokenizer has no chat template; add"):
            load_tokenizer(tmp_path)


# Qwen2-VL's published template, without its branches for films.
QWEN2_VL = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or "
    "'image' in content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|>"
    "<|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPELLINGS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the files of a Qwen2-VL checkpoint that concern text; its template is in the older place."""
    tokenizer = train_tokenizer(CORPUS, vocab_size=320)
    # Two that the policy must not write either, though the tokenizer does not call them special.
    tokenizer.add_tokens(["<|vision_pad|>", "<|video_pad|>"])
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": QWEN2_VL}))
    description = {"model_type": "qwen2_vl", "image_token_id": tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)}
    (tmp_path / "config.json").write_text(json.dumps(description))
    return tmp_path


class TestCheckpointsThatSee:
    """The layout of the published Qwen2-VL checkpoints."""

    def test_the_template_of_the_older_layout(self, checkpoint: Path) -> None:
        tokenizer = load_tokenizer(checkpoint)
        assert tokenizer.chat_template == QWEN2_VL
        renderer = ChatRenderer(tokenizer, image_token=checkpoint_image_token(checkpoint, tokenizer))
        turns = (Turn("user", "a <image_00>, <image_01>"), Turn("assistant", "b"), Turn("user", "c"))
        images = tuple(ImageReference(f"<image_{index:02}>", "x.png") for index in range(2))
        told = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\na "
            "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>, <|vision_start|><|image_pad|><|vision_end|>"
            "<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        )
        assert tokenizer.decode(renderer.render(turns[:2], images, [2, 1]).tokens) == told
        prompt = tokenizer.decode(renderer.render_prompt(turns, images, [2, 1]))
        assert prompt == told + "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
        own = renderer.render((Turn("system", "s"), *turns[:2]), images, [1, 1])
        assert "helpful" not in tokenizer.decode(own.tokens)

    def test_the_newer_layout_counts_first(self, checkpoint: Path) -> None:
        (checkpoint / "chat_template.jinja").write_text(CHAT_TEMPLATE)
        assert load_tokenizer(checkpoint).chat_template == CHAT_TEMPLATE

    @pytest.mark.parametrize(
        ("content", "message"),
        (
            ("{broken", r"chat_template\.json: invalid JSON at line 1"),
            ("[]", r"chat_template\.json: expected a JSON object"),
            ("{}", r"chat_template\.json: `chat_template` must be a text, found NoneType"),
            ('{"chat_template": ""}', "the tokenizer has no chat template"),
        ),
    )
    def test_a_broken_template_file(self, checkpoint: Path, content: str, message: str) -> None:
        (checkpoint / "chat_template.json").write_text(content)
        with pytest.raises(UserError, match=message):
            load_tokenizer(checkpoint)

    def test_vision_tokens_are_control_tokens(self, checkpoint: Path) -> None:
        tokenizer = load_tokenizer(checkpoint)
        for image_token in (IMAGE_TOKEN, None):
            renderer = ChatRenderer(tokenizer, image_token=image_token)
            assert set(SPELLINGS) <= renderer.control_tokens.keys()
            for spelling in SPELLINGS:
                assert renderer.control_tokens[spelling] == tokenizer.convert_tokens_to_ids(spelling)
                with pytest.raises(ChatError, match="turn 0 contains the tokenizer's control token"):
                    renderer.render((Turn("user", f"a {spelling}"), Turn("assistant", "b")))

    def test_an_image_token_that_the_tokenizer_does_not_have(self, checkpoint: Path) -> None:
        tokenizer = load_tokenizer(checkpoint)
        for other in (len(tokenizer), 151655, 40, -1):
            (checkpoint / "config.json").write_text(json.dumps({"image_token_id": other}))
            message = rf"config\.json: image_token_id is {other}, but .*tokenizer\.json has no special token of that id"
            with pytest.raises(UserError, match=message):
                checkpoint_image_token(checkpoint, tokenizer)
        (checkpoint / "config.json").write_text("{}")
        with pytest.raises(UserError, match=r"config\.json: image_token_id is None"):
            checkpoint_image_token(checkpoint, tokenizer)
