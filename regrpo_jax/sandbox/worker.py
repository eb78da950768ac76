"""How a worker begins: it gives up its rights, hears what it is to load, and serves until the host is gone.

Started by `isolation.py` as `python -m regrpo_jax.sandbox.worker <socket> <uid> <weak> <workspace>`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import sys
from typing import NoReturn

from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.first_process import FirstProcess
from regrpo_jax.sandbox.folders import FolderError, empty_folder
from regrpo_jax.sandbox.limits import lead_nowhere
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed
from regrpo_jax.sandbox.tools_line import ToolsLost


def main(arguments: list[str]) -> NoReturn:
    descriptor, uid, weak, workspace = int(arguments[0]), int(arguments[1]), arguments[2] == "weak", arguments[3]
    if weak:
        kernel.adopt_orphans()
        kernel.leave_network()
    if uid:
        kernel.drop_to(uid)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets no signal from inside that it has no handler for
    kernel.gain_nothing()
    kernel.hide_memory()
    if not weak:
        kernel.die_with_parent()  # again: the change of uid undid bubblewrap's
    control = Channel(socket.socket(fileno=descriptor), Bounds(blob=2**24), descriptors=True)
    os.set_inheritable(descriptor, False)
    with contextlib.suppress(Closed):  # the host is gone or is done with us
        _, blob = control.receive()
        try:
            process = FirstProcess(control, pickle.loads(blob), workspace, weak)
        except Exception as error:
            words = str(error) if isinstance(error, ToolsLost) else f"{type(error).__name__}: {error}"
            control.send({"failed": words[:4000]})
        else:
            control.send({"ready": True})
            lead_nowhere()
            with contextlib.suppress(ToolsLost):
                process.serve()
    if weak:  # nobody else would
        kernel.kill_descendants(os.getpid())
        with contextlib.suppress(FolderError, OSError):
            empty_folder(workspace)
            os.rmdir(workspace)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
