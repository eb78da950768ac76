"""GAIA, the benchmark for general assistants (arXiv 2311.12983): its files, how it is played, and how it is scored."""
