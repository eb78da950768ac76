"""Near misses: other actions of a situation, plausible and (one hopes) wrong, by rules over the syntax tree."""
