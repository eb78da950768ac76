"""Checkpoints: what went in comes out, the last few are kept, and half a checkpoint is none."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.state import TrainState, initial_state

OPTIMIZER = optax.adamw(1e-3)
Open = Callable[..., StageCheckpoints]


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Open]:
    opened: list[StageCheckpoints] = []

    def open_again(keep: int = 2) -> StageCheckpoints:
        opened.append(StageCheckpoints(tmp_path / "sft", keep=keep))
        return opened[-1]

    yield open_again
    for checkpoints in opened:
        checkpoints.close()


def state_at(step: int, width: int = 3) -> TrainState:
    """A state whose numbers all tell the step."""
    state = initial_state(
        {"params": {"kernel": jnp.full((2, width), step, jnp.bfloat16), "bias": jnp.ones(3)}}, OPTIMIZER
    )
    gradient = jax.tree.map(lambda x: jnp.full_like(x, 0.5 + step), state.trainable)
    _, optimizer_state = OPTIMIZER.update(gradient, state.optimizer_state, state.trainable)
    return TrainState(jnp.asarray(step, jnp.int32), state.trainable, optimizer_state)


def assert_same(state: TrainState, other: TrainState) -> None:
    assert jax.tree.structure(state) == jax.tree.structure(other)
    for array, expected in zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def numbers() -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(100).seed(3).shuffle().repeat().to_iter_dataset().batch(7))


def test_state_and_iterator_come_back_as_they_were(open_folder: Open) -> None:
    batches = numbers()
    for _ in range(20):  # past the end of the first epoch
        next(batches)
    first = open_folder()
    assert first.latest_step() is None
    first.save(state_at(5), {"batches": batches.get_state(), "after": {"sft": 3}})
    expected = [next(batches) for _ in range(3)]
    first.close()

    restored, position = open_folder().restore(state_at(0))
    assert_same(restored, state_at(5))
    assert position["after"] == {"sft": 3}
    again = numbers()
    again.set_state(position["batches"])
    np.testing.assert_array_equal([next(again) for _ in range(3)], expected)


def test_state_may_be_donated_while_it_is_written(open_folder: Open) -> None:
    checkpoints = open_folder()
    state = state_at(5)
    donating = jax.jit(lambda state: jax.tree.map(lambda x: x * 0, state), donate_argnums=0)
    checkpoints.save(state, {})
    donating(state)
    checkpoints.close()
    assert_same(open_folder().restore(state_at(0))[0], state_at(5))


def test_only_the_last_few_are_kept(open_folder: Open, tmp_path: Path) -> None:
    checkpoints = open_folder(keep=2)
    for step in (1, 2, 3, 4):
        checkpoints.save(state_at(step), {"step": step})
    checkpoints.close()
    assert sorted(path.name for path in (tmp_path / "sft").iterdir()) == ["3", "4"]
    restored, position = open_folder().restore(state_at(0))
    assert (int(restored.step), position) == (4, {"step": 4})


def test_the_same_step_is_not_written_twice(open_folder: Open) -> None:
    checkpoints = open_folder()
    checkpoints.save(state_at(4), {"first": True})
    checkpoints.close()
    checkpoints = open_folder()
    checkpoints.save(state_at(4), {"first": False})
    checkpoints.close()
    assert open_folder().restore(state_at(0))[1] == {"first": True}


def test_other_shapes_are_told_not_trained(open_folder: Open, tmp_path: Path) -> None:
    checkpoints = open_folder()
    checkpoints.save(state_at(4), {})
    checkpoints.close()
    with pytest.raises(UserError) as error:
        open_folder().restore(state_at(0, width=5))
    assert str(error.value).startswith(f"{tmp_path / 'sft'}: the checkpoint at step 4 does not fit this configuration")
    assert "trainable.params.kernel is bfloat16[2, 3] there, bfloat16[2, 5] here" in str(error.value)
    assert "another --workdir" in str(error.value)


def test_other_collections_are_told_not_trained(open_folder: Open) -> None:
    checkpoints = open_folder()
    checkpoints.save(state_at(4), {})
    checkpoints.close()
    adapter = initial_state({"lora": {"down": jnp.ones((2, 2))}}, optax.sgd(0.1))
    with pytest.raises(UserError, match=r"trainable\.lora\.down is missing there, float32\[2, 2\] here; trainable"):
        open_folder().restore(adapter)


def test_a_half_written_checkpoint_is_none(open_folder: Open, tmp_path: Path) -> None:
    checkpoints = open_folder()
    checkpoints.save(state_at(4), {"step": 4})
    checkpoints.close()
    # What a process leaves that dies while it writes step 8: orbax renames the folder only when all is there.
    half = tmp_path / "sft" / "8.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "sft" / "4", half)
    shutil.rmtree(half / "state")
    (half / "_CHECKPOINT_METADATA").unlink(missing_ok=True)

    checkpoints = open_folder()
    assert checkpoints.latest_step() == 4
    restored, position = checkpoints.restore(state_at(0))
    assert (int(restored.step), position) == (4, {"step": 4})
    checkpoints.save(state_at(8), {"step": 8})
    checkpoints.close()
    assert open_folder().restore(state_at(0))[1] == {"step": 8}
