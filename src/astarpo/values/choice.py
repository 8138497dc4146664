"""Which estimator of V* settings ask for."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astarpo.config import Config
from astarpo.types import UserError
from astarpo.values.controls import Constant, Zero
from astarpo.values.derived import written_estimator
from astarpo.values.estimators import Estimator, Plugin
from astarpo.values.shrinkage import Shrunk

logger = logging.getLogger("astarpo")

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


def tell_other_estimator(config: Config, table: Path) -> None:
    """Says in the log where a config takes V* by another estimator than the table's own.

    It is a warning where the config only has the defaults: then nobody has asked for the change.

    Args:
        config: Of a verb that takes V* from a table.
        table: The table's folder.

    Raises:
        DamagedFileError: The table's values.parquet is damaged.
    """
    estimator, own = estimator_of(dict(config)), written_estimator(table)
    if own is None or own == str(estimator):
        return
    words = f"V* is by {estimator}; {table / 'values.parquet'} has it by {own}"
    if config.model_fields_set & {"beta1", "estimator"}:
        logger.info(words)
    else:
        logger.warning(f"{words}{_flags_for(own)}")


def _flags_for(text: str) -> str:
    """How a message ends about the estimator of that text; nothing of one that does not ship."""
    try:
        estimator = estimator_named(text)
    except UserError:
        return ""
    for name, kind in ESTIMATORS.items():
        if isinstance(estimator, kind):
            return f": for the same give --estimator {name} --beta1 {estimator.beta1}"
    return ""


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
