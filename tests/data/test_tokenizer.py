"""The trained tokenizer keeps every text, and folders without a usable tokenizer are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.tokenizer import (
    CHAT_TEMPLATE,
    IMAGE_TOKEN,
    SPECIAL_TOKENS,
    load_tokenizer,
    train_tokenizer,
)
from regrpo_jax.errors import UserError

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
