"""The stages: their names in `config.stages`, their files, what each needs; and which orders of them mean something."""

from __future__ import annotations

from ml_collections import ConfigDict

from regrpo_jax.errors import UserError
from regrpo_jax.run.stage import Stage


def _supervised(config: ConfigDict) -> frozenset[str]:
    """The kinds of records that the supervised stage reads."""
    shares = {"clean": config.sft.clean_ratio, "rot": 1 - config.sft.clean_ratio}
    return frozenset(kind for kind, share in shares.items() if share > 0)


STAGES: dict[str, Stage] = {
    "plan": Stage("regrpo_jax.stages.plan", host=True),  # of a policy that needs no weights, on devices elsewhere
    "baselines": Stage("regrpo_jax.stages.baselines", host=True, plays=lambda config: True),
    "data": Stage("regrpo_jax.stages.data", host=True),  # asks for isolation itself, if anything is left to play
    "audit": Stage("regrpo_jax.stages.audit", host=True, plays=lambda config: config.audit.replay),
    "sft": Stage(
        "regrpo_jax.stages.sft",
        batch="batch_rows",
        records=_supervised,
        title="SFT",
    ),
    "rl": Stage(
        "regrpo_jax.stages.rl",
        batch="groups_per_batch",
        records=lambda config: frozenset({"rot"}),
        title="offline ReGRPO",
    ),
    "preference": Stage(
        "regrpo_jax.stages.preference",
        batch="pairs_per_batch",
        records=lambda config: frozenset({"rot"}),
        title="DPO",
    ),
    "online": Stage(
        "regrpo_jax.stages.online",
        batch="tasks",
        idle=lambda config: config.online.algorithm == "none",
        plays=lambda config: config.online.algorithm != "none" and not config.online.replay,
    ),
    "recovery": Stage("regrpo_jax.stages.recovery", repeats=True, plays=lambda config: True),
    "benchmark": Stage(
        "regrpo_jax.stages.benchmark", repeats=True, plays=lambda config: config.eval.mode == "episodes"
    ),
    "score": Stage("regrpo_jax.stages.score", host=True),
    "eval": Stage("regrpo_jax.stages.replay", repeats=True, records=lambda config: frozenset({"rot"})),
}
_ONLINE = {"regrpo": "ReGRPO", "grpo": "GRPO"}


def title_of(stage: str, algorithm: str) -> str:
    """What a policy is called whose last training stage this was.

    Args:
      algorithm: `config.online.algorithm`.
    """
    return STAGES[stage].title or _ONLINE[algorithm]


def plays_tools(config: ConfigDict) -> bool:
    """Whether a stage runs code actions in the sandbox, and does not ask itself whether it may."""
    return any(STAGES[name].plays(config) for name in config.stages)


def check_stages(config: ConfigDict) -> None:
    """Raises UserError for an unknown stage, one that is listed twice and overwrites itself, or a wrong order."""
    stages = tuple(config.stages)
    for name in stages:
        if name not in STAGES:
            raise UserError(f"config.stages has {name!r}; the stages are {', '.join(STAGES)}")
        if not STAGES[name].repeats and stages.count(name) > 1:
            raise UserError(f"config.stages lists {name!r} twice; its results would overwrite each other")
    if ("score" in stages) != bool(config.eval.score_only):
        raise UserError("config.stages lists 'score' without a file; name one in config.eval.score_only")
    if not stages:
        raise UserError(f"config.stages is empty; list some of {', '.join(STAGES)}")
    for alone in {"baselines", "plan"} & set(stages):
        if len(stages) > 1:
            raise UserError(f"config.stages is {stages}; {alone!r} stands alone, because nothing is trained")
    host = [STAGES[name].host for name in stages]
    if host != sorted(host, reverse=True) or stages[:2] == ("audit", "data"):
        raise UserError(f"config.stages is {stages}; 'data' comes before 'audit', and both before the others")
