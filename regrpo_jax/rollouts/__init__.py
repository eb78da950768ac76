"""Rollouts: groups of episodes that the current policy plays in lock step over real tools."""
