"""Many threads may want syntax trees at once."""

from __future__ import annotations

import ast
import gc
import threading
import time

from regrpo_jax.records.syntax import evaluated_literal, syntax_of_expression, syntax_tree

SOURCE = "f(" * 20 + "1" + ")" * 20 + "\nx = [1, 2, (3, {4: 5})]\n" * 20


class LetsOthersRun:
    """Garbage of which a collection lets other threads run, as references to a cluster's objects do."""

    def __init__(self) -> None:
        self.circle = self

    def __del__(self) -> None:
        time.sleep(0.0003)


def test_threads_that_collect_garbage_in_the_middle_do_not_end_each_other() -> None:
    """With `ast.parse` alone, CPython 3.11 raises SystemError here nearly every time."""
    wrong: list[Exception] = []

    def work() -> None:
        for _ in range(100):
            LetsOthersRun()
            try:
                syntax_tree(SOURCE)
            except SystemError as error:
                wrong.append(error)

    before = gc.get_threshold()
    gc.set_threshold(200)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    assert not wrong


def test_they_are_those_of_python() -> None:
    assert ast.dump(syntax_tree(SOURCE)) == ast.dump(ast.parse(SOURCE))
    assert ast.dump(syntax_of_expression("f(1)")) == ast.dump(ast.parse("f(1)", mode="eval"))
    assert evaluated_literal("[1, 'a']") == [1, "a"]
