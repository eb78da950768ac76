"""Rollouts: groups of episodes that the current policy plays over real tools."""
