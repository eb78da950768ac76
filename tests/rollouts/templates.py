"""Small tokenizers with the chat templates of three families."""

from __future__ import annotations

import copy
import functools

from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, train_tokenizer

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
TEMPLATES = {"chatml": CHAT_TEMPLATE, "llama": LLAMA, "mistral": MISTRAL}
MARKERS = [
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<s>", "</s>", "[INST]", "[/INST]"),
]
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
