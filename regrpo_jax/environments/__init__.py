"""Tasks over real tools, how they go wrong, and how an episode of one is run."""
