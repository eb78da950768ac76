"""What kind of failure an action was, told from how it differs from the right one."""

import pytest

from regrpo_jax.engine.cases import ArgumentShape, ToolShape
from regrpo_jax.engine.classify import error_type_of
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.suites.toolrepair import families, make_task, plan_of

TOOLS = {
    "read": ToolShape("read", "", (ArgumentShape("name", "string"),)),
    "crop": ToolShape("crop", "", (ArgumentShape("region", "string"),)),
    "search": ToolShape("search", "", (ArgumentShape("name", "string"), ArgumentShape("detail", "string", "", True))),
}


@pytest.mark.parametrize(
    ("failed", "corrected", "status", "images", "kind"),
    [
        ('read("moon")', 'read("tiger")', Status.TOOL_ERROR, (), ErrorType.ARG_INVALID),
        ('read("moon")', 'read(name="tiger")', Status.TOOL_ERROR, (), ErrorType.ARG_INVALID),
        ('read("moon")', 'search("moon")', Status.TOOL_ERROR, (), ErrorType.TOOL_MISMATCH),
        ('search("Sue")', 'search("Sue", "Oslo")', Status.TOOL_ERROR, (), ErrorType.INFO_INSUFFICIENT),
        ('search("Sue", "Rome")', 'search("Sue", "Oslo")', Status.EMPTY, (), ErrorType.ARG_INVALID),
        ('crop("topleft")', 'crop("lowleft")', Status.EMPTY, ("a.png",), ErrorType.GROUNDING_DRIFT),
        ('reed("moon")', 'read("moon")', Status.INVALID_ACTION, (), ErrorType.CODE_ERROR),
        ('int(read("moon"))', 'read("moon")', Status.TOOL_ERROR, (), ErrorType.CODE_ERROR),
        ('"17"', 'final_answer("17")', Status.OK, (), ErrorType.NON_COMMIT),
        ("1/0", 'read("moon")', Status.TOOL_ERROR, (), ErrorType.CODE_ERROR),
    ],
)
def test_the_first_thing_that_differs_decides(failed, corrected, status, images, kind) -> None:
    assert error_type_of(failed, corrected, status, TOOLS, images) == kind


def test_most_of_the_suites_own_surprises_are_told_as_the_suite_tells_them() -> None:
    from regrpo_jax.engine.tool_shapes import tool_shapes
    from regrpo_jax.suites.toolrepair import LOADERS

    shapes = tool_shapes(LOADERS["compact"])
    told, right = 0, 0
    for family in families("compact"):
        for seed in range(20):
            task = make_task(family, "train", seed, 1 + seed % 3, surprises=1.0)
            for attempt in plan_of(task).attempts:
                if attempt.repair is not None:
                    found = error_type_of(attempt.code, attempt.repair.code, Status.TOOL_ERROR, shapes, task.images)
                    told, right = told + 1, right + (found == attempt.repair.error_type)
    assert told > 150
    # A count called in another way, a key and a vote look like arguments: only the suite knows better.
    assert right / told > 0.6
