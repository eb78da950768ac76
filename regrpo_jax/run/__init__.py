"""A run: its folder and record, the policy it starts from, the walk over its stages."""
