"""BFCL multi-turn: stateful classes, several requests of a user in an episode, the authors' own checker."""
