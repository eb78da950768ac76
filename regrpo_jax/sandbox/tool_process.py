"""The process of one episode that holds its tools: trusted, and out of the reach of the action's code.

It gets from the host, on a channel of its own, what an action must not know (fault settings, files that only tools
read, the task's seed), runs the calls that the action's process asks for, and tells the host of each call and its
status. What it reads from the action is checked as anything from a stranger is.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import random
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.capture import Output, text_of
from regrpo_jax.sandbox.folders import FolderError, write_file
from regrpo_jax.sandbox.limits import call_bounds, limit_cpu, only_keep, set_limits
from regrpo_jax.sandbox.plain import TooLarge, whole
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed, Header, ProtocolError
from regrpo_jax.sandbox.served import ServedObjects, pack
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.tool_calls import FINAL_ANSWER, MOST_RUNS, asked, described, is_nothing, is_procedure, shortened
from regrpo_jax.sandbox.values import Reader, Wrong
from regrpo_jax.toolbox import behind, solutions
from regrpo_jax.toolbox.failures import ToolError, ToolFailure
from regrpo_jax.toolbox.returned_pictures import names_for_pictures, pictures_for_names

_ANSWER_BYTES = 2**18
_ASKED_BYTES = 2**18  # of the arguments of a call of the host, and again of those given by name
_MOST_WORDS = 2**15
_SIMPLE = frozenset((type(None), bool, int, float, str))
_BITS = 4096
Tool = Callable[..., Any]
Wrap = Callable[[dict[str, Tool], Any, int], Mapping[str, Tool]]


def named(reference: str) -> Callable[..., Any]:
    """The thing called "package.module:name"."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class RemoteTool:
    """Asks the host to run a tool that needs the network; arguments and result are plain data."""

    def __init__(self, name: str, ask: Callable[[Header], Header]) -> None:
        self.name, self.ask = name, ask

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        try:
            asked_for = {"arguments": whole(arguments, _ASKED_BYTES), "keywords": whole(keywords, _ASKED_BYTES)}
        except TooLarge as error:
            raise ToolError(f"{self.name}: the arguments are too large: {error}") from None
        answer = self.ask({"remote": self.name, **asked_for})
        if answer.get("failed") is not None:
            raise ToolFailure(Status(answer["status"]), answer["failed"])
        return answer.get("value")


class ToolProcess:
    """Serves the calls of one episode.

    zygote: the channel that says when it is over; host: the one to the host; action: the one to the action's process.
    """

    def __init__(self, zygote: Channel, host: Channel, action: Channel, settings: SandboxSettings) -> None:
        self.zygote, self.host, self.action, self.settings = zygote, host, action, settings
        self.tools: dict[str, Tool] = {}
        self.procedures: frozenset[str] = frozenset()  # tools that have done their work where they return None
        self.objects = ServedObjects()
        self.calls = self.told = 0
        self.recorded: Callable[[], bool | None] = lambda: None  # of the last call, see `ToolRun`
        self.request = 0  # the number that the action gave to what it waits for

    def open(self, loaded: Mapping[str, Any]) -> bool:
        """Set up what the host sends: files, what lies behind the tools, the wrapped tools. False when it failed."""
        header, blob = self.host.receive()
        try:
            position, parts = 0, []
            for _, size in (*header["files"], *header["behind"]):
                parts.append(blob[position : position + size])
                position += size
            for (name, _), content in zip(header["files"], parts, strict=False):
                write_file(".", name, content)
            names = [name for name, _ in header["behind"]]
            behind.install(dict(zip(names, parts[len(header["files"]) :], strict=True)))
            random.seed(header["seed"])
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(header["seed"] % 2**32)
            tools = self._local(loaded)
            if behind.RECORDED_FILE in names:
                # Here and not above: who has no recordings needs none of what it imports.
                from regrpo_jax.toolbox.recorded import installed_recordings

                if (recordings := installed_recordings()) is not None:
                    tools, self.recorded = recordings.over(tools, loaded), recordings.taken
            self.procedures = frozenset(name for name, tool in loaded.items() if is_procedure(tool))
            if header["wrap"]:
                wrap: Wrap = named(header["wrap"])
                tools = dict(wrap(tools, header["wrap_settings"], header["seed"]))
            self.tools = {FINAL_ANSWER: lambda answer=None: answer, **tools}
        except FolderError as error:
            self.host.send({"failed": str(error)[:4000], "files": True})
            return False
        except Exception as error:
            self.host.send({"failed": f"{type(error).__name__}: {text_of(error)}"[:4000]})
            return False
        self.action.send({"tools": sorted(self.tools)})
        self.host.send({"opened": True})
        return True

    def _local(self, loaded: Mapping[str, Any]) -> dict[str, Tool]:
        """The tools as they are called here: remote ones ask the host, some of them after a look at what is here."""
        local = dict(loaded)
        for name, tool in loaded.items():
            if getattr(tool, "remote", False):
                host = RemoteTool(name, self._ask_host)
                local[name] = tool.asking(host) if hasattr(tool, "asking") else host
        return local

    def serve(self) -> None:
        """Until the episode is over, or the host is gone, or kills us."""
        poll = select.poll()
        for channel in (self.zygote, self.host, self.action):
            poll.register(channel, select.POLLIN)
        while True:
            if self.zygote.receive_now() is not None:
                return
            while (message := self.host.receive_now()) is not None:
                self._begin(message[0])
            try:
                if (request := self.action.receive_now()) is not None:
                    self._answer(*request)
                    continue
            except (ProtocolError, Wrong, Closed) as error:
                self.host.send({"broken": "closed" if isinstance(error, Closed) else "protocol"})
                break  # the host decides what this means for the episode
            poll.poll()
        self.zygote.receive()

    def _begin(self, header: Header) -> None:
        """A new action begins."""
        self.told = 0
        limit_cpu(self.settings.cpu_seconds)

    def _ask_host(self, request: Header) -> Header:
        self.host.send(request)
        while True:
            header, _ = self.host.receive()
            if "answer" in header:
                return header["answer"]
            self._begin(header)

    def solve(self, code: str, finish: str) -> Header:
        """Let the action's process run code that the policy wrote: here it would be among what it must not see."""
        self.action.send({"solve": code, "finish": finish})
        header, _ = self.action.receive()
        found = header.get("solved")
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise ProtocolError("no answer to what was asked")
        return found

    def _answer(self, header: Header, blob: bytes) -> None:
        self.request = header.get("request", 0)
        reader = Reader(blob, self._served)
        arguments, keywords = header.get("arguments", []), header.get("keywords", {})
        if not isinstance(arguments, list) or not isinstance(keywords, dict):
            raise ProtocolError("arguments of another shape")
        if "operate" in header:
            return self._operate(header, reader, arguments, keywords)
        name = header.get("call")
        if not isinstance(name, str) or name not in self.tools:
            raise ProtocolError("a call of what is no tool")
        if isinstance(unsupported := header.get("unsupported"), str):
            return self._call(name, _refusing(name, unsupported[:200]), (), {})
        positional = tuple(reader.read(value) for value in arguments)
        return self._call(
            name, self.tools[name], positional, {key: reader.read(value) for key, value in keywords.items()}
        )

    def _served(self, handle: int) -> Any:
        try:
            return self.objects.get(handle)
        except IndexError:
            raise Wrong("a handle that was never given") from None

    def _call(self, name: str, tool: Tool, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self.calls += 1
        self.told += 1
        in_words = self.told <= MOST_RUNS
        self.host.send({"call": self.calls, "name": name, "asked": asked(arguments, keywords) if in_words else ""})
        ended: Header = {"ended": self.calls, "failed": False}
        reply: Header = {"number": self.calls}
        packed, printed = b"", Output(self.settings.text_characters)
        try:
            result = _with_output(printed, tool, *pictures_for_names(tool, arguments, keywords))
            result = result if name == FINAL_ANSWER else names_for_pictures(result, name)
            answer = [_whole_answer(result)] if name == FINAL_ANSWER else []
            reply, packed = self._packed(reply, result)
            fine = name == FINAL_ANSWER or not is_nothing(result) or (result is None and name in self.procedures)
            status = Status.OK if fine else Status.EMPTY
            words = shortened(result, lambda value: printed.collected.text() + text_of(value, str)) if in_words else ""
            ended |= {"answer": answer} if answer else {}
        except (Closed, ProtocolError):
            raise
        except BaseException as error:  # SystemExit as well: it is the tool's failure, not our end
            status = error.status if isinstance(error, ToolFailure) else Status.TOOL_ERROR
            message = described(name, error)
            words, ended["failed"] = shortened(message, str), True
            reply, packed = self._failed(reply, error, status, message)
        ended |= {"status": str(status), "result": words if in_words else "", "recorded": self.recorded()}
        self.host.send(ended)
        self._reply(reply, packed, printed)

    def _operate(self, header: Header, reader: Reader, arguments: list[Any], keywords: Header) -> None:
        """An operation of an object that stays here; it is no call of a tool."""
        reply: Header = {}
        packed, printed = b"", Output(self.settings.text_characters)
        try:
            operation = self.objects.operation(int(header["operate"]), str(header.get("name")))
        except (LookupError, ValueError, TypeError) as error:
            raise ProtocolError("an operation that is not served") from error
        positional = tuple(reader.read(value) for value in arguments)
        named_ones = {key: reader.read(value) for key, value in keywords.items()}
        try:
            result = _with_output(printed, operation, positional, named_ones)
            reply, packed = self._packed(reply, result)
        except Exception as error:
            reply, packed = self._failed(reply, error, Status.TOOL_ERROR, f"{type(error).__name__}: {text_of(error)}")
        self._reply(reply, packed, printed)

    def _packed(self, reply: Header, result: Any) -> tuple[Header, bytes]:
        kind = type(result)
        long = (kind is int and result.bit_length() > _BITS) or (kind is str and len(result) > _MOST_WORDS)
        if kind in _SIMPLE and not long:
            return reply | {"value": result}, b""
        return reply, pack(result, self.objects, self.settings.memory_bytes // 4)

    def _failed(self, reply: Header, error: BaseException, status: Status, words: str) -> tuple[Header, bytes]:
        found = pack(error, self.objects, 2**20) if len(text_of(error)) <= _MOST_WORDS else b""
        return reply | {"failed": words[:_MOST_WORDS], "status": str(status)}, found

    def _reply(self, reply: Header, packed: bytes, printed: Output) -> None:
        if printed.collected.bytes:
            reply["printed"] = printed.collected.text()
        self.action.send(reply | {"reply": self.request}, packed)


def _whole_answer(value: Any) -> Any:
    try:
        return whole(value, _ANSWER_BYTES)
    except TooLarge as error:
        raise ToolError(f"{FINAL_ANSWER}: the answer is too large: {error}") from None


def _refusing(name: str, kind: str) -> Tool:
    def refuse() -> None:
        raise ToolError(
            f"{name}: a value of type {kind} cannot be given to a tool. Give plain data (numbers, texts, lists, "
            "dicts), an image, an array or a table."
        )

    return refuse


def _with_output(output: Output, function: Tool, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    kept = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = output
    try:
        return function(*arguments, **keywords)
    finally:
        sys.stdout, sys.stderr = kept


def run_tool_process(
    line: int,
    host: int,
    action: int,
    settings: SandboxSettings,
    loaded: Mapping[str, Any],
    address_space: int,
    processes: int,
) -> None:
    """What the forked child does; never returns. line: to the process that it is a fork of."""
    code = 1
    try:
        os.setsid()
        line, host, action = only_keep((line, host, action))
        kernel.hide_memory()
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        sys.stdin = io.StringIO()
        zygote = Channel(socket.socket(fileno=line), Bounds(), descriptors=True)
        while True:
            ends = socket.socket(fileno=host), socket.socket(fileno=action)
            process = ToolProcess(
                zygote, Channel(ends[0], Bounds(blob=2**31)), Channel(ends[1], call_bounds(settings)), settings
            )
            solutions.run_with(process.solve)
            if process.open(loaded):
                set_limits(settings, address_space, processes)
                process.serve()
            else:
                zygote.receive()  # the host was told, and ends the episode
            del process
            behind.install({})
            for end in ends:
                end.close()
            gc.collect()  # closes files that a tool has left open
            zygote.send({"idle": True})
            descriptors: list[int] = []
            zygote.receive(fds=descriptors)
            host, action = descriptors
    except Closed:
        code = 0
    finally:
        os._exit(code)
