"""How the next token is chosen from its logits: temperature, top-k, top-p, bans, and where a turn ends."""

import jax
import jax.numpy as jnp
from flax import struct

from regrpo_jax.models.inputs import Array

_Source = tuple[Array, Array]  # keys and positions


@struct.dataclass
class Sampling:
    """How a turn is drawn. The numbers may change without compiling anew, the tuples and `max_tokens` may not.

    Attributes:
      temperature: float scalar; 0 takes the likeliest token.
      top_k: int scalar; only the k likeliest tokens are drawn; 0 for all.
      top_p: float scalar; only the likeliest tokens that hold this share of the probability, after top-k, are drawn;
        1 for all.
      max_tokens: most tokens of a turn, and the width of its buffers.
      stops: token sequences; a branch that has drawn one of them, itself included, is done.
      banned_ids: tokens that cannot be drawn (image markers, rows of the vocabulary without a token).
    """

    temperature: Array
    top_k: Array
    top_p: Array
    max_tokens: int = struct.field(pytree_node=False)
    stops: tuple[tuple[int, ...], ...] = struct.field(pytree_node=False)
    banned_ids: tuple[int, ...] = struct.field(pytree_node=False)

    @property
    def longest_stop(self) -> int:
        return max((len(stop) for stop in self.stops), default=1)


def sampling_controls(
    *,
    max_tokens: int,
    stops: tuple[tuple[int, ...], ...],
    banned_ids: tuple[int, ...] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Sampling:
    """The controls as arrays of fixed type.

    Raises:
      ValueError: a number is out of its range, or a stop sequence is empty.
    """
    if max_tokens < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"max_tokens={max_tokens} must be at least 1, temperature={temperature} and top_k={top_k} at least 0, "
            f"top_p={top_p} above 0 and at most 1"
        )
    if not all(stops):
        raise ValueError("a stop sequence is empty; every branch would have drawn it")
    return Sampling(
        jnp.asarray(temperature, jnp.float32),
        jnp.asarray(top_k, jnp.int32),
        jnp.asarray(top_p, jnp.float32),
        max_tokens,
        stops,
        banned_ids,
    )


def choose_tokens(keys: Array, positions: Array, logits: Array, sampling: Sampling) -> Array:
    """One token per branch; what is switched off is not computed.

    Args:
      keys: random keys.  # [group, branch]
      positions: int32, what tells the draws of a key apart.  # [group, branch]
      logits: # [group, branch, vocab]
    Returns:
      int32.  # [group, branch]
    """
    filtered = (sampling.top_k > 0) | (sampling.top_p < 1)
    way = jnp.where(sampling.temperature > 0, 1 + filtered, 0)
    if sampling.banned_ids:
        bans = jnp.zeros(logits.shape[-1], logits.dtype).at[jnp.array(sampling.banned_ids)].set(-jnp.inf)
        logits = logits + bans
    return jax.lax.switch(way, (_likeliest, _drawn, _drawn_from_likeliest), (keys, positions), logits, sampling)


def _likeliest(_: _Source, logits: Array, sampling: Sampling) -> Array:
    # The first index of the highest logit; as two plain reductions, which a CPU does several at a time.
    highest = jnp.max(logits, axis=-1, keepdims=True)
    places = jnp.where(logits == highest, jnp.arange(logits.shape[-1], dtype=jnp.int32), logits.shape[-1] - 1)
    return jnp.min(places, axis=-1)


def _drawn(source: _Source, logits: Array, sampling: Sampling) -> Array:
    def draw(key: Array, position: Array, scaled: Array) -> Array:
        return jax.random.categorical(jax.random.fold_in(key, position), scaled)

    return jax.vmap(jax.vmap(draw))(*source, logits / sampling.temperature).astype(jnp.int32)


def _drawn_from_likeliest(source: _Source, logits: Array, sampling: Sampling) -> Array:
    kept = likeliest(jax.nn.softmax(logits / sampling.temperature), sampling.top_k, sampling.top_p)
    return _drawn(source, jnp.where(kept, logits, -jnp.inf), sampling)


def likeliest(probabilities: Array, top_k: Array, top_p: Array) -> Array:
    """Which tokens top-k and then top-p leave; tokens as likely as the last one that is left are left too.

    Args:
      probabilities: # [.., vocab]
      top_k: int scalar, 0 for all.
      top_p: float scalar, 1 for all.
    Returns:
      bool.  # [.., vocab]
    """
    probabilities = probabilities.astype(jnp.float32)
    ones = jnp.ones_like(probabilities)
    kept = _with_less_above(probabilities, ones, jnp.where(top_k > 0, top_k, jnp.inf))
    probabilities = jnp.where(kept, probabilities, 0)
    total = jnp.sum(probabilities, axis=-1)  # [..]
    return kept & _with_less_above(probabilities, probabilities, jnp.where(top_p < 1, top_p * total, jnp.inf))


def _with_less_above(probabilities: Array, weights: Array, limit: Array) -> Array:
    """The tokens for which the weights of all likelier tokens add up to less than `limit`.

    They are those from some probability on, which is found without sorting: floats that are not negative are ordered
    as their bits are, so 31 halvings find the lowest float above which the weights stay below the limit.
    """
    bits = jax.lax.bitcast_convert_type(probabilities, jnp.int32)  # [.., vocab]

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # [..]
        middle = low + (high - low) // 2
        above = jnp.sum(jnp.where(bits > middle[..., None], weights, 0), axis=-1)
        enough = above < limit
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    low = jnp.zeros(probabilities.shape[:-1], jnp.int32)
    _, lowest = jax.lax.fori_loop(0, 31, halve, (low, jnp.max(bits, axis=-1)))
    return bits >= lowest[..., None]
