"""The program in float64, which no config may ask for: `python -m tests.hosts.one_process`, arguments as ever."""

import functools

from ml_collections import ConfigDict

import regrpo_jax.main as program
from regrpo_jax.config.checks import check_config
from regrpo_jax.hosts.supervisor import supervise


def check_then_widen(config: ConfigDict) -> None:
    if config.model.dtype == "float64":
        return
    check_config(config)
    config.model.dtype = config.model.param_dtype = "float64"


if __name__ == "__main__":
    program.check_config = check_then_widen
    program.supervise = functools.partial(supervise, module="tests.hosts.one_process")
    program.run_from_command_line()
