"""The matrix product that every layer is made of."""

import jax

Array = jax.Array


def matmul(inputs: Array, kernel: Array) -> Array:
    """inputs @ kernel over flattened leading axes: the CPU's gradient of the many-axis form is three times slower.

    Args:
      inputs: # [.., in_features]
      kernel: # [in_features, out_features]
    """
    flat = inputs.reshape(-1, inputs.shape[-1]) @ kernel.astype(inputs.dtype)
    return flat.reshape(*inputs.shape[:-1], kernel.shape[-1])
