"""The tokenizer that a GGUF file carries as metadata: byte-level BPE whose way of splitting text is known here.

transformers reads these too, but needs torch for it, and splits numbers of SmolLM's tokenizer otherwise than that does.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from regrpo_jax.errors import UserError
from regrpo_jax.models.gguf_files import metadata

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # kinds of tokens; what is unused only fills the table of embeddings up
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _by(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
# `tokenizer.ggml.pre` -> how text is split before pairs are merged.
SPLITS: dict[str, pre_tokenizers.PreTokenizer] = {
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    "qwen2": _by(_WORDS % ""),
    "llama-bpe": _by(_WORDS % "{1,3}"),
}
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a GGUF file, with its chat template if there is one.

    Raises:
      UserError: it has none, or one of another kind; the tokenizer's own files have to stand beside it then.
    """
    held = metadata(path)
    kind, split = held.get("tokenizer.ggml.model"), held.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in SPLITS:
        raise UserError(
            f"{path}: its tokenizer is {kind!r} with the splits {split!r}, and only 'gpt2' with "
            f"{', '.join(map(repr, SPLITS))} is read; put tokenizer.json and tokenizer_config.json beside the file"
        )
    tokens = held["tokenizer.ggml.tokens"]
    return PreTrainedTokenizerFast(
        tokenizer_object=_backend(held, tokens, str(split)),
        chat_template=held.get("tokenizer.chat_template"),
        clean_up_tokenization_spaces=False,
        **{name: _named(tokens, held.get(f"tokenizer.ggml.{key}_token_id")) for name, key in _SPECIAL.items()},
    )


def _backend(held: dict[str, Any], tokens: list[str], split: str) -> Tokenizer:
    kinds = held.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    vocabulary = {token: id_ for id_, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    first_and_second = [tuple(merge.split(" ")) for merge in held["tokenizer.ggml.merges"]]
    whole = split == "llama-bpe"  # Llama 3 takes a word that is in the vocabulary as it is
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=first_and_second, ignore_merges=whole))
    tokenizer.normalizer = normalizers.NFC() if split == "qwen2" else None
    tokenizer.pre_tokenizer = SPLITS[split]
    tokenizer.decoder = decoders.ByteLevel()
    for kind, add in ((CONTROL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
        named = [token for token, own in zip(tokens, kinds, strict=True) if own == kind]
        add([AddedToken(token, special=kind == CONTROL, normalized=False) for token in named])
    return tokenizer


def _named(tokens: list[str], id_: int | None) -> str | None:
    return None if id_ is None else tokens[id_]
