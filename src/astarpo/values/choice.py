"""Which estimator of V* settings ask for."""

import re
from collections.abc import Mapping
from typing import Any

from astarpo.types import UserError
from astarpo.values.controls import Constant, Zero
from astarpo.values.estimators import Estimator, Plugin
from astarpo.values.shrinkage import Shrunk

ESTIMATORS: dict[str, type[Plugin] | type[Shrunk] | type[Zero] | type[Constant]] = {
    "plugin": Plugin,
    "shrunk": Shrunk,
    "zero": Zero,
    "constant": Constant,
}


def estimator_of(settings: Mapping[str, Any]) -> Estimator:
    """The estimator that settings ask for, be they a config's or those of a run's `config.json`.

    Args:
        settings: `beta1` is read, and `estimator`, which version 0.1.0 did not have.
    """
    return ESTIMATORS[settings.get("estimator") or "plugin"](float(settings["beta1"]))


def estimator_named(text: str) -> Estimator:
    """The estimator whose text stands beside values that it made, such as `Plugin(beta1=0.5)`.

    Raises:
        UserError: It is none that ships.
    """
    kinds = {kind.__name__: kind for kind in ESTIMATORS.values()}
    found = re.fullmatch(r"(\w+)\(beta1=([\d.e+-]+|inf)\)", text)
    if found is None or found[1] not in kinds:
        raise UserError(f"{text}: an estimator of your own: give it to values(), as estimator=")
    return kinds[found[1]](float(found[2]))
