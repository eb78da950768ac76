"""What a run is told: every field, the command line, and what is refused."""
