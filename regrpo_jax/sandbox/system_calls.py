"""A seccomp filter for bubblewrap: system calls that no tool needs and that reach around the sandbox.

Namespaces, uids and resource limits already hold without it. The filter takes away the kernel's larger doors
(new user namespaces, ptrace, bpf, io_uring, keyrings), what outlives an episode (System V memory, message
queues), memory that no limit counts (memfd), what all of the machine shares (asynchronous I/O contexts), and all
socket families but unix: some a network namespace does not contain (vsock), others have buffers that no limit counts
(internet). A socket's buffer may not be made larger than usual; the number of sockets is watched. Refused calls
fail with EPERM, `clone3` with ENOSYS so that libc uses `clone`, whose flags can be read.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

_DENIED_X86 = (
    (101, 154, 310, 311, 312, 438, 165, 166, 155, 161, 308, 272)  # ptrace .. unshare
    + (428, 429, 430, 431, 432, 433, 442)  # the new mount calls
    + (321, 298, 323, 425, 426, 427, 206)  # bpf, perf_event_open, userfaultfd, io_uring, io_setup
    + (250, 248, 249, 29, 64, 68, 240, 319, 447)  # keyrings, System V objects, message queues, memfd
    + (167, 168, 169, 246, 320, 175, 313, 176, 163, 103, 179, 443, 303, 304, 212, 171, 170, 172, 173, 300)
    + (256, 279, 164, 227, 159, 305, 180, 153, 440)
)
_DENIED_ARM = (
    (117, 270, 271, 272, 438, 40, 39, 41, 51, 268, 97)
    + (428, 429, 430, 431, 432, 433, 442)
    + (280, 241, 282, 425, 426, 427, 0)
    + (219, 217, 218, 194, 190, 186, 180, 279, 447)
    + (224, 225, 142, 104, 294, 105, 273, 106, 89, 116, 60, 443, 264, 265, 18, 162, 161, 262)
    + (238, 239, 170, 112, 171, 266, 42, 58, 440)
)


@dataclass(frozen=True)
class Architecture:
    """Numbers of the calls whose arguments decide, and of those refused outright."""

    audit: int
    clone: int
    clone3: int
    prlimit: int
    sockets: tuple[int, int]
    setsockopt: int
    denied: tuple[int, ...]


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 56, 435, 302, (41, 53), 54, _DENIED_X86),
    "aarch64": Architecture(0xC00000B7, 220, 435, 261, (198, 199), 208, _DENIED_ARM),
}
_NEW_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEW*
_FAMILIES = (1,)  # AF_UNIX
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 32  # offsets in struct seccomp_data
_BUFFER_SIZES = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF and the forms that go beyond the limit


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _refuse(error: int = errno.EPERM) -> bytes:
    return _instruction(_RETURN, _ERRNO | error)


def _when_call(number: int, body: list[bytes]) -> list[bytes]:
    """Run `body`, which returns, when the call is `number` (loaded before)."""
    return [_instruction(_EQUAL, number, 0, len(body)), *body]


def build_filter(machine: str | None = None) -> bytes | None:
    """The filter as an array of `struct sock_filter`, or None for an architecture whose numbers are not known."""
    known = ARCHITECTURES.get(machine or platform.machine())
    if known is None:
        return None
    allow = _instruction(_RETURN, _ALLOW)
    argument = _instruction(_LOAD, _FIRST_ARGUMENT)
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, known.audit, 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
    ]
    if known.audit == 0xC000003E:  # x32 calls share the architecture and have numbers of their own
        program += [_instruction(_AT_LEAST, 0x40000000, 0, 1), _refuse(errno.ENOSYS)]
    program += _when_call(known.clone3, [_refuse(errno.ENOSYS)])
    program += _when_call(known.clone, [argument, _instruction(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _refuse(), allow])
    program += _when_call(known.prlimit, [argument, _instruction(_EQUAL, 0, 1, 0), _refuse(), allow])
    families = [argument]
    for position, family in enumerate(_FAMILIES):
        families.append(_instruction(_EQUAL, family, len(_FAMILIES) - position, 0))
    for number in known.sockets:
        program += _when_call(number, [*families, _refuse(), allow])
    options = [_instruction(_LOAD, _THIRD_ARGUMENT)]
    for position, option in enumerate(_BUFFER_SIZES):
        options.append(_instruction(_EQUAL, option, len(_BUFFER_SIZES) - position, 0))
    program += _when_call(known.setsockopt, [*options, allow, _refuse()])
    for number in known.denied:
        program += _when_call(number, [_refuse()])
    return b"".join([*program, allow])
