"""Finding Ray and joining a cluster; why it cannot be, in one line."""

import importlib
import importlib.util
import logging
import os
import socket
from typing import Any

from astarpo.models.agreement import describe_error
from astarpo.types import UserError

_CONNECT_LIMIT_S = 10.0


def require_ray() -> None:
    """Refuses to go on without Ray; imports nothing."""
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "--ray: Ray is not installed; pip install 'astarpo[ray]', or share the work out by "
            "--part, which needs no Ray"
        )


def join(address: str) -> tuple[Any, bool]:
    """Joins a cluster, unless this process has done so before.

    Args:
        address: As in the setting `ray`.

    Returns:
        The module `ray`, and whether it is this call that joined and so should leave again.

    Raises:
        UserError: There is no Ray, or no cluster.
    """
    require_ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        return ray, False
    local = {"include_dashboard": False} if address == "local" else {}
    try:
        _require_answer(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **local)
    except Exception as error:  # Ray has many kinds.
        reason = describe_error(error)
        if address == "auto" and not os.environ.get("RAY_ADDRESS"):
            reason = "RAY_ADDRESS is not set, and none runs on this machine"
        raise UserError(
            f"--ray {address}: no Ray cluster can be joined ({reason}): start one with ray start "
            "--head, name one as --ray HOST:6379 or by RAY_ADDRESS (with RAY_AUTH_MODE=token if it "
            "has a token), or give --ray local for this machine alone"
        ) from error
    return ray, True


def _require_answer(address: str | None) -> None:
    """Tries the machine of an address, since Ray itself would try for minutes."""
    given = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address or ""
    host, _, port = given.rpartition(":")
    if port.isdigit():
        with socket.create_connection((host.rpartition("/")[2], int(port)), _CONNECT_LIMIT_S):
            pass
