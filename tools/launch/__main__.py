"""Starts `python -m regrpo_jax.main` where it has to run: on every host of a TPU slice, on Slurm's nodes, on this box.

    python tools/launch tpu   --name=NAME --zone=ZONE [--project=P] [--folder=DIR] [--dry-run | --stop] -- ARGUMENTS
    python tools/launch slurm --nodes=N --gpus=G [--time=T] [--partition=P] [--account=A] [--cpus=C] [--folder=DIR]
                              [--dry-run] -- ARGUMENTS
    python tools/launch box   [--processes=N] [--gpus=G] [--port=P] [--dry-run] -- ARGUMENTS

  ARGUMENTS   --config=FILE --workdir=DIR [--config.FIELD=VALUE ..]; config.hosts is set here
  --dry-run   prints what would be run, to the letter, and runs nothing

docs/hosts.md says what each place needs.
"""

import sys
from collections.abc import Callable, Sequence

import box
import slurm
import tpu
from options import LaunchError

PLACES: dict[str, Callable[[Sequence[str]], int]] = {"tpu": tpu.launch, "slurm": slurm.launch, "box": box.launch}


def main(arguments: Sequence[str]) -> int:
    """The status to exit with."""
    if not arguments or {"--help", "-h"} & set(arguments[:2]):
        print(__doc__)
        return 0
    try:
        if arguments[0] not in PLACES:
            raise LaunchError(f"{arguments[0]!r} is no place; choose one of {', '.join(PLACES)}")
        return PLACES[arguments[0]](arguments[1:])
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
