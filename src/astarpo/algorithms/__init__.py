"""The losses, one file each, and which setting means which."""

from collections.abc import Callable

from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.base import Algorithm
from astarpo.algorithms.grpo import GRPO
from astarpo.algorithms.ppo import PPO
from astarpo.algorithms.rebel import REBEL
from astarpo.algorithms.rloo import RLOO
from astarpo.algorithms.rollout_baseline import AStarPOByRollout
from astarpo.algorithms.spo import SPO
from astarpo.config import AlgorithmConfig


def _astar_po(config: AlgorithmConfig, _: int) -> Algorithm:
    kind = AStarPO if config.baseline_from == "v_star" else AStarPOByRollout
    return kind(config.beta2)


def _grpo(config: AlgorithmConfig, max_new_tokens: int) -> Algorithm:
    return GRPO(
        group_size=config.group_size,
        clip=config.clip,
        kl_coef=config.kl_coef,
        std_normalize=config.std_normalize,
        length_scale=None if config.length_normalize else max_new_tokens,
    )


def _ppo(config: AlgorithmConfig, _: int) -> Algorithm:
    return PPO(
        clip=config.clip,
        kl_coef=config.kl_coef,
        gae_gamma=config.gae_gamma,
        gae_lambda=config.gae_lambda,
        value_clip=config.value_clip,
    )


ALGORITHMS: dict[str, Callable[[AlgorithmConfig, int], Algorithm]] = {
    "astar_po": _astar_po,
    "grpo": _grpo,
    "ppo": _ppo,
    "rebel": lambda config, _: REBEL(eta=config.eta, kl_coef=config.kl_coef),
    "rloo": lambda config, _: RLOO(config.group_size, config.kl_coef),
    "spo": lambda config, _: SPO(config.clip, config.clip_high),
}
"""From settings, and the limit of a response in tokens."""
