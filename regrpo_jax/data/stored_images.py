"""Image files kept under the hash of their bytes: each once, however many episodes saw it."""

import hashlib
import os
import tempfile
from pathlib import Path

from regrpo_jax.errors import UserError


def store_image(path: Path, folder: Path) -> str:
    """Keeps a copy of a file and returns its name there, "<SHA-256><suffix>"; a kill never leaves half of one.

    Raises:
      UserError: the file cannot be read, or the copy cannot be written.
    """
    try:
        data = path.read_bytes()
        name = hashlib.sha256(data).hexdigest() + path.suffix.lower()
        if not (folder / name).exists():
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".unfinished-")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.replace(temporary, folder / name)
    except OSError as error:
        raise UserError(f"{path}: cannot be kept in {folder} ({error.strerror})") from error
    return name


def stored_image(name: str, folder: Path) -> Path:
    """The file that `store_image` named.

    Raises:
      UserError: it is missing, or no longer what was stored.
    """
    path = folder / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it, or use another folder") from error
    if not name.startswith(found):
        raise UserError(f"{path}: is not the image that was stored under this name; restore it")
    return path
