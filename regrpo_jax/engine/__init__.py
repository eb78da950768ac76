"""The reflective data engine: where the records a policy learns from are made."""

from regrpo_jax.engine.compact_corpus import CorpusPaths, write_compact_corpus

__all__ = ["CorpusPaths", "write_compact_corpus"]
