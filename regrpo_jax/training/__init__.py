"""Train steps, checkpoints and the stages that `main` runs."""
