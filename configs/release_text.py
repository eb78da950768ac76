"""Offline ReGRPO on Qwen2.5-0.5B with the numbers of the authors' release, text path.

    python -m regrpo_jax.main --config=configs/release_text.py --workdir=runs/release_text \
        --config.model.path=Qwen2.5-0.5B-Instruct --config.data.rot=rot_train.json --config.data.clean=mat_train.json

An adapter of rank 16 and alpha 32 on q and v; 2,000 supervised updates (`sft_full.yaml`), then 1,000 of one group each
that go on with it (`regrpo_full.yaml` with its `init_adapter`). Weights and activations are float32 and no gradient is
clipped, as there.

What is not the release's: rows are packed, so that an update of the first stage sees one conversation or more, and
nothing is cut, a record that is too long is named and skipped (docs/benchmarks.md says which of MM-Traj's are). One
group is one row: several devices share the weights (`--config.mesh.model`). The release's samples are six records; no
score of the whole corpus stands here.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("sft", "rl", "eval")
    config.model.dtype = "float32"
    config.model.param_dtype = "float32"
    config.model.remat = "full"
    config.data.conditioning = "release"
    config.data.train_end_of_turn = False
    config.data.failed_turns = "train"
    config.data.prefix_buckets = (1024, 2048, 4096)
    config.data.branch_buckets = (256, 512, 1024)
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.dropout = 0.05
    config.lora.targets = ("q_proj", "v_proj")
    config.lora.vision_rank = 0
    config.optimizer.trainable = "lora"
    config.sft.clean_ratio = 0.5
    config.sft.steps = 2000
    config.sft.learning_rate = 2e-5
    config.sft.batch_rows = 1
    config.sft.row_length = 4096
    config.rl.steps = 1000
    config.rl.groups_per_batch = 1
    config.rl.learning_rate = 5e-6
    config.rl.beta = 0.04
    config.objective.kl_estimator = "k1"
    config.optimizer.warmup_steps = 0
    config.optimizer.final_learning_rate_share = 1.0
    config.optimizer.weight_decay = 0.01
    config.optimizer.beta2 = 0.999
    config.optimizer.clip_norm = 1e9  # no gradient is as long
    config.agent.turn_tokens = 512
    config.played_at_once = 8
    return config
