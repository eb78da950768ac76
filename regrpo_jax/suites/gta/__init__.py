"""GTA, the benchmark for general tool agents (arXiv 2407.08713): its files, how it is played, and how it is scored."""
