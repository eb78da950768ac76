"""The policy: a thin Flax model behind `run_prefix` and `run_branches`, its adapters, weights and sampler."""
