"""Where compiled programs are kept between runs, so that a second start of a 7B policy does not compile for minutes.

config.compilation_cache = "auto"    on accelerators, the folder that JAX_COMPILATION_CACHE_DIR names or one below the
                                     user's cache folder; on a CPU none: its programs hold instructions of the machine
                                     that compiled them, and homes are shared between machines
                         = FOLDER    there, whatever the devices
                         = ""        nowhere
"""

import os
from pathlib import Path

import jax

AUTO = "auto"
MOST_BYTES = 10 * 2**30  # in our own folder; what was not used for longest goes first
SHORTEST = 0.5  # seconds that a program which is kept took to compile


def compiled_folder(setting: str, platform: str) -> str:
    """The folder, "" where none is kept.

    Args:
      setting: config.compilation_cache.
      platform: of the devices.
    """
    if setting != AUTO:
        return setting
    return "" if platform == "cpu" else os.environ.get("JAX_COMPILATION_CACHE_DIR") or _own_folder()


def keep_compiled(setting: str) -> None:
    """Tells jax where to keep programs; before anything is compiled."""
    folder = compiled_folder(setting, jax.default_backend())
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    if setting == AUTO and folder == _own_folder():
        jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)


def _own_folder() -> str:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(caches) / "regrpo_jax" / "compiled")
