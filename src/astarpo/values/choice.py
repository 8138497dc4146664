"""Which estimator of V* settings ask for."""

from collections.abc import Mapping
from typing import Any

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
