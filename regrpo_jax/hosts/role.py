"""Which of the processes of a run this one is. One process alone is number 0 of 1, and nothing changes for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Role:
    """index: of this process, from 0. count: of the run's processes. patience: seconds after which the death of another
    is known, in any case.
    """

    index: int = 0
    count: int = 1
    patience: float = 0.0

    @property
    def writes(self) -> bool:
        """Whether this process writes what there is one of: metrics, records, reports, exports."""
        return self.index == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1


_roles = [Role()]  # the last is this process's; jax, too, knows one for the whole process


def role() -> Role:
    """This process's."""
    return _roles[-1]


def take(mine: Role) -> None:
    """Once, when the processes have found each other."""
    _roles.append(mine)
