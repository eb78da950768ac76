"""The reflective data engine: where the records a policy learns from are made."""
