"""`tools/launch` prints to the letter what it would run, and refuses in a sentence what cannot be."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ("--", "--config=configs/qwen2_vl_7b.py", "--workdir=/mnt/share/run")


def launch(*arguments: str, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/launch", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | options, capture_output=True, text=True, timeout=120
    )  # fmt: skip


def printed(*arguments: str) -> str:
    done = launch(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_tpu_slice_runs_the_same_command_on_every_host() -> None:
    said = printed("tpu", "--name=slice", "--zone=us-central1-a", "--project=mine", "--dry-run", *PROGRAM)
    *first, remote = shlex.split(said)
    hosts = "gcloud compute tpus tpu-vm ssh slice --zone=us-central1-a --project=mine --worker=all"
    assert shlex.join(first) == hosts
    assert remote == (
        "--command=cd regrpo_jax && echo $$ > /tmp/regrpo_jax.pid && exec .venv/bin/python -m regrpo_jax.main "
        "--config=configs/qwen2_vl_7b.py --workdir=/mnt/share/run --config.hosts.kind=detect"
    )


def test_a_tpu_slice_is_told_to_end_by_the_ids_that_were_kept() -> None:
    said = printed("tpu", "--name=slice", "--zone=us-central1-a", "--dry-run", "--stop", *PROGRAM)
    assert shlex.split(said)[-1] == "--command=kill -TERM $(cat /tmp/regrpo_jax.pid) || true"


def test_an_override_with_spaces_and_quotes_reaches_the_program_as_it_was_typed() -> None:
    odd = "--config.log_to=('wandb:my project',)"
    said = printed("tpu", "--name=slice", "--zone=z-1", "--dry-run", *PROGRAM, odd)
    remote = shlex.split(said)[-1].removeprefix("--command=")
    assert shlex.split(remote)[-2] == odd


def test_slurm_gets_one_process_a_node_with_all_its_gpus() -> None:
    given = ("--nodes=4", "--gpus=2", "--time=2-00:00:00", "--partition=a100", "--folder=/home/me/regrpo_jax")
    assert printed("slurm", *given, "--dry-run", *PROGRAM) == (
        "sbatch <<'END'\n"
        "#!/bin/bash\n"
        "#SBATCH --job-name=regrpo_jax\n"
        "#SBATCH --nodes=4\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --gpus-per-node=2\n"
        "#SBATCH --cpus-per-task=16\n"
        "#SBATCH --time=2-00:00:00\n"
        "#SBATCH --partition=a100\n"
        "#SBATCH --signal=TERM@120\n"
        "#SBATCH --output=regrpo_jax-%j.txt\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --requeue\n"
        "set -euo pipefail\n"
        "cd /home/me/regrpo_jax\n"
        "export JAX_LOCAL_DEVICE_IDS=0,1\n"
        "exec srun --kill-on-bad-exit=0 .venv/bin/python -m regrpo_jax.main --config=configs/qwen2_vl_7b.py "
        "--workdir=/mnt/share/run --config.hosts.kind=detect\n"
        "END\n"
    )


def test_slurm_s_script_is_one_that_bash_reads() -> None:
    said = printed("slurm", "--nodes=2", "--gpus=8", "--dry-run", *PROGRAM)
    script = said.split("\n", 1)[1].rsplit("END", 1)[0]
    assert subprocess.run(["bash", "-n"], input=script.encode(), timeout=60).returncode == 0


def test_a_box_is_one_process_or_several_that_share_its_gpus() -> None:
    alone = printed("box", "--dry-run", *PROGRAM)
    assert "JAX_" not in alone and "hosts" not in alone and alone.count("\n") == 1
    lines = printed("box", "--processes=2", "--gpus=8", "--port=9000", "--dry-run", *PROGRAM).splitlines()
    assert [shlex.split(line)[:4] for line in lines] == [
        [
            "JAX_COORDINATOR_ADDRESS=127.0.0.1:9000", "JAX_NUM_PROCESSES=2", f"JAX_PROCESS_ID={index}",
            f"JAX_LOCAL_DEVICE_IDS={devices}",
        ]
        for index, devices in enumerate(("0,1,2,3", "4,5,6,7"))
    ]  # fmt: skip
    assert all(line.endswith("--config.hosts.kind=plain") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moon", *PROGRAM), "'moon' is no place; choose one of tpu, slurm, box"),
        (("tpu", "--zone=z", *PROGRAM), "--name is missing"),
        (("tpu", "--name=a;rm", "--zone=z", *PROGRAM), "--name=a;rm: cannot be right"),
        (("tpu", "--name=a", "--zone=z"), "the program's arguments are missing"),
        (("tpu", "--name=a", "--zone=z", "--", "--config=c.py"), "--workdir is missing behind --"),
        (("tpu", "--name=a", "--zone=z", "--", "--config=c.py", "--workdir=runs/x"), "a folder of its own"),
        (("tpu", "--name=a", "--zone=z", "--", "--config=c.py", "--workdir=gs://b/x"), "mount it as a folder"),
        (("tpu", "--name=a", "--zone=z", *PROGRAM, "--config.hosts.index=1"), "is set here; leave it out"),
        (("slurm", "--nodes=two", "--gpus=8", *PROGRAM), "--nodes=two: give a whole number from 1 on"),
        (("slurm", "--nodes=2", "--gpus=8", "--time=a day", *PROGRAM), "--time=a day: cannot be right"),
        (("box", "--processes=3", "--gpus=8", *PROGRAM), "--gpus=8 are not shared out evenly by --processes=3"),
        (("box", "--speed=9", *PROGRAM), "'--speed=9' is not understood"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments: tuple[str, ...], words: str) -> None:
    done = launch(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and words in done.stderr and done.stderr.count("\n") == 1


def test_a_program_that_is_not_installed_is_named(tmp_path: Path) -> None:
    done = launch("tpu", "--name=a", "--zone=z", *PROGRAM, PATH=str(tmp_path))
    assert done.returncode == 2 and "gcloud is not installed here" in done.stderr
