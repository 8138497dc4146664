"""Which algorithm settings ask for: one that ships, another package's, or one given in Python.

A package of its own adds one by an entry point, whose name is then the algorithm's:

    [project.entry-points."astarpo.algorithms"]
    reinforce = "my_package.losses:Reinforce"

A class whose `__init__` takes a setting of `astarpo train` by its name, such as `kl_coef`, gets
that setting's value. Settings of other algorithms that it does not take are refused.
"""

import inspect
from typing import Any

from astarpo.algorithms import ALGORITHMS
from astarpo.algorithms.base import Algorithm
from astarpo.config import TrainConfig
from astarpo.config.setting import ALGORITHM_NAMES
from astarpo.config.train import ALGORITHM_PLUGINS, TRAIN_SETTINGS, readers
from astarpo.runtime.code import code_digest
from astarpo.runtime.given import given
from astarpo.runtime.plugins import load_plugin
from astarpo.types import UserError


def make_algorithm(config: TrainConfig, max_new_tokens: int) -> Algorithm:
    """The algorithm that settings ask for.

    Args:
        config: Its `algorithm`, and what that reads.
        max_new_tokens: The limit of a response in tokens.

    Raises:
        UserError: An algorithm of the user's cannot be made, or does not read a setting that is
            given.
    """
    if config.algorithm in ALGORITHMS:
        return ALGORITHMS[config.algorithm](config, max_new_tokens)
    own = _own(config.algorithm)
    algorithm = _made(own, config) if isinstance(own, type) else own
    _refuse_unread(own, algorithm, config)
    return algorithm


def needs_table(config: TrainConfig, max_new_tokens: int) -> bool:
    """Whether training cannot do without a value table: its loss reads V*, or a filter the samples.

    Arguments and errors as in `make_algorithm`.
    """
    return make_algorithm(config, max_new_tokens).needs_values or config.filter != "none"


def algorithm_version(config: TrainConfig) -> str | None:
    """Digest of the code of an algorithm of the user's; None of one that ships."""
    return None if config.algorithm in ALGORITHMS else code_digest(_own(config.algorithm))


def reads(algorithm: str, name: str) -> bool:
    """Whether an algorithm reads a setting, given the names of both.

    Raises:
        UserError: The algorithm is of another package, and cannot be loaded or is none.
    """
    of_losses = readers(name)
    if of_losses == ALGORITHM_NAMES or algorithm in ALGORITHMS:
        return of_losses == ALGORITHM_NAMES or algorithm in of_losses
    return name in _own_reads(_own(algorithm))


def _own(name: str) -> Any:
    """A class or an instance of the user's."""
    own = _found(name)
    if not issubclass(own if isinstance(own, type) else type(own), Algorithm):
        raise UserError(
            f"algorithm {name}: is no astarpo.algorithms.base.Algorithm: derive it from that class"
        )
    return own


def _found(name: str) -> Any:
    if found := given(name):
        return found.value
    if ":" in name:
        raise UserError(
            f"algorithm {name}: was given in Python: give it again there, to astarpo.train, or "
            f"register it in a package of yours as an entry point of the group {ALGORITHM_PLUGINS}"
        )
    return load_plugin(ALGORITHM_PLUGINS, name)


def _made(kind: type, config: TrainConfig) -> Any:
    try:
        return kind(**{name: getattr(config, name) for name in _taken(kind)})
    except Exception as error:  # whatever the user's class raises
        raise UserError(
            f"algorithm {config.algorithm}: cannot be made of the settings that it takes by name "
            f"({error}); give astarpo.train an instance instead"
        ) from error


def _taken(kind: type) -> list[str]:
    """The settings that a class takes, by their names."""
    return [name for name in inspect.signature(kind).parameters if name in TRAIN_SETTINGS]


def _own_reads(own: Any) -> set[str]:
    """The settings of some algorithms that one of the user's reads, be it a class or made of it."""
    found = set(_taken(own) if isinstance(own, type) else [])
    if own.needs_values:
        found |= {"beta1", "estimator"}  # by which its V* are estimated
    if own.needs_critic:
        found |= {"critic_lr", "critic_warmup_steps"}
    return found


def _refuse_unread(own: Any, algorithm: Algorithm, config: TrainConfig) -> None:
    """Refuses a setting of some algorithms that this one does not read."""
    known = _own_reads(algorithm) | (_own_reads(own) if isinstance(own, type) else set())
    changed = config.model_dump(exclude_defaults=True).keys() & config.model_fields_set
    of_some = {name for name in changed if readers(name) != ALGORITHM_NAMES}
    if unread := sorted(of_some - known):
        raise UserError(
            f"{unread[0]}: {config.algorithm} does not read it: leave it out, or let its __init__ "
            f"take {unread[0]}"
        )
