"""The version of this package."""

import importlib.metadata


def package_version() -> str:
    """The version of this package, for the record in artefacts."""
    return importlib.metadata.version("astarpo")
