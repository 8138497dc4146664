"""The verb `recipes`: what recipes there are, and what is in one."""

from pathlib import Path

from astarpo.config import RecipesConfig
from astarpo.config.documents import find_recipe, read_document, shipped_recipes


def recipes(config: RecipesConfig) -> str:
    """The shipped recipes with a line on each, or the text of one.

    Raises:
        UserError: There is no such recipe, or it cannot be read.
    """
    return "\n".join(prepare(config))


def prepare(config: RecipesConfig) -> list[str]:
    """The lines that `recipes` returns."""
    if config.name is not None:
        path = find_recipe(config.name)
        read_document(path)  # Only what can be used is shown.
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    shipped = shipped_recipes()
    width = max(map(len, shipped))
    return [f"{name:<{width}}  {purpose(path)}" for name, path in shipped.items()]


def preview(config: RecipesConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    return [f"{len(prepare(config))} lines"]


def purpose(path: Path) -> str:
    """The first sentence of the comment that a recipe opens with."""
    comment = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    first, stop, _ = " ".join(comment).partition(". ")
    return first + "." * bool(stop)
