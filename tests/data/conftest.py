"""Chat templates of several families over one small tokenizer, and records and images to render with them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, IMAGE_TOKEN, train_tokenizer
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records import ErrorType, ImageReference, Reflection, RotRecord, Trajectory, Turn, render_reflection
from regrpo_jax.records.conversation import steps_of

# A template that knows images writes a turn's content so.
PARTS = (
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}"
)
LLAMA = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
MISTRAL = (
    "<s>{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = message['content'] + '\n\n' %}"
    "{% elif message['role'] == 'user' %}[INST] {{ ns.system }}{{ message['content'] }} [/INST]"
    "{% set ns.system = '' %}{% else %}{{ message['content'] }}</s>{% endif %}{% endfor %}"
)
GEMMA = (
    "<bos>{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ first if loop.first else '' }}{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + CHAT_TEMPLATE
)
CONTENT_PARTS = (
    "<s>{% for message in messages %}<|role|>{{ message['role'] | capitalize }}:"
    + PARTS
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}<|role|>Assistant:{% endif %}"
)

TEMPLATES = {
    "chatml": CHAT_TEMPLATE,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "default_system": DEFAULT_SYSTEM,
    "content_parts": CONTENT_PARTS,
}
IMAGE_TEMPLATES = ("chatml", "default_system", "content_parts")
END_OF_TURN = {
    "chatml": "<|im_end|>",
    "llama": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "default_system": "<|im_end|>",
    "content_parts": "<end_of_utterance>",
}
MARKERS = [
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<s>", "</s>", "[INST]", "[/INST]"),
    *("<bos>", "<start_of_turn>", "<end_of_turn>"),
    *("<|role|>", "<end_of_utterance>"),
]
VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
# An image may be as small as a single token.
SETTINGS = ImageSettings(min_pixels=28 * 28, max_pixels=64 * 28 * 28, temporal_patch_size=1)

FAILED = 'Thought: I read the ledger.\n\nCode:\n```py\nprint(inspect_file_as_text("legder.csv"))\n```'
CORRECTED = 'Thought: The name was wrong.\n\nCode:\n```py\nprint(inspect_file_as_text("ledger.csv"))\n```'
REFLECTION = Reflection(
    ErrorType.ARG_INVALID, "It answered 'File not found: legder.csv'.", "Read ledger.csv, the attached file."
)
CONVERSATION = (
    Turn("system", "Solve the task with tools."),
    Turn("user", "Task: What is the total in ledger.csv?"),
    Turn("assistant", 'Thought: Look around.\n\nCode:\n```py\nprint(list_files("."))\n```'),
    Turn("user", "[OUTPUT OF STEP 0] -> Observation:\nledger.csv"),
    Turn("assistant", FAILED),
    Turn("user", "[OUTPUT OF STEP 1] -> Observation:\nError: File not found: legder.csv"),
    Turn("assistant", render_reflection(REFLECTION) + CORRECTED),
    Turn("user", "[OUTPUT OF STEP 2] -> Observation:\nTotal: 1280"),
    Turn("assistant", 'Thought: Done.\n\nCode:\n```py\nfinal_answer("1280")\n```'),
)


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[[str], PreTrainedTokenizerFast]:
    """Gives the small tokenizer another chat template; it knows the markers of all of them."""
    trained = train_tokenizer(("\n".join(turn.content for turn in CONVERSATION),), vocab_size=400)
    trained.add_special_tokens({"additional_special_tokens": MARKERS})

    def make(template: str) -> PreTrainedTokenizerFast:
        tokenizer = copy.deepcopy(trained)
        tokenizer.chat_template = template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def renderers(make_tokenizer: Callable[[str], PreTrainedTokenizerFast]) -> dict[str, ChatRenderer]:
    """A renderer for every family of templates, by name."""
    return {name: ChatRenderer(make_tokenizer(text), image_token=IMAGE_TOKEN) for name, text in TEMPLATES.items()}


@pytest.fixture(scope="session", params=TEMPLATES)
def family(request: pytest.FixtureRequest) -> str:
    """A test that asks for it, or for what follows from it, runs once for every family of templates."""
    return request.param


@pytest.fixture(scope="session")
def renderer(renderers: dict[str, ChatRenderer], family: str) -> ChatRenderer:
    """The renderer of the family."""
    return renderers[family]


@pytest.fixture(scope="session")
def end_of_turn(family: str) -> str:
    """The token that closes an assistant turn in the family."""
    return END_OF_TURN[family]


@pytest.fixture(scope="session")
def reader(renderer: ChatRenderer) -> ConversationReader:
    """The family's renderer with a vision tower of 14-pixel patches, 2 x 2 of them to an image token."""
    return ConversationReader(renderer, VISION, SETTINGS)


@pytest.fixture(scope="session", params=IMAGE_TEMPLATES)
def image_reader(renderers: dict[str, ChatRenderer], request: pytest.FixtureRequest) -> ConversationReader:
    """A reader for every family whose template knows images."""
    return ConversationReader(renderers[request.param], VISION, SETTINGS)


@pytest.fixture(scope="session")
def chatml_reader(renderers: dict[str, ChatRenderer]) -> ConversationReader:
    """A reader of our own template."""
    return ConversationReader(renderers["chatml"], VISION, SETTINGS)


@pytest.fixture(scope="session")
def rot_record() -> RotRecord:
    """A record with one plain step, a failure, its repair and the answer."""
    return RotRecord(
        id="ledger_rot",
        images=(),
        answer="1280",
        conversation=CONVERSATION,
        source_id="ledger",
        step_index=1,
        error_type=REFLECTION.error_type,
        failed_action=FAILED,
        failed_observation="Error: File not found: legder.csv",
        reflection=REFLECTION,
        corrected_action=CORRECTED,
        final_answer="1280",
        failed_turn=4,
        reflection_turn=6,
    )


@pytest.fixture(scope="session")
def clean_record() -> Trajectory:
    """A trajectory in which nothing fails."""
    turns = (*CONVERSATION[:4], CONVERSATION[-1])
    return Trajectory("ledger", (), "1280", turns, turns[0].content, turns[1].content, steps_of(turns))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], str]:
    """Writes a picture of (columns, rows) image tokens and returns its path."""
    folder = tmp_path_factory.mktemp("pictures")

    def write(columns: int, rows: int) -> str:
        pixels = np.random.default_rng(columns * 100 + rows).integers(0, 256, (28 * rows, 28 * columns, 3), np.uint8)
        path = folder / f"{columns}x{rows}.png"
        Image.fromarray(pixels).save(path)
        return str(path)

    return write


@pytest.fixture(scope="session")
def with_images() -> Callable[[RotRecord, Sequence[ImageReference]], RotRecord]:
    """Gives a record images, whose placeholders (if any) its task then says."""

    def add(record: RotRecord, images: Sequence[ImageReference]) -> RotRecord:
        task = record.conversation[1].content + "".join(f" {image.placeholder}," for image in images)
        turns = (record.conversation[0], Turn("user", task), *record.conversation[2:])
        return dataclasses.replace(record, images=tuple(images), conversation=turns)

    return add


@pytest.fixture(scope="session")
def decode() -> Callable[[ChatRenderer, np.ndarray], str]:
    """The exact text of tokens, markers included."""

    def text_of(renderer: ChatRenderer, tokens: np.ndarray) -> str:
        return renderer.tokenizer.decode([int(token) for token in tokens], clean_up_tokenization_spaces=False)

    return text_of


@pytest.fixture(scope="session")
def rendering() -> Callable[..., str]:
    """What a template itself writes for a conversation without images whose assistant turns are stripped."""

    def render(renderer: ChatRenderer, turns: Sequence[Turn], generation_prompt: bool = False) -> str:
        messages = [
            {"role": turn.role, "content": turn.content.strip() if turn.role == "assistant" else turn.content}
            for turn in turns
        ]
        return renderer.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)

    return render
