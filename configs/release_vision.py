"""Offline ReGRPO on Qwen2-VL-7B with the numbers of the authors' release, vision path (its README's two commands).

    python -m regrpo_jax.main --config=configs/release_vision.py --workdir=runs/release_vision \
        --config.model.path=Qwen2-VL-7B-Instruct --config.data.rot=rot_train.json --config.data.clean=mat_train.json

An adapter of rank 128 and alpha 16 on q, k, v and o of the decoder, the vision tower frozen; then 250 updates of one
group each, which is `regrpo_vl_stab.yaml`. Its `regrpo_vl_full.yaml` is `--config.rl.length_normalize=False
--config.rl.normalize_advantages=False --config.objective.advantage_clip=None --config.optimizer.clip_norm=1e9
--config.optimizer.warmup_steps=0`.

What is not the release's: rows are packed, so that an update of the first stage sees eight conversations or more; its
learning rate falls along a cosine, the release's along a line; the warm-up of the second begins at 0, not at a tenth;
nothing is cut, a record that is too long is named and skipped (docs/benchmarks.md says which of MM-Traj's are). The
release shrinks pictures to 512 x 28 x 28 pixels in its second stage: for that run the stages apart, the second one with
`--config.lora.path` and `--config.data.pixels='(3136, 401408)'`. One group is one row: several devices share the
weights (`--config.mesh.model`). Never run at 7B here: no time and no score stand in this file.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("sft", "rl", "eval")
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.conditioning = "release"
    config.data.train_end_of_turn = False
    config.data.pixels = (4 * 28 * 28, 768 * 28 * 28)
    config.data.failed_turns = "train"
    config.data.prefix_buckets = (1024, 2048, 4096, 8192)
    config.data.branch_buckets = (256, 512, 1024)
    config.lora.rank = 128
    config.lora.alpha = 16.0
    config.lora.dropout = 0.05
    config.lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    config.lora.vision_rank = 0
    config.optimizer.trainable = "lora"
    config.sft.clean_ratio = 0.5
    config.sft.steps = 2500  # one epoch of 20,000 conversations, eight an update; set it for yours
    config.sft.learning_rate = 2e-5
    config.optimizer.beta2 = 0.999
    config.optimizer.clip_norm = 1.0
    own = {"warmup_steps": 0, "final_learning_rate_share": 0.0, "weight_decay": 0.0, "microbatches": 8}
    config.sft.optimizer = ConfigDict(own)
    config.sft.batch_rows = 8
    config.sft.row_length = 8192
    config.sft.row_patches = 4 * 3072  # patches of four of the largest pictures
    config.rl.steps = 250
    config.rl.groups_per_batch = 1
    config.rl.learning_rate = 1e-6
    config.optimizer.warmup_steps = 10
    config.optimizer.final_learning_rate_share = 1.0
    config.optimizer.weight_decay = 0.01
    config.rl.beta = 0.3
    config.objective.kl_estimator = "k1"
    config.rl.length_normalize = True
    config.rl.normalize_advantages = True
    config.objective.advantage_clip = 1.0
    config.agent.turn_tokens = 512
    config.played_at_once = 8
    return config
