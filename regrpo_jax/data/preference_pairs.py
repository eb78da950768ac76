"""Pairs for preference optimisation: a contrastive group with only the corrected and the failed action left in it.

Both stand directly after the context, so that they answer the same prompt, as the loss asks for. What follows a failure
has no partner there, and is left to the other algorithms.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from regrpo_jax.data.groups import Group

SIDES = ("correct", "failed")  # chosen and rejected, in the order of `core.preference_loss`


def preference_pairs(groups: Sequence[Group]) -> list[Group]:
    """Groups of two branches, chosen and rejected; a group whose two actions are the same tokens prefers nothing.

    Args:
      groups: as `build_group` makes them, with branches labelled `SIDES` among others.
    """
    pairs = []
    for group in groups:
        labelled = {branch.label: branch for branch in group.branches}
        chosen, rejected = (labelled[label] for label in SIDES)
        if not np.array_equal(chosen.tokens, rejected.tokens):
            pairs.append(dataclasses.replace(group, branches=(chosen, rejected)))
    return pairs
