"""RoT records as trajectories whose retry says in its thought what a reflection would say: the warm start of a control.

    python -m experiments.bfcl.thinking CORPUS OUT.jsonl

CORPUS holds what the data stage wrote. OUT gets every RoT record so, and clean trajectories beside them, two for three.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"Reflection:\n- ErrorType: (?P<type>.*)\n- Evidence: (?P<evidence>.*)\n- FixPlan: (?P<plan>.*)\nThought: "
)
CLEAN_SHARE = 0.4


def thinking(record: dict[str, Any]) -> dict[str, Any]:
    """The same turns; what the block says stands in front of the thought, in the same words."""
    turns = []
    for turn in record["conversations"]:
        content = BLOCK.sub(lambda found: f"Thought: {found['evidence']}: {found['plan']}. ", turn["content"])
        turns.append(turn | {"content": content})
    return {
        "id": f"{record['id']}_thinking",
        "image": record.get("image", {}),
        "answer": record["answer"],
        "conversations": turns,
    }


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """All records of some shards."""
    return [json.loads(line) for path in sorted(paths) for line in path.read_text(encoding="utf-8").splitlines()]


def main(corpus: Path, out: Path) -> None:
    """Writes OUT."""
    records = [thinking(record) for record in read(list(corpus.glob("rot-*.jsonl")))]
    clean = read(list(corpus.glob("clean-*.jsonl")))[: round(len(records) * CLEAN_SHARE / (1 - CLEAN_SHARE))]
    out.write_text("".join(json.dumps(record) + "\n" for record in [*records, *clean]), encoding="utf-8")
    print(f"{len(records)} trajectories that think and {len(clean)} clean ones: {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
