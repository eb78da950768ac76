"""Tokenizers: trained on the spot for the tiny preset, or read from a local Hugging Face directory."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from regrpo_jax.data.gguf_tokenizer import gguf_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.models.gguf_files import is_gguf
from regrpo_jax.models.own_config import MODEL_TYPE
from regrpo_jax.models.qwen2_vl.hf_config import read_json

IMAGE_TOKEN = "<|image_pad|>"
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_TOKEN,
)

# What Qwen2-VL's tokenizers have for pictures and films: the policy must not write them and no text may spell them.
VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", IMAGE_TOKEN, "<|video_pad|>")

# ChatML, as Qwen2-VL writes it: a message is a string or a list of text and image parts.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Whole phrases that every episode repeats: how an agent's turns and its observations are laid out, and the roles.
_PHRASES = (
    r"Thought:|\n\nCode:\n```py\n|\n```|Reflection:\n- ErrorType:|\n- Evidence:|\n- FixPlan:|"
    r"(?:user\n)?\[OUTPUT OF STEP |\] -> Observation:\n|system\n(?:Call one tool at each step\.)?|user\n|assistant\n"
)
# GPT-2's split, but a quoted word is a piece with its quotes, which no space ever joins, and other numbers come in
# runs of at most three digits. A quoted name is then the same token wherever it stands, which is what a small policy
# needs in order to copy it.
_WORDS = (
    r"\"[\p{L}\p{N}_]{1,16}\"| ?\p{L}+(?:_\p{L}+)*(?: (?=\"))?|\p{N}{1,3}| ?[^\s\p{L}\p{N}\"]+(?: (?=\"))?|\"|"
    r"\s+(?!\S)|\s+"
)
WORD_PATTERN = Regex(f"{_PHRASES}|{_WORDS}")


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE with ChatML markers on `texts`; every string round-trips through it.

    Args:
      texts: the corpus.
      vocab_size: upper bound on the number of tokens, at least 262 (256 bytes and 6 markers).
    Raises:
      UserError: `vocab_size` is too small.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UserError(f"config.model.vocab_size is {vocab_size}; a byte-level tokenizer needs at least {smallest}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORD_PATTERN, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Reads the tokenizer of a local Hugging Face directory, or that beside or inside a GGUF file; nothing is fetched.

    Raises:
      UserError: the folder holds no tokenizer, or one without a chat template.
    """
    if is_gguf(folder) and not (folder.parent / "tokenizer.json").exists():
        return _with_template(gguf_tokenizer(folder), folder)
    folder = folder.parent if is_gguf(folder) else folder
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name a local Hugging Face directory")
    try:
        kind = PreTrainedTokenizerFast if _is_own(folder) else AutoTokenizer  # which warns about what it does not know
        tokenizer = kind.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged tokenizer file may end in an error of any type
        raise UserError(f"{folder}: no tokenizer could be read from this folder ({_first_line(error)})") from error
    return _with_template(tokenizer, folder)


def _with_template(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    # Where the processors of transformers 4 kept it, and with it the published Qwen2-VL checkpoints.
    older = folder / "chat_template.json"
    if not tokenizer.chat_template and older.exists():
        template = read_json(older).get("chat_template")
        if not isinstance(template, str):
            raise UserError(f"{older}: `chat_template` must be a text, found {type(template).__name__}")
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder}: the tokenizer has no chat template; add `chat_template.jinja` (or `chat_template` in "
            "tokenizer_config.json), as instruction-tuned checkpoints ship it"
        )
    return tokenizer


def _is_own(folder: Path) -> bool:
    """Whether the folder holds a policy in `own_config`'s form."""
    path = folder / "config.json"
    return path.exists() and read_json(path).get("model_type") == MODEL_TYPE


def checkpoint_image_token(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the token that stands for one image feature, from the `image_token_id` of a `config.json`.

    Raises:
      UserError: the file does not say, or the tokenizer has no such special token.
    """
    path = folder / "config.json"
    token_id = read_json(path).get("image_token_id")
    if not isinstance(token_id, int):
        raise UserError(f"{path}: image_token_id is {token_id!r}; a model that sees must name its image token's id")
    token = tokenizer.added_tokens_decoder.get(token_id)
    if token is None:
        raise UserError(
            f"{path}: image_token_id is {token_id}, but {folder / 'tokenizer.json'} has no special token of that id; "
            "the two files belong to different models"
        )
    return token.content


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
