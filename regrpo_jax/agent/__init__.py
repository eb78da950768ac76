"""The agent of the host wing: how a policy acts, and when it stops to reflect."""
