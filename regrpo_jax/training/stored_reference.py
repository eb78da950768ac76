"""Reference log-probs on disk: a start that resumes reads what the first one computed.

workdir/reference/<stage>.npz: one array per group under the digest of what the group holds, all of one policy. A file
of another policy, or of other settings that its numbers depend on, is not used; a group that it lacks is computed and
joins it. It is only a cache: one that is damaged is made again, and one that cannot be written is done without.
"""

import dataclasses
import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from regrpo_jax.data.groups import Group

_MADE_BY = "made_by"  # the member of the file that says what its numbers are of


def group_digest(group: Group) -> str:
    """SHA-256 of everything that a group holds."""
    found = hashlib.sha256()
    _tell(found, group)
    return found.hexdigest()


def _tell(found: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        found.update(f"{value.dtype} {value.shape} ".encode())
        found.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _tell(found, getattr(value, field.name))
    elif isinstance(value, tuple | list):
        found.update(f"{len(value)} of ".encode())
        for part in value:
            _tell(found, part)
    else:
        found.update(f"{value!r} ".encode())


@dataclasses.dataclass(frozen=True)
class StoredReference:
    """The file of a stage.

    Attributes:
      path: where it lies, or will.
      made_by: digest of the policy, and the settings that its numbers depend on.
    """

    path: Path
    made_by: str

    def read(self) -> dict[str, np.ndarray]:
        """Digest of a group -> its log-probs [branch, token]; empty if there is no file, or it is of something else."""
        if not self.path.exists():
            return {}
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                found = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
            print(f"{self.path}: cannot be read ({error}); its log-probs are computed again", flush=True)
            return {}
        made_by = str(found.pop(_MADE_BY, ""))
        if made_by != self.made_by:
            print(f"{self.path}: is of another policy or other settings; its log-probs are computed again", flush=True)
            return {}
        return found

    def write(self, logprobs: Mapping[str, np.ndarray]) -> None:
        """Replaces the file, as a whole or not at all."""
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                members: dict[str, Any] = {_MADE_BY: np.array(self.made_by), **logprobs}
                np.savez(stream, **members)
            os.replace(partial, self.path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            print(
                f"warning: {self.path}: cannot be written ({error.strerror}); another start computes them again",
                file=sys.stderr, flush=True,
            )  # fmt: skip
