"""Where files lie that a data set names under another root: "old=new", told by whoever unpacked it.

MM-Traj's pictures were unpacked elsewhere than where its trajectories were made, and its code may say another root than
its `image` fields do (`.cache/..` here, `data/..` there; both are rewritten by hand in public scripts that convert it).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from regrpo_jax.errors import UserError
from regrpo_jax.records.picture_forms import is_data_url

_INSIDE_A_PATH = r"(?<![\w./\\-])"  # nothing of a longer path stands before


@dataclass(frozen=True)
class PathRoots:
    """pairs: (old, new) without closing slashes; the first whose old root a path begins with counts."""

    pairs: tuple[tuple[str, str], ...] = ()

    def path(self, path: str) -> str:
        """The path under its new root; as it is when it is under none of the old ones, or is a data URL."""
        if is_data_url(path):
            return path
        for old, new in self.pairs:
            if path == old or path.startswith(f"{old}/"):
                return _joined(new, path[len(old) :].lstrip("/"))
        return path

    def text(self, text: str) -> str:
        """A text, code or prose, with every path in it under its new root."""
        if not self.pairs:
            return text
        news = dict(self.pairs)
        olds = "|".join(re.escape(old) for old, _ in self.pairs)
        # One pass over the text: what has been replaced is not replaced again.
        return re.sub(rf"{_INSIDE_A_PATH}({olds})/+", lambda match: _joined(news[match[1]], ""), text)


def path_roots(told: Sequence[str]) -> PathRoots:
    """The roots that `config.data.path_roots` says. UserError for one that is not written "old=new"."""
    pairs = []
    for words in told:
        old, separator, new = words.partition("=")
        old, new = old.strip(), new.strip()
        if not separator or not old.rstrip("/"):
            raise UserError(
                f'config.data.path_roots has {words!r}; write "old=new", where paths that begin with old/ are looked '
                "for below new (beside the file of records, or an absolute folder)"
            )
        pairs.append((old.rstrip("/"), new.rstrip("/") if new != "/" else new))
    return PathRoots(tuple(pairs))


def suggested_root(written: str, there: str) -> str:
    """ "old=new" that makes the one path the other: what is before the longest end that they share; "" for none."""
    first, second = written.split("/"), there.split("/")
    shared = 0
    while shared < min(len(first), len(second)) and first[-1 - shared] == second[-1 - shared]:
        shared += 1
    if not shared or first == second:
        return ""
    old, new = "/".join(first[: len(first) - shared]), "/".join(second[: len(second) - shared])
    return f"{old}={new}" if old else ""


def _joined(root: str, rest: str) -> str:
    return f"{root.rstrip('/')}/{rest}" if root else rest
