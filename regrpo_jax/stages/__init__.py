"""One file each: what a config's `stages` may list. `table.py` says what each is."""
