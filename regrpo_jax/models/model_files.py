"""The files of a model, whichever form it has: a Hugging Face directory, or one GGUF file."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from regrpo_jax.models import safetensors_files
from regrpo_jax.models.gguf_files import gguf_shapes, is_gguf, read_gguf


def model_files(path: Path) -> list[Path]:
    """The files that hold the tensors of the model at `path`.

    Raises:
      UserError: as `safetensors_files.model_files`.
    """
    return [path] if is_gguf(path) else safetensors_files.model_files(path)


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a file, from its header alone.

    Raises:
      UserError: the file is missing, broken, or holds numbers that are not read.
    """
    return gguf_shapes(file) if is_gguf(file) else safetensors_files.tensor_shapes(file)


def read_tensors(file: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The named tensors, one at a time.

    Raises:
      UserError: as `tensor_shapes`.
    """
    return read_gguf(file, names) if is_gguf(file) else safetensors_files.read_tensors(file, names)


def described_in(path: Path) -> Path:
    """Where the model at `path` says what it is, for `hf_config.read_config`."""
    return path if is_gguf(path) else path / "config.json"
