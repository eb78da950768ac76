"""Other settings of the same run, from the one that costs least, for a configuration that does not fit."""

import dataclasses
from collections.abc import Iterator

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import TRAINING_STAGES, stage_section

BATCHES = {"sft": "batch_rows", "rl": "groups_per_batch", "online": "tasks"}  # stage -> how large its update is


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a run is laid out over its devices.

    Attributes:
      fsdp, model: of config.mesh.
      microbatches: of every stage.
      remat: of config.model.
    """

    fsdp: int
    model: int
    microbatches: int
    remat: str

    def told(self) -> str:
        """As it is typed."""
        return (
            f"--config.mesh.fsdp={self.fsdp} --config.mesh.model={self.model} "
            f"--config.optimizer.microbatches={self.microbatches} --config.model.remat={self.remat}"
        )


def setting_of(config: ConfigDict) -> Setting:
    """The one of a config; of microbatches the most that a stage has."""
    most = max(stage_section(config, stage).microbatches for stage in BATCHES)
    return Setting(config.mesh.fsdp, config.mesh.model, most, config.model.remat)


def with_setting(config: ConfigDict, setting: Setting) -> ConfigDict:
    """The config with another setting."""
    changed = config.copy_and_resolve_references()
    changed.mesh.fsdp, changed.mesh.model = setting.fsdp, setting.model
    changed.model.remat = setting.remat
    changed.optimizer.microbatches = setting.microbatches
    for stage in TRAINING_STAGES:
        if "microbatches" in changed[stage].optimizer:
            changed[stage].optimizer.microbatches = setting.microbatches
    return changed


def other_settings(config: ConfigDict, devices: int, steps: tuple[str, ...]) -> Iterator[Setting]:
    """Settings that the batches of `steps` divide by, each beyond the present one: less is computed again and fewer
    devices share a copy of the weights in the earlier ones."""
    now = setting_of(config)
    rows = [stage_section(config, stage)[size] for stage, size in BATCHES.items() if stage in steps]
    remats = list(dict.fromkeys((now.remat, "full")))
    degrees = [1 << power for power in range(devices.bit_length()) if devices % (1 << power) == 0]
    for remat in remats:
        for parts in degrees:
            for model in (part for part in degrees if part <= min(parts, 4)):
                shards = devices // model
                microbatches = now.microbatches
                while all(count % (shards * microbatches) == 0 for count in rows):
                    setting = Setting(parts // model, model, microbatches, remat)
                    if setting != now and parts >= now.fsdp * now.model:
                        yield setting
                    microbatches *= 2
