"""What a run read, in a few digests: a file that is another one under the same path must not pass for the one before.

The record of a run names its files; these digests say what was in them. A start that resumes compares them: with other
records, pictures or weights its checkpoints would be of one run and its next update of another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.models.gguf_files import is_gguf
from regrpo_jax.records.loading import shard_paths
from regrpo_jax.records.picture_forms import is_data_url
from regrpo_jax.records.types import RotRecord, Trajectory

if TYPE_CHECKING:
    from regrpo_jax.data.corpus import Corpus

# Of a model's folder, what decides its weights and how it reads; a README beside them does not.
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
_UNREAD = frozenset({"generation_config.json", "trainer_state.json", "all_results.json", "requirements.txt"})


def run_fingerprints(config: ConfigDict, corpus: Corpus) -> dict[str, str]:
    """Field -> digest of the files it names, of those that this start reads; "data.rot (pictures)" of theirs.

    Raises:
      UserError: a file cannot be read.
    """
    held_out = corpus.eval_rot if corpus.held_out else []
    found = {}
    for field, records in (("rot", corpus.rot), ("clean", corpus.clean), ("eval_rot", held_out)):
        if records:
            found[f"data.{field}"] = file_digest(shard_paths(config.data[field]))
            found |= _pictures(f"data.{field} (pictures)", records)
    for field in ("model", "lora"):
        if config[field].path:
            found[f"{field}.path"] = file_digest(_model_files(Path(config[field].path)))
    return found


def source_fingerprints(config: ConfigDict) -> dict[str, str]:
    """The same of what the data stage makes its corpus of, where that is a file."""
    source = Path(config.data.source or ".")
    return {"data.source": file_digest([source])} if source.is_file() else {}


def file_digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, in order.

    Raises:
      UserError: one cannot be read.
    """
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        return hashlib.sha256(b"".join(pool.map(_digest, paths))).hexdigest()


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _pictures(name: str, records: Sequence[RotRecord | Trajectory]) -> dict[str, str]:
    paths = dict.fromkeys(image.path for record in records for image in record.images)
    files = [Path(path) for path in paths if not is_data_url(path)]
    return {name: file_digest(files)} if files else {}


def _model_files(folder: Path) -> list[Path]:
    if is_gguf(folder):  # one file, and the tokenizer that may stand beside it
        return [folder, *sorted(folder.parent.glob("*token*.json")), *sorted(folder.parent.glob("*.jinja"))]
    found = {path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(path for path in found if path.name not in _UNREAD)
