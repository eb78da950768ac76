"""A stronger model that explains failures and thinks up near misses; optional, rules can do both."""
