"""A Cloud TPU VM slice: the same command on every host, which `gcloud` starts over ssh; the hosts find each other."""

import shlex
import subprocess
from collections.abc import Sequence

from options import Options, needed, read_options, shared_workdir

ID_FILE = "/tmp/regrpo_jax.pid"
NAMES = ("name", "zone", "project", "folder")


def launch(arguments: Sequence[str]) -> int:
    """Starts, or with --stop tells to end: every host finishes its update, and they write one checkpoint."""
    options = read_options(arguments, NAMES, ("dry-run", "stop"))
    command = ssh(options, stop(options) if "stop" in options.flags else start(options))
    if "dry-run" in options.flags:
        print(shlex.join(command))
        return 0
    needed("gcloud", "see https://cloud.google.com/sdk/docs/install")
    return subprocess.run(command).returncode


def ssh(options: Options, remote: str) -> list[str]:
    """`gcloud`'s command that runs a shell command on all hosts of the slice."""
    name, zone = options.text("name"), options.text("zone")
    project = [f"--project={options.text('project')}"] if "project" in options.values else []
    return [
        "gcloud", "compute", "tpus", "tpu-vm", "ssh", name, f"--zone={zone}", *project, "--worker=all",
        f"--command={remote}",
    ]  # fmt: skip


def start(options: Options) -> str:
    """What each host runs. Its process id is kept, because ssh does not pass signals on."""
    program = [".venv/bin/python", "-m", "regrpo_jax.main", *options.program, "--config.hosts.kind=detect"]
    shared_workdir(options.program)
    return f"cd {_folder(options)} && echo $$ > {ID_FILE} && exec {shlex.join(program)}"


def stop(options: Options) -> str:
    """What tells the program of each host to end; one that has ended is no mistake."""
    return f"kill -TERM $(cat {ID_FILE}) || true"


def _folder(options: Options) -> str:
    return options.text("folder", "regrpo_jax")
