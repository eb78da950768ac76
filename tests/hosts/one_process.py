"""One of several processes of a run in float64, which no config file may ask for: `python -m tests.hosts.one_process`.

The first argument is a config file, the second the folder of the run; the others are fields as on the command line.
"""

import sys

from regrpo_jax.config.command_line import parse_command_line
from regrpo_jax.hosts.connection import connect, leave
from regrpo_jax.run.record import identity_of
from regrpo_jax.run.run import Run
from regrpo_jax.run.walk import walk
from regrpo_jax.stages.table import STAGES


def main() -> None:
    config, workdir = parse_command_line(sys.argv[1:])
    config.model.dtype = config.model.param_dtype = "float64"
    if config.hosts.kind != "one":
        connect(config.hosts, workdir, identity_of(config))
    walk(Run(config, workdir), STAGES)
    leave()


if __name__ == "__main__":
    main()
