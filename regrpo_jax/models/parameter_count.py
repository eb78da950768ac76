"""How many parameters a policy has, from its sizes alone; needs no jax, so that it can be known at the start."""

from regrpo_jax.models.config import PolicyConfig, VisionConfig


def parameter_count(config: PolicyConfig) -> int:
    """Of the whole policy, without an adapter."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    attention = 2 * hidden * (queries + keys)  # q and o, k and v
    attention += queries + 2 * keys if config.attention_bias else 0
    attention += 2 * config.head_dim if config.query_key_norm else 0
    layer = attention + 3 * hidden * inner + 2 * hidden  # two norms
    embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    mixing = config.token_mixing_width * hidden * hidden
    tower = _tower(config.vision, hidden) if config.vision is not None else 0
    return embeddings + mixing + config.num_layers * layer + hidden + tower


def _tower(config: VisionConfig, hidden: int) -> int:
    width, inner = config.embed_dim, config.intermediate_size
    norms = 1 if config.gated else 2  # a LayerNorm has a bias
    mlp = _linear(inner, width) + (2 if config.gated else 1) * _linear(width, inner)
    block = _linear(width, 3 * width) + _linear(width, width) + mlp + 2 * norms * width
    merged = width * config.spatial_merge_size**2
    merger = _linear(merged, merged) + _linear(merged, hidden)
    mergers = norms * width + merger
    mergers += len(config.deepstack_blocks) * (norms * merged + merger)  # their norms are as wide
    positions = (config.learned_grid**2 + config.interpolated_grid**2) * width
    patches = (config.patch_dim + config.patch_bias) * width
    return patches + positions + config.depth * block + mergers


def _linear(inputs: int, outputs: int) -> int:
    """With a bias."""
    return (inputs + 1) * outputs
