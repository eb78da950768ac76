"""tau-bench's telecom domain without a simulated user, as a suite."""
