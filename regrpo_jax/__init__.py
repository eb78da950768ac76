"""ReGRPO in JAX: vision-language agents that recover from their own failed tool calls."""
