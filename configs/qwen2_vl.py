"""Offline ReGRPO on Qwen2-VL-7B as the authors' release trains it: adapters on text and vision, tower weights frozen.

    python -m regrpo_jax.main --config=configs/qwen2_vl.py --workdir=runs/qwen2_vl \
        --config.model.path=Qwen2-VL-7B-Instruct --config.data.rot=rot_train.json --config.data.clean=mat_train.json

Any Qwen2-VL or Qwen2.5-VL directory will do; for Qwen2 and Qwen2.5 text add `--config.lora.vision_rank=0`. The ranks
are those of the release's supervised stage (text 16, vision 128, dropout 0.05); the second stage goes on with them. For
devices that share the weights add `--config.mesh.model=4`; for a small one `--config.model.quantize=nf4`. The path is
tested with a tiny Qwen2-VL (`tests/cli/test_vision_language_run.py`); at 7B only its shapes are: no time, no score
stand here.
"""

from ml_collections import ConfigDict

from regrpo_jax.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("sft", "rl", "eval")
    config.model.dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.max_length = 4096
    config.data.prefix_buckets = (1024, 2048, 4096)
    config.data.branch_buckets = (256, 512, 1024)
    config.lora.rank = 16
    config.lora.alpha = 32.0
    config.lora.dropout = 0.05
    config.lora.vision_rank = 128
    config.lora.vision_alpha = 16.0
    config.sft.trainable = "lora"
    config.sft.learning_rate = 1e-4
    config.sft.batch_rows = 8
    config.sft.row_length = 4096
    config.sft.row_patches = 8192
    config.sft.microbatches = 8
    config.rl.learning_rate = 5e-6
    config.rl.groups_per_batch = 8
    config.rl.microbatches = 8
    config.eval.batch = 8
    config.eval.max_new_tokens = 512
    return config
