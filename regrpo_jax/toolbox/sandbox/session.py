"""One episode as the host sees it: run actions, read files, close.

What comes from the episode's process is checked field by field here; whatever does not fit ends that process.
"""

from __future__ import annotations

import queue
import secrets
import select
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.sandbox.host_worker import HostWorker
from regrpo_jax.toolbox.sandbox.plain import plain_or_text
from regrpo_jax.toolbox.sandbox.protocol import Channel, Closed, Header, Late, ProtocolError
from regrpo_jax.toolbox.sandbox.results import ActionResult, SandboxError, ToolRun
from regrpo_jax.toolbox.sandbox.tool_calls import MOST_RUNS, described

if TYPE_CHECKING:
    from regrpo_jax.toolbox.sandbox.pool import SandboxPool

RESTARTED = "The sandbox was restarted: variables and files made so far are gone, the input files are there again."
_MOST_CODE = 2**20
_MOST_REMOTE_CALLS = 64  # of one action
_ANSWER_BYTES = 2**19
_LOOK_SECONDS = 0.05  # between looks at whether the action is still wanted


class _Killed(Exception):
    """The episode's process is (to be) gone; carries the result of the action.

    suspect: it did more than to hang or die, so that its worker is thrown away.
    """

    def __init__(self, status: Status, text: str, *, suspect: bool = False) -> None:
        super().__init__(text)
        self.result = ActionResult(status, text, size=len(text.encode("utf-8", "replace")))
        self.suspect = suspect


class _BrokenOff(Exception):
    """Somebody wants the action no more."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ProtocolError(f"{type(value).__name__} where a text belongs")
    return value.encode("utf-8", "replace").decode("utf-8")


def _result(header: Header, blob: bytes) -> ActionResult:
    """An answer of the episode's process, checked. ProtocolError."""
    try:
        runs = tuple(
            ToolRun(_text(name), Status(status), _text(asked), _text(result))
            for name, status, asked, result in header["runs"][:MOST_RUNS]
        )
        answer = header["answer"]
        if not isinstance(answer, list) or len(answer) > 1 or type(header["size"]) is not int:
            raise ProtocolError("an answer of another shape")
        return ActionResult(
            status=Status(header["status"]),
            text=blob.decode("utf-8", "replace"),
            images=tuple(_text(name) for name in header["images"][:256]),
            tool_calls=runs,
            final_answer=answer[0] if answer else None,
            ended=bool(answer),
            size=header["size"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"an answer of another shape: {type(error).__name__}") from error


class SandboxSession:
    """An open episode; made by `SandboxPool.open`, used by one thread at a time."""

    def __init__(
        self, pool: SandboxPool, files: Mapping[str, bytes | Path], seed: int, wrap: str, wrap_settings: Any,
        behind: Mapping[str, bytes],
    ) -> None:  # fmt: skip
        self._pool, self._files, self._seed = pool, dict(files), seed
        self._wrap, self._wrap_settings, self._behind = wrap, wrap_settings, behind
        self._settings = pool.settings
        self._worker: HostWorker | None = None
        self._channel: Channel | None = None
        self._closed = self._broken_off = False
        self._open()

    def __enter__(self) -> SandboxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _inputs(self) -> dict[str, bytes]:
        found = {}
        for name, source in self._files.items():
            if isinstance(source, Path):
                try:
                    found[name] = source.read_bytes()
                except OSError as error:
                    raise UserError(f'the input file "{name}" cannot be read: {error}') from error
            else:
                found[name] = source
        size = sum(map(len, found.values()))
        if size > self._settings.workspace_bytes:
            raise UserError(
                f"the input files have {size:,} bytes, the workspace {self._settings.workspace_bytes:,}; "
                "raise sandbox.workspace_bytes"
            )
        return found

    def _open(self) -> None:
        inputs = self._inputs()
        worker = self._pool.take()
        try:
            channel = worker.open(inputs, self._seed, self._wrap, self._wrap_settings, self._behind)
            try:
                opened, _ = channel.receive(time.monotonic() + self._settings.start_seconds)
            except BaseException:
                channel.close()
                raise
        except OSError as error:
            self._pool.give_back(worker)
            raise UserError(f"the episode cannot be opened: {error}") from error
        except (Closed, Late, ProtocolError, SandboxError) as error:
            words = f"the episode's process does not start: {type(error).__name__} {error}"
            self._pool.discard(worker, words)
            raise SandboxError(words) from error
        except BaseException as error:
            self._pool.discard(worker, f"opening an episode broke off: {type(error).__name__}")
            raise
        if "failed" in opened:
            channel.close()
            self._pool.discard(worker, "the tools cannot be set up for its episode")
            raise UserError(f"the tools cannot be set up for the episode: {_text(opened['failed'])}")
        self._worker, self._channel = worker, channel

    def run(self, code: str) -> ActionResult:
        """Run one action. Never raises for what the action does; INFRA_ERROR when the sandbox itself failed."""
        if self._closed:
            raise UserError("this session is closed")
        started = time.monotonic()
        try:
            result = self._run(code)
        except _Killed as killed:
            result = killed.result
            self._drop(result.text, suspect=killed.suspect)
        except _BrokenOff:
            result = ActionResult(Status.INFRA_ERROR, "the action was broken off from outside")
            self._drop(result.text, suspect=False)
        except SandboxError as error:
            result = ActionResult(Status.INFRA_ERROR, f"the sandbox failed: {error}")
            self._drop(result.text)
        return ActionResult(**(vars(result) | {"elapsed": time.monotonic() - started}))

    def _run(self, code: str) -> ActionResult:
        data = code.encode("utf-8", "surrogatepass")
        if len(data) > _MOST_CODE:
            text = f"Error: the code has {len(data)} bytes; at most {_MOST_CODE} are run."
            return ActionResult(Status.INVALID_ACTION, text, size=len(text))
        if self._worker is None:
            self._open()
        assert self._worker is not None and self._channel is not None
        worker, channel, token = self._worker, self._channel, secrets.token_hex(8)
        deadline = time.monotonic() + self._settings.wall_seconds
        remote_calls = 0
        try:
            channel.send({"run": token}, data, deadline=deadline)
            while True:
                self._await(worker, channel, deadline)
                header, blob = channel.receive(deadline)
                if header.get("done") == token:
                    return _result(header, blob)
                if header.get("remote") != token or remote_calls >= _MOST_REMOTE_CALLS:
                    raise ProtocolError("a message nobody asked for")
                remote_calls += 1
                asked = time.monotonic()
                channel.send({"answer": token, **self._remote(header)}, deadline=asked + self._settings.wall_seconds)
                deadline += time.monotonic() - asked
        except Late:
            seconds = self._settings.wall_seconds
            raise _Killed(Status.TIMEOUT, f"Timeout: killed after {seconds:g} seconds. {RESTARTED}") from None
        except ProtocolError:
            words = f"killed: the action interfered with the sandbox's own messages. {RESTARTED}"
            raise _Killed(Status.TOOL_ERROR, words, suspect=True) from None
        except Closed:
            raise self._ended(worker) from None

    def _await(self, worker: HostWorker, channel: Channel, deadline: float) -> None:
        """Until the episode's process says something, or the zygote says that it ended."""
        if worker.ended is not None:
            raise Closed
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(worker.control, select.POLLIN)
        ready: set[int] = set()
        while not ready:
            if self._broken_off:
                raise _BrokenOff
            left = deadline - time.monotonic()
            ready = {fd for fd, _ in poll.poll(min(_LOOK_SECONDS, max(0.0, left)) * 1000)}
            if not ready and left <= 0:
                raise Late
        if channel.fileno() not in ready:
            worker.wait_ended(1.0)
            raise Closed

    def _ended(self, worker: HostWorker) -> Exception:
        """What the end of the episode's process means for the action that was running."""
        try:
            ended = worker.wait_ended(2.0)
        except Closed:
            return SandboxError("the warm process is gone")
        if ended is None:  # it closed its channel and lives on
            words = f"killed: the action closed the sandbox's own channel. {RESTARTED}"
            return _Killed(Status.TOOL_ERROR, words, suspect=True)
        number = ended.get("signal")
        if ended.get("limit"):
            return _Killed(Status.TOOL_ERROR, f"killed: exceeded {ended['limit']}. {RESTARTED}", suspect=True)
        if number == signal.SIGXCPU:
            seconds = self._settings.cpu_seconds
            return _Killed(Status.TIMEOUT, f"Timeout: killed after {seconds} CPU seconds. {RESTARTED}")
        if number:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            return _Killed(Status.TOOL_ERROR, f"killed: the action's process died of {name}. {RESTARTED}")
        return _Killed(Status.TOOL_ERROR, f"killed: the action ended its own process. {RESTARTED}")

    def _remote(self, header: Header) -> Header:
        """Run a remote tool here, with a deadline; its answer as a message's fields."""
        name, arguments, keywords = header.get("name"), header.get("arguments"), header.get("keywords")
        if not (isinstance(name, str) and isinstance(arguments, list) and isinstance(keywords, dict)):
            raise ProtocolError("a call of another shape")
        tool = self._pool.remote_tools().get(name)
        if tool is None:
            raise ProtocolError("a call of something that is no remote tool")
        done: queue.Queue[Header] = queue.Queue()
        threading.Thread(target=lambda: done.put(self._called(name, tool, arguments, keywords)), daemon=True).start()
        try:
            return done.get(timeout=self._settings.remote_seconds)
        except queue.Empty:
            words = f"{name} did not answer within {self._settings.remote_seconds:g} seconds"
            return {"failed": words, "status": str(Status.TIMEOUT)}

    def _called(self, name: str, tool: Any, arguments: list[Any], keywords: dict[str, Any]) -> Header:
        on_host: Callable[..., Any] | None = getattr(tool, "run_on_host", None)
        try:
            value = on_host(self, *arguments, **keywords) if on_host else tool(*arguments, **keywords)
            return {"value": plain_or_text(value, _ANSWER_BYTES)}
        except Exception as error:
            status = error.status if isinstance(error, ToolFailure) else Status.TOOL_ERROR
            return {"failed": described(name, error)[:8000], "status": str(status)}

    def break_off(self) -> None:
        """From any thread: the action that runs is not wanted any more; it becomes an infra error within moments."""
        self._broken_off = True

    def _asked(self, request: Header, blob: bytes = b"") -> tuple[Header, bytes]:
        if self._closed:
            raise UserError("this session is closed")
        if self._worker is None:
            self._open()
        assert self._worker is not None
        return self._worker.ask(request, blob)

    def read_file(self, name: str) -> bytes:
        """A file of the workspace. OSError when there is no regular file of that name; SandboxError."""
        return self._asked({"do": "read", "name": name})[1]

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file into the workspace, as remote tools do that make images. OSError, SandboxError."""
        if len(data) > self._settings.file_bytes:
            raise OSError(f"{name} has {len(data)} bytes; at most {self._settings.file_bytes} fit")
        self._asked({"do": "write", "name": name}, data)

    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the workspace, by name. SandboxError."""
        return dict(self._asked({"do": "files"})[0]["files"])

    def _drop(self, reason: str, *, suspect: bool = True) -> None:
        """Give up the worker; the next action gets another. A suspect one is killed."""
        if self._channel is not None:
            self._channel.close()
        if self._worker is not None and suspect:
            self._pool.discard(self._worker, reason)
        elif self._worker is not None:
            self._pool.clean_up(self._worker, reason)
        self._worker = self._channel = None

    def close(self) -> None:
        """End the episode: all its processes are killed, its files deleted. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._pool.give_back(self._worker)
        if self._channel is not None:  # not before, see `give_back`
            self._channel.close()
        self._worker = self._channel = None
        self._pool.finished(self)
