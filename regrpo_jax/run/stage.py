"""What a stage is, as far as it must be known before it begins."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable

from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.run.run import Run


def _nothing(config: ConfigDict) -> frozenset[str]:
    return frozenset()


def _never(config: ConfigDict) -> bool:
    return False


def _always(config: ConfigDict) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Stage:
    """One of those that `config.stages` may list.

    Attributes:
      module: whose `run(run)` it is; imported when its turn comes.
      host: it has no policy to train or play: it plays real tools, reads records, or plans.
      batch: the field of its section that says how large an update is; "" for a stage that trains nothing.
      idle: whether it leaves the policy as it is, although it has updates.
      repeats: it measures, so that it may be listed more than once.
      records: the kinds of records that it learns from or measures on, "clean" and "rot".
      plays: whether it runs code actions in the sandbox.
      title: what a policy is called that it made.
    """

    module: str
    host: bool = False
    batch: str = ""
    idle: Callable[[ConfigDict], bool] = _never
    repeats: bool = False
    records: Callable[[ConfigDict], frozenset[str]] = _nothing
    plays: Callable[[ConfigDict], bool] = _never
    title: str = ""

    def trains(self, config: ConfigDict) -> bool:
        """Whether the policy is another after it."""
        return bool(self.batch) and not self.idle(config)

    def run(self, run: Run) -> None:
        """Does what the stage is for.

        Raises:
          UserError: for everything that a person can mend; also where what it needs is not installed.
        """
        try:
            function: Callable[[Run], None] = importlib.import_module(self.module).run
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is missing; real tools need: pip install 'regrpo_jax[tools]'") from error
        function(run)
