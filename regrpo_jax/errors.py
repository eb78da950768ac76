"""The one exception type that reaches a person without a traceback."""


class UserError(Exception):
    """A mistake a person can mend: the message says what is wrong, where, and what to do.

    `regrpo_jax.main` prints the message and exits with status 2; libraries may catch it as any exception.
    """
