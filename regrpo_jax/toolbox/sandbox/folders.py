"""The folders an episode writes to: put files in, read them out, empty them, know that nothing is left.

Everything here runs in the zygote, on names and files that an episode may have made up: links are never
followed, special files are never waited for, depth and number are bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Container, Iterator

_DEEPEST = 32
PLAIN_TIME = 946_684_800  # 2000-01-01: input files carry no trace of when the episode was opened


class FolderError(Exception):
    """A name that cannot be used, or a folder that cannot be emptied."""


def checked_parts(name: str) -> list[str]:
    """The parts of a relative file name; FolderError for an absolute one, "..", or what is no file name."""
    parts = name.split("/")
    if not name or len(name) > 1024 or "\0" in name or len(parts) > _DEEPEST:
        raise FolderError(f"{name[:100]!r} is no file name")
    if any(part in ("", ".", "..") or len(part.encode("utf-8", "replace")) > 255 for part in parts):
        raise FolderError(f"{name[:100]!r} is no file name inside the workspace")
    return parts


def write_file(root: str, name: str, data: bytes) -> None:
    """Write a file below `root`, with the folders it needs; an existing link is replaced, not followed."""
    parts = checked_parts(name)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        with contextlib.suppress(FileNotFoundError):
            os.unlink(parts[-1], dir_fd=folder)
        target = os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
        with os.fdopen(target, "wb") as file:
            file.write(data)
        os.utime(parts[-1], (PLAIN_TIME, PLAIN_TIME), dir_fd=folder, follow_symlinks=False)
    except (OSError, UnicodeEncodeError) as error:
        raise FolderError(f"cannot write {name[:100]!r}: {error}") from error
    finally:
        os.close(folder)


def read_file(root: str, name: str, most_bytes: int) -> bytes:
    """The bytes of a regular file below `root`. FolderError when there is none, or it is larger than `most_bytes`."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        parts = checked_parts(name)
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        source = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        with os.fdopen(source, "rb") as file:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                raise FolderError(f"{name[:100]!r} is not a regular file")
            data = file.read(most_bytes + 1)
    except (OSError, UnicodeEncodeError) as error:
        raise FolderError(f"cannot read {name[:100]!r}: {error}") from error
    finally:
        os.close(folder)
    if len(data) > most_bytes:
        raise FolderError(f"{name[:100]!r} has more than {most_bytes} bytes")
    return data


def regular_files(
    root: str, most: int, prefix: str = "", depth: int = _DEEPEST
) -> Iterator[tuple[str, os.stat_result]]:
    """Name and stat of the regular files below `root`, sorted in each folder, at most about `most` of them."""
    try:
        with os.scandir(root) as entries:
            found = sorted(entries, key=lambda entry: entry.name)[:most]
    except OSError:
        return
    for entry in found:
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and depth:
            yield from regular_files(entry.path, most, f"{prefix}{entry.name}/", depth - 1)
        elif stat.S_ISREG(status.st_mode):
            yield prefix + entry.name, status


def digests(root: str, most_files: int, most_bytes: int) -> dict[str, str]:
    """SHA-256 of the regular files below `root` by name, sorted; names that are no text are left out."""
    found: dict[str, str] = {}
    for name, _ in regular_files(root, most_files):
        if len(found) >= most_files:
            break
        try:
            name.encode("utf-8")
            found[name] = hashlib.sha256(read_file(root, name, most_bytes)).hexdigest()
        except (FolderError, UnicodeEncodeError):
            continue
    return dict(sorted(found.items()))


def empty_folder(root: str, depth: int = _DEEPEST, keep: Container[str] = ()) -> None:
    """Delete everything in `root` but the names in `keep`. FolderError for what cannot be deleted or lies too deep."""
    if depth < 0:
        raise FolderError("folders too deep to delete")
    try:
        with os.scandir(root) as entries:
            for entry in list(entries):
                if entry.name in keep:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)
                    empty_folder(entry.path, depth - 1)
                    os.rmdir(entry.path)
                else:
                    os.unlink(entry.path)
    except OSError as error:
        raise FolderError(f"cannot empty {root[:100]!r}: {error}") from error
