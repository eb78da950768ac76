"""Offline ReGRPO on RoT records of your own: warm start, contrastive groups, replay through the gate, adapter.

    python -m regrpo_jax.main --config=configs/offline.py --workdir=runs/offline \
        --config.data.rot=rot_train.json --config.data.clean=mat_train.json

The files are JSON arrays or JSONL in the schema of the authors' release. Without `--config.model.path` a tiny policy
is trained from scratch with a tokenizer of its own: on the release's six sample records the supervised loss falls from
5.2 to 0.01 and the reflected correction becomes likelier than the failed action for all six, in under three minutes on
2 CPU cores. With `--config.model.path` it starts from a Hugging Face directory, and trains an adapter of a large one;
the learning rates stay those of the tiny policy, too high for a pretrained one: set `--config.sft.learning_rate=1e-4
--config.rl.learning_rate=5e-6`, or take the numbers of the authors' release, `configs/release_vision.py` and
`configs/release_text.py`.

Rows and prefixes are as short as the release's samples are. A record that is longer is named with the field to raise,
and the last warning says what the longest one needs; docs/benchmarks.md has the values for MM-Traj.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("eval", "sft", "eval", "rl", "eval")
    config.data.prefix_buckets = (128, 512, 2048)
    config.data.branch_buckets = (256, 512)
    config.sft.steps = 60
    config.sft.batch_rows = 4
    config.rl.steps = 20
    config.rl.groups_per_batch = 2
    config.rl.learning_rate = 1e-3
    config.optimizer.warmup_steps = 5
    for stage in (config.rl, config.preference):
        stage.optimizer = ConfigDict({"trainable": "lora"})
    config.agent.turn_tokens = 192
    config.played_at_once = 8
    return config
