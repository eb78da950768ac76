"""What a `config.json` may say that would load quietly and compute something else, or that says two things at once."""

from typing import Any

Theirs = Any  # a configuration of transformers
ROPE = ("rope_scaling", "rope_parameters")  # the names of transformers 4 and 5; it takes the older one
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")  # what it has to state
# Weights in another form or file than the ones we read.
ELSEWHERE = ("quantization_config", "compression_config", "transformers_weights")


def reject_rope(text: dict[str, Any], kinds: tuple[str, ...]) -> None:
    """Other rotary embeddings than ours, one without its numbers, and two that differ.

    Raises:
      ValueError: what is not supported, or the values that contradict each other.
      KeyError: the number that is missing.
    """
    stated = [text[name] for name in ROPE if text.get(name)]
    for rope in stated:
        for name in ("rope_type", "type"):
            require("rope_type", rope.get(name, "default"), kinds)
            for key in LLAMA3 if rope.get(name) == "llama3" else ():
                if rope.get(key) is None:
                    raise KeyError(key)
    if len(stated) == 2:
        for key in sorted((set(stated[0]) | set(stated[1])) - {"type", "rope_type"}):
            one, other = stated[0].get(key), stated[1].get(key)
            if one != other:
                raise ValueError(f"{ROPE[0]} and {ROPE[1]} contradict each other: {key} is {one!r} and {other!r}")


def reject_unsupported(description: dict[str, Any], text: dict[str, Any], theirs: Theirs) -> None:
    """Variants of the architecture that would load without a complaint and compute something else.

    Raises:
      ValueError: what is not supported, and what is.
    """
    for name, value, supported in (
        ("partial_rotary_factor", theirs.rope_parameters.get("partial_rotary_factor") or 1, (1,)),
        ("hidden_act", theirs.hidden_act, ("silu",)),
        ("use_sliding_window", getattr(theirs, "use_sliding_window", None) or False, (False,)),
        *((key, getattr(theirs, key, False), (False,)) for key in ("attention_bias", "mlp_bias")),
        *(("layer_types", kind, ("full_attention",)) for kind in getattr(theirs, "layer_types", None) or ()),
        *((key, {**text, **description}.get(key), (None,)) for key in ELSEWHERE),
    ):
        require(name, value, supported)


def reject_unread(description: dict[str, Any], nested: dict[str, Any], theirs: Theirs, sizes: tuple[str, ...]) -> None:
    """What stands beside `text_config` is not read: where that says it too, it is a leftover, else it is meant.

    Raises:
      ValueError: a key of the decoder is only outside, with another value than the decoder gets.
    """
    known = {*sizes, "num_key_value_heads", "hidden_act", "rms_norm_eps", "use_sliding_window"}
    used = {key: getattr(theirs, key, None) for key in known} | {"rope_theta": theirs.rope_parameters["rope_theta"]}
    says_rope = [nested[name] for name in ROPE if nested.get(name)]
    inside = {*nested, *(key for rope in says_rope for key in rope)}
    for key, value in used.items():
        if key in description and key not in inside and description[key] not in (None, value):
            raise ValueError(
                f"{key} is {description[key]!r} beside text_config, which has none and gets {value!r}; move it inside"
            )
    for key in ROPE:
        if description.get(key) and not says_rope:
            raise ValueError(f"{key} stands beside text_config, where it is not read; move it inside")


def require(name: str, value: Any, supported: tuple[Any, ...]) -> None:
    """Raises ValueError for a value that is none of the supported ones."""
    if value not in supported:
        raise ValueError(f"{name} {value!r} is not supported, only {' or '.join(map(repr, supported))} is")
