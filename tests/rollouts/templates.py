"""Small tokenizers with the chat templates of three families, and of three whose policies see."""

from __future__ import annotations

import copy
import functools

from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, IMAGE_TOKEN, train_tokenizer
from regrpo_jax.models.config import VisionConfig

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
# Newer ones of the family say the system turn before the last user turn, so that earlier turns change.
MOVING_SYSTEM = (
    "<s>{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
    "{% if loop.last and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }} {% endif %}"
    "{{ message['content'] }} [/INST]{% elif message['role'] == 'assistant' %}{{ message['content'] }}</s>{% endif %}"
    "{% endfor %}"
)
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
# As SmolVLM's: the role is text, and nothing but the image token marks an image.
SMOLVLM = (
    "<s>{% for message in messages %}<|role|>{{ message['role'] | capitalize }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image_pad|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}<|role|>Assistant\n{% endif %}"
)
TEMPLATES = {"chatml": CHAT_TEMPLATE, "llama": LLAMA, "mistral": MISTRAL}
MARKERS = [
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<s>", "</s>", "[INST]", "[/INST]"),
    *("<|role|>", "<end_of_utterance>"),
]
SEEING = {"chatml": CHAT_TEMPLATE, "qwen2_vl": QWEN2_VL, "smolvlm": SMOLVLM}
VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
SETTINGS = ImageSettings(min_pixels=28 * 28, max_pixels=12 * 28 * 28, temporal_patch_size=1)
TEXTS = (
    'Thought: open it.\n\nCode:\n```py\nread("a.txt")\n```',
    'Reflection:\n- ErrorType: ArgInvalid\n- Evidence: "a.txt" is "b.txt"\n- FixPlan: read("b.txt").\n',
    '[OUTPUT OF STEP 0] -> Observation:\nError at `read("a.txt")`: NotFound. "a.txt" is "b.txt".',
    "Call one tool at each step. Task: What is the total?",
    "Not executed yet: the action is uncertain. Reflect, then act.",
)


@functools.cache
def _trained() -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(TEXTS, vocab_size=380)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKERS})
    return tokenizer


@functools.cache
def renderer(name: str) -> ChatRenderer:
    """A renderer of the family."""
    tokenizer = copy.deepcopy(_trained())
    tokenizer.chat_template = MOVING_SYSTEM if name == "moving_system" else TEMPLATES[name]
    return ChatRenderer(tokenizer)


@functools.cache
def seeing_reader(name: str) -> ConversationReader:
    """A reader of a family whose template has places for images; a picture may be a single token."""
    tokenizer = copy.deepcopy(_trained())
    tokenizer.chat_template = SEEING[name]
    return ConversationReader(ChatRenderer(tokenizer, True, IMAGE_TOKEN), VISION, SETTINGS)
