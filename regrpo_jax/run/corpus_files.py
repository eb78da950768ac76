"""Where the data stage writes its records, for the stages that read them."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

CORPUS, TASKS = "corpus", "tasks"


def with_corpus(config: ConfigDict, workdir: Path) -> ConfigDict:
    """The config for a run whose stages begin with `data`: later stages take its corpus, unless files are named."""
    found = config.copy_and_resolve_references()
    made = {
        "rot": "rot" if config.engine.records else "",
        "clean": "demonstrations" if config.engine.demonstrations else "clean",
    }
    for name, stem in made.items():
        if stem and not found.data[name]:
            found.data[name] = str(workdir / CORPUS / f"{stem}-*.jsonl")
    return found
