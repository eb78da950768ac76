"""Online ReGRPO of Qwen2-VL-2B with an adapter: eight chips of a TPU v5e, as Kaggle lends, each with the whole model.

    python -m regrpo_jax.main --config=configs/qwen2_vl_2b.py --workdir=runs/plan --config.stages=plan \
        --config.plan.topology=v5e:2x4 --config.model.path=Qwen2-VL-2B-Instruct
    python -m regrpo_jax.main --config=configs/qwen2_vl_2b.py --workdir=runs/2b --config.model.path=Qwen2-VL-2B-Instruct

The same run as qwen2_vl_7b.py, whose file says what it is. The first line compiles its steps for the slice and says
what they take (experiments/plans). examples/qwen2_vl_2b_tpu.ipynb runs it from a notebook. Never run at 2B here: no
time and no score stand in this file.
"""

from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.command_line import load_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = load_config(Path(__file__).with_name("qwen2_vl_7b.py"))
    config.mesh.fsdp = 1
    return config
