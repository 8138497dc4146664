"""The README as PyPI shows it, which knows nothing of files beside it.

Relative links and pictures get the repository's address, `Repository` in `[project.urls]` of
pyproject.toml, and the version's tag. Without that address links become their text and pictures
are left out, so that nothing on the page is broken.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Gives the package its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by the build with what pyproject.toml says; adds the field `readme`."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        repository = metadata.get("urls", {}).get("Repository", "")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": standalone(text, repository.rstrip("/"), f"v{metadata['version']}"),
        }


def standalone(markdown: str, repository: str, tag: str) -> str:
    """Makes relative links absolute, or text where the repository is not known.

    Args:
        markdown: The README.
        repository: Its address, such as https://github.com/someone/astarpo; empty if unknown.
        tag: The tag or branch that the links lead to.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        if not repository:
            return "" if image else label
        kind = "raw" if image else "blob"  # both are paths of GitHub's, GitLab redirects them
        return f"{image}[{label}]({repository}/{kind}/{tag}/{target})"

    return _LINK.sub(replace, markdown)
