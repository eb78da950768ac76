"""What breaks on a disk: the checkpoint before it is used, or a person is told; nothing wrong is ever trained on."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.state import TrainState, abstract_state, initial_state
from tests.many_devices import run_on_many_devices

OPTIMIZER = optax.adamw(1e-3)
KERNEL = np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)


def state_at(step: int, width: int = 48) -> TrainState:
    made = initial_state({"params": {"kernel": KERNEL[:, :width] * step, "bias": jnp.ones(3)}}, OPTIMIZER)
    return TrainState(jnp.asarray(step, jnp.int32), made.trainable, made.optimizer_state)


def save(folder: Path, *steps: int) -> None:
    checkpoints = StageCheckpoints(folder, keep=2)
    for step in steps:
        checkpoints.save(state_at(step), {"after": {}, "at": step})
    checkpoints.close()


def restore(folder: Path, width: int = 48) -> int | None:
    """The step that is restored, whose numbers and position must be its own."""
    checkpoints = StageCheckpoints(folder, keep=2)
    try:
        found = checkpoints.restore(state_at(0, width))
    finally:
        checkpoints.close()
    if found is None:
        return None
    state, position = found
    step = int(state.step)
    assert position == {"after": {}, "at": step}
    for array, expected in zip(jax.tree.leaves(state), jax.tree.leaves(state_at(step)), strict=True):
        np.testing.assert_array_equal(array, expected)
    return step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "sft"
    save(folder, 4, 8)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "sft")
    return tmp_path / "sft"


def files(checkpoint: Path) -> Iterator[Path]:
    return (path for path in sorted(checkpoint.rglob("*")) if path.is_file())


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one bit": flip,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # reads that fail after the first
@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_file_breaks_what_is_restored_was_written(
    whole: Path, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    steps = []
    for number, path in enumerate(files(whole / "8")):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        DAMAGE[damage](folder / path.relative_to(whole))
        steps.append(restore(folder))
        said, warned = capfd.readouterr()
        assert not warned, warned
        if steps[-1] == 8:  # a file that orbax writes and does not need
            assert not said
            continue
        assert re.fullmatch(
            rf"{folder}: the checkpoint at step 8 cannot be read \(.+\); the one at step 4 is used, and the other lies "
            r"in unreadable-8, which may be removed\n",
            said,
        ), said
    assert set(steps) == {4, 8} and steps.count(4) >= 5


def test_an_empty_folder_gives_way_and_its_step_is_written_again(folder: Path) -> None:
    shutil.rmtree(folder / "8")
    (folder / "8").mkdir()
    assert restore(folder) == 4
    save(folder, 8)
    assert sorted(path.name for path in folder.iterdir()) == ["4", "8", "unreadable-8"]
    assert restore(folder) == 8


def test_where_none_can_be_read_a_person_is_told_and_nothing_is_touched(folder: Path) -> None:
    for step in ("4", "8"):
        flip(folder / step / "data" / "metadata")
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        restore(folder)
    assert re.fullmatch(
        rf"{folder}: no checkpoint there can be read \(step 8: .+; step 4: .+\); put one back from a copy, remove this "
        "folder to train the stage from its beginning, or use another --workdir",
        str(error.value),
    )
    assert sorted(folder.rglob("*")) == before


def test_another_configuration_is_no_damage(folder: Path) -> None:
    with pytest.raises(UserError, match="the checkpoint at step 8 does not fit this configuration"):
        restore(folder, width=47)
    assert (folder / "8").exists()


def test_there_may_be_none(tmp_path: Path) -> None:
    assert restore(tmp_path / "sft") is None


def test_what_a_killed_process_left_is_removed(folder: Path) -> None:
    (folder / "12.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    assert restore(folder) == 8
    assert sorted(path.name for path in folder.iterdir()) == ["4", "8"]


# Writes a state split over 2 x 4 devices and reads it onto 4 x 2, 8 x 1 and 1 x 1, from shapes alone.
SCRIPT = """
import json, runpy, sys
from pathlib import Path
import jax, numpy as np
from regrpo_jax.models.sharding import param_shardings, place
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.state import abstract_state, initial_state

optimizer = runpy.run_path("tests/training/test_damaged_checkpoints.py")["OPTIMIZER"]
kernel = np.random.default_rng(0).normal(size=(1, 16, 32)).astype(np.float32)
variables = {"params": {"layers": {"q_proj": {"kernel": kernel}, "o_proj": {"kernel": kernel + 1}}}}


def make(variables):
    return initial_state(variables, optimizer)


def mesh(devices, model):
    return device_mesh(jax.devices()[:devices], model=model)


checkpoints = StageCheckpoints(Path(sys.argv[1]), keep=1)
written = place(make(variables), mesh(8, 4))
checkpoints.save(written, {"after": {}})
checkpoints.finish()
report = []
for devices, model in ((8, 4), (8, 2), (8, 1), (1, 1)):
    like = abstract_state(make, variables, mesh(devices, model))
    state, _ = checkpoints.restore(like)
    shardings = param_shardings(state, mesh(devices, model))
    report.append([
        jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), written, state)),
        jax.tree.all(jax.tree.map(lambda a, s: a.sharding.is_equivalent_to(s, a.ndim), state, shardings)),
        len(state.trainable["params"]["layers"]["q_proj"]["kernel"].addressable_shards),
        state.trainable["params"]["layers"]["q_proj"]["kernel"].addressable_shards[0].data.shape[-1],
    ])
checkpoints.close()
print(json.dumps(report))
"""


def test_a_checkpoint_is_read_onto_another_mesh(tmp_path: Path) -> None:
    done = run_on_many_devices(SCRIPT, str(tmp_path / "sft"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "[[true, true, 8, 8], [true, true, 8, 16], [true, true, 8, 32], [true, true, 1, 32]]"
    )


def test_shapes_to_restore_into_take_no_memory() -> None:
    mesh = device_mesh(jax.devices()[:1])
    huge = {"params": {"kernel": jax.ShapeDtypeStruct((2**20, 2**20), jnp.bfloat16)}}

    def make(variables: dict) -> TrainState:
        return initial_state(jax.tree.map(lambda x: x.astype(jnp.float32), variables), OPTIMIZER)

    like = abstract_state(make, huge, mesh)
    assert {str(x.dtype) for x in jax.tree.leaves(like) if x.size > 1} == {"float32"}
    assert all(isinstance(x, jax.ShapeDtypeStruct) and x.sharding is not None for x in jax.tree.leaves(like))
