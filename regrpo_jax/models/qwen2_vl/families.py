"""What sets the families apart, one line each; the sizes of a model come from its `config.json`."""

import dataclasses
from typing import Literal

Tower = Literal["none", "qwen2", "qwen2_5", "qwen3"]
RotaryAxes = Literal["time", "sections", "interleaved"]


@dataclasses.dataclass(frozen=True)
class Family:
    """What a `model_type` says of an architecture.

    Attributes:
      architecture: transformers' class of the whole model.
      configuration: transformers' class that reads its `config.json`.
      attention_bias: see `PolicyConfig`.
      query_key_norm: see `PolicyConfig`.
      tower: whose vision tower it has.
      rotary: which positions its rotary frequencies turn with: time alone, in sections (M-RoPE), or dealt out in turn.
      rope_types: kinds of rotary embedding that its `config.json` may name.
      nested: whether the decoder's values always stand in `text_config`, and the checkpoint's names begin with
        `model.language_model.` and `model.visual.`; older families have both forms.
    """

    architecture: str
    configuration: str
    attention_bias: bool
    query_key_norm: bool
    tower: Tower = "none"
    rotary: RotaryAxes = "time"
    rope_types: tuple[str, ...] = ("default",)
    nested: bool = False


_QWEN2_VL = Family(
    "Qwen2VLForConditionalGeneration", "Qwen2VLConfig", True, False, "qwen2", "sections", ("default", "mrope")
)
FAMILIES = {
    "llama": Family("LlamaForCausalLM", "LlamaConfig", False, False, rope_types=("default", "llama3")),
    "qwen2": Family("Qwen2ForCausalLM", "Qwen2Config", True, False),
    "qwen3": Family("Qwen3ForCausalLM", "Qwen3Config", False, True),
    "qwen2_vl": _QWEN2_VL,
    "qwen2_5_vl": dataclasses.replace(
        _QWEN2_VL,
        architecture="Qwen2_5_VLForConditionalGeneration",
        configuration="Qwen2_5_VLConfig",
        tower="qwen2_5",
    ),
    "qwen3_vl": Family(
        "Qwen3VLForConditionalGeneration", "Qwen3VLConfig", False, True, "qwen3", "interleaved", nested=True
    ),
}
