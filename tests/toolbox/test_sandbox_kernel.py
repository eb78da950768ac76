"""What is read of processes whose main thread has ended while others run on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from regrpo_jax.sandbox import kernel

EXIT = {"x86_64": 60, "aarch64": 93}
CODE = """
import ctypes, sys, threading, time
held = b'x' * (64 * 2**20)
threading.Thread(target=time.sleep, args=(1000,)).start()
print('ready', flush=True)
ctypes.CDLL(None).syscall({exit}, 0)
"""


@pytest.fixture
def headless() -> Iterator[subprocess.Popen[bytes]]:
    code = CODE.format(exit=EXIT[platform.machine()])
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + 20
    while kernel._resident(f"/proc/{process.pid}/statm") and time.monotonic() < deadline:
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_its_memory_is_counted(headless: subprocess.Popen[bytes]) -> None:
    assert kernel._resident(f"/proc/{headless.pid}/statm") == 0, "the kernel shows none"
    assert kernel.resident_bytes(headless.pid) > 64 * 2**20


def test_it_is_not_over_until_it_is_killed(headless: subprocess.Popen[bytes]) -> None:
    assert not kernel.is_over(headless.pid) and kernel.alive([headless.pid]) == {headless.pid}
    kernel.kill_descendants(os.getpid(), keep=kernel.descendants(os.getpid()) - {headless.pid})
    deadline = time.monotonic() + 20
    while not kernel.is_over(headless.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kernel.is_over(headless.pid) and kernel.resident_bytes(headless.pid) == 0
