"""One file each: what a config's `stages` may list."""
