"""tools/environment on machines that lack something: root installs it where there is apt, others are told how."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("bash", "cat", "cmp", "dirname", "grep", "head")
APT = """
echo "apt-get $*" >> "$CALLS"
[ "$1" != install ] || echo "Unpacking what was asked for ..."
[ "$1" != install ] || [ -z "$BROKEN" ] || { echo "E: Unable to locate package bubblewrap" >&2; exit 100; }
"""


class Machine:
    """A folder with tools/environment and a ready .venv, and the only programs that are found."""

    def __init__(self, folder: Path) -> None:
        self.project, self.programs, self.calls = folder / "a project", folder / "bin", folder / "calls"
        (self.project / "tools").mkdir(parents=True)
        self.programs.mkdir()
        for name in ("tools/environment", "setup.cfg"):
            shutil.copy(ROOT / name, self.project / name)
        for name in NEEDED:
            (self.programs / name).symlink_to(shutil.which(name) or name)
        self.program("python3", "exit 0")
        self.program("id", "echo 0")
        self.program("apt-get", APT)
        self.environment_made()

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!{self.programs / 'bash'}\n{script}\n")
        path.chmod(0o755)

    def environment_made(self) -> None:
        python = self.project / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!{self.programs / 'bash'}\nexit 0\n")
        python.chmod(0o755)
        shutil.copy(self.project / "setup.cfg", self.project / ".venv" / ".installed-tools")

    def start(self, *options: str, broken: bool = False) -> subprocess.CompletedProcess[str]:
        sourced = 'source "$0/tools/environment" tools "$@"'
        return subprocess.run(
            [str(self.programs / "bash"), "-c", sourced, str(self.project), *options],
            capture_output=True, text=True, timeout=600,
            env={"PATH": str(self.programs), "CALLS": str(self.calls), "BROKEN": "yes" * broken},
        )  # fmt: skip

    @property
    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_where_all_is_there_nothing_is_installed_and_nothing_said(machine: Machine) -> None:
    machine.program("bwrap", "exit 0")
    done = machine.start()
    assert (done.returncode, done.stdout, done.stderr, machine.asked) == (0, "", "", [])


def test_root_installs_what_is_missing_quietly(machine: Machine) -> None:
    done = machine.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "installing bubblewrap ...\n", "")
    assert machine.asked == ["apt-get update", "apt-get install --yes --no-install-recommends bubblewrap"]


def test_one_command_installs_all_that_a_new_environment_needs(machine: Machine) -> None:
    machine.program("python3", '[ "$1 $2" != "-c import ensurepip, venv" ]')
    shutil.rmtree(machine.project / ".venv")
    machine.start()
    assert machine.asked[1] == "apt-get install --yes --no-install-recommends bubblewrap python3-venv"
    (machine.programs / "python3").unlink()
    machine.start()
    assert machine.asked[3] == "apt-get install --yes --no-install-recommends bubblewrap python3 python3-venv"


@pytest.mark.parametrize(
    ("lack", "told"),
    [
        ("root", "bubblewrap must be installed first: sudo apt-get install bubblewrap"),
        ("apt", "install bubblewrap with this system's package manager, then start again"),
        ("package", "apt-get install bubblewrap failed: E: Unable to locate package bubblewrap"),
    ],
)
def test_what_cannot_be_installed_is_told_in_one_sentence(lack: str, told: str, machine: Machine) -> None:
    if lack == "root":
        machine.program("id", "echo 1000")
    if lack == "apt":
        (machine.programs / "apt-get").unlink()
    done = machine.start(broken=lack == "package")
    assert (done.returncode, done.stderr) == (2, f"error: {told}\n")
    assert lack == "package" or (done.stdout, machine.asked) == ("", [])


def test_who_goes_without_isolation_is_not_asked_for_it(machine: Machine) -> None:
    machine.program("id", "echo 1000")
    done = machine.start("run", "--config.environment.allow_unisolated=True")
    assert (done.returncode, done.stdout, done.stderr, machine.asked) == (0, "", "", [])


@pytest.mark.parametrize("tool", ["tools/quickstart", "tools/test", ".ci/run"])
def test_the_tools_take_it_from_there(tool: str) -> None:
    text = (ROOT / tool).read_text()
    assert "environment" in text and "apt-get" not in text
