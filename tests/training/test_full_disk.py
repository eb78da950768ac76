"""A disk that is full, for real: a small file system, or a limit on the size of files. Nothing is lost by it."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

needs_bubblewrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="bubblewrap makes the small file system")


def on_small_disk(disk: Path, size: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that finds `size` bytes at `disk`, which are gone after it."""
    disk.mkdir()
    wrapped = ["bwrap", "--dev-bind", "/", "/", "--size", str(size), "--tmpfs", str(disk), *command]
    return subprocess.run(wrapped, cwd=ROOT, capture_output=True, text=True, timeout=900)


def with_small_files(size: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that can write no file of more than `size` bytes."""
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)),
    )


# Checkpoints of a state of 1 MB on a disk of 1.5 MB, until somebody frees some space.
CHECKPOINTS = """
import json, sys
from pathlib import Path
import jax.numpy as jnp, numpy as np, optax
from regrpo_jax.errors import UserError
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.state import TrainState, initial_state

disk = Path(sys.argv[1])
(disk / "ballast").write_bytes(bytes(1_500_000))
kernel = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
made = initial_state({"params": {"kernel": kernel}}, optax.sgd(0.1))
checkpoints = StageCheckpoints(disk / "sft", keep=2)
report = []
for step in (1, 2, 3, 4):
    if step == 4:
        (disk / "ballast").unlink()
    checkpoints.save(TrainState(jnp.int32(step), made.trainable, made.optimizer_state), {"after": {}})
    report.append([checkpoints.finish(), bool(checkpoints.trouble), sorted(path.name for path in disk.glob("sft/*"))])
    if step == 2:
        try:
            checkpoints.check_complete(2)
        except UserError as error:
            print(error, file=sys.stderr)
checkpoints.check_complete(4)
state, _ = checkpoints.restore(made)
report.append(np.array_equal(state.trainable["params"]["kernel"], kernel))
checkpoints.close()
print(json.dumps(report))
"""


@needs_bubblewrap
def test_a_checkpoint_that_finds_no_space_is_tried_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    done = on_small_disk(disk, 3_000_000, sys.executable, "-c", CHECKPOINTS, str(disk))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        [1, False, ["1"]],
        [1, True, ["1"]],
        [1, True, ["1"]],
        [4, False, ["1", "4"]],
        True,
    ]
    trouble = f"{disk / 'sft'}: the checkpoint at step %d cannot be written (No space left on device)"
    last = "the last good one is at step 1"
    assert done.stderr.splitlines() == [
        f"warning: {trouble % 2}; {last}, and the next is tried when it is due",
        f"{trouble % 2}, and with it the stage's last updates are not kept ({last}); free some space there and start "
        "again with the same --workdir",
        f"warning: {trouble % 3}; {last}, and the next is tried when it is due",
    ]


# A run on a disk with room for one checkpoint, then, when some space is free, the same again.
RUN = """
import subprocess, sys
from pathlib import Path
disk, *command = sys.argv[1:]
ballast = Path(disk) / "ballast"
ballast.write_bytes(bytes(int(command.pop(0))))
first = subprocess.run(command, capture_output=True, text=True)
ballast.unlink()
second = subprocess.run(command, capture_output=True, text=True)
print(repr((first.returncode, first.stdout, first.stderr, second.returncode, second.stdout, second.stderr)))
"""


@needs_bubblewrap
def test_a_run_trains_on_and_says_at_its_end_what_is_missing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    program = [sys.executable, "-m", "regrpo_jax.main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"]
    program += [f"--workdir={disk / 'run'}", '--config.stages=("sft",)', "--config.log_to=()"]
    done = on_small_disk(disk, 4_000_000, sys.executable, "-c", RUN, str(disk), "3100000", *program)
    assert done.returncode == 0, done.stderr
    first, _, told, second, said, rest = eval(done.stdout)
    folder = re.escape(str(disk / "run" / "checkpoints" / "sft"))
    assert first == 2, told
    assert re.search(rf"^warning: {folder}: the checkpoint at step 8 cannot be written \(No space left", told, re.M), (
        told
    )
    assert re.search(
        rf"^error: {folder}: the checkpoint at step 12 cannot be written \(No space left on device\), and with it the "
        r"stage's last updates are not kept \(the last good one is at step 4\); free some space there and start again",
        told,
        re.M,
    )
    assert not re.search(r'File ".*regrpo_jax', told), told  # a thread of orbax may tell of its own end
    assert second == 0, rest
    assert "sft: resuming at step 4 of 12" in said


METRICS = """
import resource, sys
from pathlib import Path
from regrpo_jax.training.metrics import MetricsWriter
writer = MetricsWriter(Path(sys.argv[1]))
for step in range(1, 9):
    if step == 7:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    writer.write("sft", step, {"loss": step / 4})
writer.close()
"""


def test_lines_of_metrics_wait_for_space(tmp_path: Path) -> None:
    done = with_small_files(100, sys.executable, "-c", METRICS, str(tmp_path))
    assert done.returncode == 0, done.stderr
    path = tmp_path / "metrics.jsonl"
    assert done.stderr == f"warning: {path}: cannot be written (File too large); its lines wait until it can\n"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"stage": "sft", "step": step, "loss": step / 4} for step in range(1, 9)
    ]


REFERENCE = """
import sys
from pathlib import Path
import numpy as np
from regrpo_jax.training.stored_reference import StoredReference
stored = StoredReference(Path(sys.argv[1]) / "reference" / "rl.npz", "this policy")
stored.write({"a": np.zeros(8, np.float32)})
stored.write({"a": np.zeros(1000, np.float32)})
print({name: array.shape for name, array in stored.read().items()})
"""


def test_references_that_find_no_space_are_done_without(tmp_path: Path) -> None:
    done = with_small_files(2000, sys.executable, "-c", REFERENCE, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'a': (8,)}\n"
    path = tmp_path / "reference" / "rl.npz"
    assert done.stderr == f"warning: {path}: cannot be written (File too large); another start computes them again\n"
    assert [path.name for path in path.parent.iterdir()] == ["rl.npz"]


def test_a_run_that_cannot_begin_says_so_in_a_sentence(tmp_path: Path) -> None:
    command = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", f"--workdir={tmp_path}", '--config.stages=("sft",)']
    done = with_small_files(500, sys.executable, "-m", "regrpo_jax.main", *command)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --workdir: File too large; free some space there and start again with the same --workdir to go on\n"
    )
