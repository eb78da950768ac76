"""Online ReGRPO of Qwen2-VL-7B with an adapter: eight chips of a TPU slice, or one GPU of 139 GiB.

    python -m regrpo_jax.main --config=configs/qwen2_vl_7b.py --workdir=runs/plan --config.stages=plan \
        --config.plan.topology=v5e:2x4 --config.model.path=Qwen2-VL-7B-Instruct
    python -m regrpo_jax.main --config=configs/qwen2_vl_7b.py --workdir=runs/7b --config.model.path=Qwen2-VL-7B-Instruct

The first line compiles its steps for a slice that need not be here and says what they take (docs/plan.md;
experiments/plans has what it said). ToolRepair, full profile: a warm start on 2,000
RoT records and as many clean trajectories that the data stage makes, then 100 updates of 16 tasks x 8 episodes. On one
device: --config.mesh.fsdp=1 --config.optimizer.microbatches=16. Never run at 7B here: no time and no score stand in
this file.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery", "online", "recovery")
    config.mesh.fsdp = 8
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.remat = "full"
    config.suite.profile = "full"
    config.suite.surprises = 0.7
    config.data.source = "toolrepair"
    config.data.pixels = (4 * 28 * 28, 512 * 28 * 28)
    config.data.prefix_buckets = (1024, 2048)
    config.data.branch_buckets = (256, 512, 1024)
    config.engine.clean = 2000
    config.lora.rank = 16
    config.optimizer.trainable = "lora"
    config.optimizer.microbatches = 2
    config.sft.steps = 500
    config.sft.learning_rate = 1e-4
    config.sft.batch_rows = 16
    config.sft.row_length = 4096
    config.sft.row_patches = 4 * 2048
    config.rl.groups_per_batch = 16
    config.online.steps = 100
    config.online.learning_rate = 2e-5
    config.agent.turn_tokens = 256
    config.agent.episode_tokens = 768
    config.environment.workers = 16
    config.checkpoint.every = 50
    return config
