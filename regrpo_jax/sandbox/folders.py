"""The folders an episode writes to: put files in, read them out, empty them, know that nothing is left.

Everything here runs in the warm process, on names and files that an episode may have made up: links are never
followed, special files are never waited for, depth and number are bounded. Contents go to and from the host by
descriptor, so that nothing of an episode stays in the memory that the next one is a copy of.
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


def _folder_of(root: str, parts: list[str], *, make: bool) -> int:
    """A descriptor of the folder that the last of `parts` lies in; no link is followed on the way."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
    except BaseException:
        os.close(folder)
        raise
    return folder


def new_file(root: str, name: str) -> int:
    """A descriptor to write a new file below `root` with, and the folders it needs; what had its name is replaced.

    FolderError for a name or a place that cannot be written.
    """
    try:
        parts = checked_parts(name)
        folder = _folder_of(root, parts, make=True)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=folder)
            return os.open(parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
        finally:
            os.close(folder)
    except (OSError, UnicodeEncodeError) as error:
        raise FolderError(f"cannot write {name[:100]!r}: {error}") from error


def write_file(root: str, name: str, data: bytes) -> None:
    """Write a file below `root`, with the folders it needs; an existing link is replaced, not followed."""
    target = new_file(root, name)
    try:
        with os.fdopen(target, "wb") as file:
            file.write(data)
            file.flush()
            os.utime(target, (PLAIN_TIME, PLAIN_TIME))
    except OSError as error:
        raise FolderError(f"cannot write {name[:100]!r}: {error}") from error


def open_file(root: str, name: str) -> int:
    """A descriptor to read a regular file below `root` with. FolderError when there is none of that name."""
    try:
        parts = checked_parts(name)
        folder = _folder_of(root, parts, make=False)
        try:
            source = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
    except (OSError, UnicodeEncodeError) as error:
        raise FolderError(f"cannot read {name[:100]!r}: {error}") from error
    if not stat.S_ISREG(os.fstat(source).st_mode):
        os.close(source)
        raise FolderError(f"{name[:100]!r} is not a regular file")
    return source


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


def digests(root: str, most_files: int) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of the regular files below `root`; names that are too long or no text are left out."""
    buffer = bytearray(2**16)
    found = 0
    for name, _ in regular_files(root, most_files):
        if found >= most_files:
            return
        try:
            name.encode("utf-8")
            source = open_file(root, name)
        except (FolderError, UnicodeEncodeError):
            continue
        found += 1
        digest = hashlib.sha256()
        with os.fdopen(source, "rb", buffering=0) as file:
            while read := file.readinto(buffer):
                digest.update(memoryview(buffer)[:read])
        yield name, digest.hexdigest()
    buffer[:] = bytes(len(buffer))  # the next episode is a copy of this process


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
