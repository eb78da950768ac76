"""Tokenizers that GGUF files carry, against those that they were made of."""

import json
import unicodedata
from pathlib import Path

import pytest
from gguf import GGUFWriter
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from regrpo_jax.data.gguf_tokenizer import gguf_tokenizer
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, load_tokenizer, train_tokenizer
from regrpo_jax.errors import UserError
from tests.models.gguf_writing import BYTES, add_tokenizer, finished

SPECIAL = ("<|im_start|>", "<|im_end|>")
TEXTS = (
    "In 2024 I'd pay 1,250 dollars; they've paid 31415.\n\n  def f(x):\n    return x  \n",
    "Zürich, 漢字 and e\u0301 <|im_start|>user\nDON'T<|im_end|>",
    " leading and  double   spaces\t\r\n",
    "",
)
# Published patterns, spelt out once more: Qwen2's, and Llama 3's with up to three digits.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)
# Split -> the pieces of "in 1234!" before any merge, Ġ for a space.
PIECES = {
    "gpt-2": ["in", "Ġ1234", "!"],
    "smollm": ["in", "Ġ", "1", "2", "3", "4", "!"],
    "qwen2": ["in", "Ġ", "1", "2", "3", "4", "!"],
    "llama-bpe": ["in", "Ġ", "123", "4", "!"],
}


def original(split: str) -> Tokenizer:
    """A small tokenizer as its family publishes it, trained on the texts."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=split == "llama-bpe"))
    if split in ("gpt-2", "smollm"):
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False)
        first = [pre_tokenizers.Digits(individual_digits=True)] if split == "smollm" else []
    else:
        digits = "{1,3}" if split == "llama-bpe" else ""
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        first = [pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", digits)), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*first, bytes_])
    tokenizer.normalizer = normalizers.NFC() if split == "qwen2" else None
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=BYTES,
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def written(path: Path, tokenizer: Tokenizer, split: str, **options: str) -> Path:
    held = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(held["vocab"], key=held["vocab"].__getitem__)
    tokens[tokens.index(SPECIAL[1])], tokens[-1] = tokens[-1], SPECIAL[1]  # the end of a text comes last
    writer = GGUFWriter(None, "llama")
    control = {tokens.index(token) for token in SPECIAL}
    add_tokenizer(writer, tokens, held["merges"], split, control=control, **options)
    return finished(writer, path)


@pytest.mark.parametrize("split", PIECES)
def test_texts_are_the_tokens_that_they_were(tmp_path: Path, split: str) -> None:
    theirs = original(split)
    tokenizer = gguf_tokenizer(written(tmp_path / "model.gguf", theirs, split))
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids) == theirs.encode(text, add_special_tokens=False).tokens
        assert tokenizer.decode(ids) == (unicodedata.normalize("NFC", text) if split == "qwen2" else text)
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1234!")
    assert [piece for piece, _ in pieces] == PIECES[split]
    assert (tokenizer.eos_token, tokenizer.chat_template) == (SPECIAL[1], CHAT_TEMPLATE)
    assert {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} == set(SPECIAL)
    assert len(tokenizer) == theirs.get_vocab_size()


def test_files_beside_it_come_first(tmp_path: Path) -> None:
    path = written(tmp_path / "model.gguf", original("gpt-2"), "gpt-2")
    assert len(load_tokenizer(path)) == original("gpt-2").get_vocab_size()
    beside = train_tokenizer(TEXTS, vocab_size=270)
    beside.save_pretrained(tmp_path)
    assert load_tokenizer(path).get_vocab() == beside.get_vocab()


def test_another_kind_of_tokenizer_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for split, model in (("default", "gpt2"), ("gpt-2", "llama")):
        path = written(tmp_path / f"{model}.gguf", original("gpt-2"), split, model=model)
        with pytest.raises(UserError) as error:
            load_tokenizer(path)
        assert f"its tokenizer is '{model}' with the splits '{split}'" in str(error.value)
        assert "put tokenizer.json" in str(error.value) and "\n" not in str(error.value)
