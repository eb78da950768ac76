"""A few digits that tell one tree of arrays from another, made where the arrays are.

Nothing is copied to the host and no array is gathered: every word is mixed with its place, and the results are added
up as whole numbers, whose sum is the same in any order. So a digest does not depend on how arrays are split over
devices. It finds what broke by chance; it is no protection against somebody who wants two trees to look alike.
"""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}  # bytes of a float -> what its bits are read as
_SALTS = (0x9E3779B9, 0x7F4A7C15)  # two sums of 32 bits each: one alone would meet by chance too often


def digest_of(tree: Any) -> str:
    """Sixteen hexadecimal digits of the names, types, shapes and bits of all arrays of a tree."""
    named = [(jax.tree_util.keystr(path), array) for path, array in jax.tree_util.tree_leaves_with_path(tree)]
    salts = [zlib.crc32(f"{name} {array.dtype} {array.shape}".encode()) for name, array in named]
    sums = _sums([array for _, array in named], jnp.asarray(salts, jnp.uint32))
    return "".join(f"{word:08x}" for word in np.asarray(sums).tolist())


@jax.jit
def _sums(arrays: list[Array], salts: Array) -> Array:
    total = jnp.zeros(len(_SALTS), jnp.uint32)
    for array, salt in zip(arrays, salts, strict=True):
        total += _of_array(array, salt) + _mixed(salt)  # an empty array counts too
    return total


def _of_array(array: Array, salt: Array) -> Array:
    """One sum for each of `_SALTS`.  # [salt]"""
    words = _bits(array)
    places = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):  # not one count over a flattened array, which the devices would have to gather
        stride = math.prod(words.shape[axis + 1 :]) % 2**32
        places += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * jnp.uint32(stride)
    mixed = _mixed(words ^ _mixed(places + salt))
    return jnp.stack([jnp.sum(_mixed(mixed + jnp.uint32(own)), dtype=jnp.uint32) for own in _SALTS])


def _bits(array: Array) -> Array:
    if array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(array, _WORDS[array.dtype.itemsize]).astype(jnp.uint32)


def _mixed(words: Array) -> Array:
    """Every bit of a word changes about half of the bits that come out (the end of MurmurHash3)."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)
