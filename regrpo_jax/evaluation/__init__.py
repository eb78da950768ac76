"""Recovery, measured: recorded tasks replayed with their first failure injected, and the gate deciding."""
