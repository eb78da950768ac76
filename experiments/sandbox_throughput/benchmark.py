"""Tool steps per second through the sandbox, beside the same steps in this process; README.md has the numbers.

python -m experiments.sandbox_throughput.benchmark --episodes=500 --workers=2
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.capture import Output
from regrpo_jax.sandbox.plain_python import Program
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.settings import SandboxSettings
from tests.toolbox.sandbox_tools import load

LOADER = "tests.toolbox.sandbox_tools:load"
FILES: dict[str, bytes | Path] = {
    "notes.txt": b"\n".join(b"item %d: %d pieces, colour %d" % (n, n * 7 % 13, n % 5) for n in range(40)),
    "prices.txt": b"item 3: 12.50\nitem 7: 3.20\n",
}
STEPS = (
    "lines = find('item 7')\nprint(lines)",
    "text = read_text('prices.txt')\nprice = float(text.split('item 7: ')[1].split()[0])\nprint(price)",
    "try:\n    read_text('missing.txt')\nexcept FileNotFoundError as error:\n    print('not there:', error)",
    "final_answer(add(price * 10, 1))",
)


def sandboxed(pool: SandboxPool, episodes: int, workers: int) -> float:
    """Seconds for `episodes` episodes of four steps, opened and closed, on `workers` threads."""

    def work(number: int) -> None:
        for seed in range(number, episodes, workers):
            with pool.open(FILES, seed) as session:
                results = [session.run(code) for code in STEPS]
            assert results[-1].final_answer == 33.0, results
            assert all(result.status is Status.OK for result in results), results

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def in_process(settings: SandboxSettings, episodes: int) -> float:
    """Seconds for the same steps in this process: the same code and tools, no isolation."""
    tools, here, answers = load(None), os.getcwd(), []
    started = time.perf_counter()
    for _ in range(episodes):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for name, data in FILES.items():
                assert isinstance(data, bytes)
                Path(name).write_bytes(data)
            program = Program(tools | {"final_answer": answers.append})
            errors = [program.run(code, Output(settings.text_characters)) for code in STEPS]
            os.chdir(here)
        assert errors == [None] * len(STEPS) and answers.pop() == 33.0
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = SandboxSettings(workers=options.workers)
    steps = options.episodes * len(STEPS)
    rates: dict[str, list[float]] = {"sandbox": [], "in_process": []}
    with SandboxPool(settings, loader=LOADER) as pool:
        sandboxed(pool, 20, options.workers)
        for _ in range(options.repeats):
            rates["sandbox"].append(steps / sandboxed(pool, options.episodes, options.workers))
            rates["in_process"].append(steps / in_process(settings, options.episodes))
    median = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    told = {f"{name}_steps_per_second": round(value, 1) for name, value in median.items()}
    told["ratio"] = round(median["sandbox"] / median["in_process"], 2)
    print(json.dumps(told | {"workers": options.workers, "steps": steps, "all": rates}, indent=2))


if __name__ == "__main__":
    main()
