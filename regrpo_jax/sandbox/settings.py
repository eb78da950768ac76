"""The limits of the sandbox, in one frozen value that crosses into the worker."""

from __future__ import annotations

from dataclasses import dataclass

from regrpo_jax.errors import UserError


@dataclass(frozen=True)
class SandboxSettings:
    """Limits of one action and one episode; bytes and seconds.

    wall_seconds: of an action, on the host's clock; time spent waiting for a remote tool is not counted.
    cpu_seconds: of an action, for each process. memory_bytes: what an episode may take beyond the warm processes,
    for each process (address space) and for all together (resident). max_processes: processes and threads of the
    action. file_bytes: of one file. workspace_bytes, max_files: of everything an episode writes. output_bytes: of an
    action's text; more is cut in the middle. remote_seconds: of one call of a remote tool.
    workers: episodes at the same time. spares: more warm workers, to take the place of killed ones.
    readable: further files or folders of the host an episode may read. python_path: folders where the modules of user
    tools are searched; only the modules are readable. hidden: files and folders that make the tasks, or hold their
    answers; tools that would bring them along are refused. allow_unisolated: where workers cannot be isolated, run
    them without (never as root) instead of refusing; see docs/security.md, "The weaker mode".
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 20
    memory_bytes: int = 2**30
    max_processes: int = 32
    max_open_files: int = 256
    file_bytes: int = 64 * 2**20
    workspace_bytes: int = 256 * 2**20
    max_files: int = 4096
    output_bytes: int = 64 * 2**10
    remote_seconds: float = 60.0
    start_seconds: float = 120.0
    allow_unisolated: bool = False
    workers: int = 2
    spares: int = 1
    readable: tuple[str, ...] = ()
    python_path: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """UserError for a limit that is not positive."""
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0 and name != "spares":
                raise UserError(f"sandbox.{name} is {value}; it must be above 0")
        if self.output_bytes < 1024:
            raise UserError(f"sandbox.output_bytes is {self.output_bytes}; an observation needs at least 1024")

    @property
    def text_characters(self) -> int:
        """How many characters of an action's text are kept: four bytes each, and room for the note."""
        return self.output_bytes // 4 - 64


@dataclass(frozen=True)
class Start:
    """What the host tells a worker first. toolset: the pickled settings of the tools, which only their loader needs."""

    settings: SandboxSettings
    loader: str
    toolset: bytes
