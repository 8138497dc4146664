"""What other packages add by entry points: tasks and algorithms, without a change of this one.

They are code that the user has installed. Nothing is imported before its name is asked for.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from astarpo.types import UserError


def plugin_names(group: str) -> tuple[str, ...]:
    """The names that installed packages have put into a group of entry points, in order."""
    return tuple(sorted(_plugins(group)))


def load_plugin(group: str, name: str) -> Any:
    """Imports what a name of a group stands for.

    Raises:
        UserError: The package that has it cannot be imported.
    """
    plugin = _plugins(group)[name]
    try:
        return plugin.load()
    except Exception as error:  # whatever the other package raises
        package = plugin.dist.name if plugin.dist else plugin.value
        raise UserError(
            f"{name}: the package {package} adds it, and cannot be loaded ({error!r}): mend or "
            f"uninstall {package}"
        ) from error


@cache
def _plugins(group: str) -> dict[str, EntryPoint]:
    return {plugin.name: plugin for plugin in entry_points(group=group)}
