"""Code actions in processes that can be killed; `docs/security.md` says what is promised and what is not."""
