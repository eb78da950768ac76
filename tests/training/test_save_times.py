"""When checkpoints are due."""

from regrpo_jax.training.save_times import SaveTimes


def due(seconds: list[float], *, every: int = 1000, minutes: float = 1.0, line_every: int = 1) -> list[int]:
    """The updates of a stage that are followed by a checkpoint, each at its moment."""
    moments = iter([0.0, *seconds])
    times = SaveTimes(every=every, minutes=minutes, last=len(seconds), clock=lambda: next(moments))
    return [n for n in range(1, len(seconds) + 1) if times.is_due(n, has_line=n % line_every == 0)]


def test_after_so_many_updates_and_at_the_end() -> None:
    assert due([1.0] * 7, every=3) == [3, 6, 7]


def test_after_so_many_minutes_since_the_last_one() -> None:
    assert due([20, 59, 60, 61, 119, 121, 122, 300, 301]) == [3, 6, 8, 9]


def test_a_checkpoint_by_count_begins_the_minutes_anew() -> None:
    assert due([20, 50, 70, 100, 110, 111], every=2) == [2, 4, 6]


def test_minutes_wait_for_a_line() -> None:
    assert due([61, 62, 63, 64, 65, 66, 67], line_every=3) == [3, 7]
    assert due([61, 62, 200, 201, 202, 203, 204], line_every=3) == [3, 7]
