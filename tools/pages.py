"""What the site of the documentation has beside the files in `docs/`; mkdocs runs it as a hook.

- Pages made here: the home page of README.md, `contributing`, `changelog`, and `settings`, which is
  made of the declarations in `astarpo.config` and so cannot differ from them.
- `<!-- settings: NAME -->` in a page becomes the table of the settings that algorithm NAME reads,
  `<!-- recipe: NAME -->` the shipped recipe.
- Links that leave `docs/` lead to the page made of that file, else into the repository. Its address
  is `Repository` in `[project.urls]` of pyproject.toml; without one the link becomes plain text.
- `llms.txt` lists every page with its first sentence; each page is there as Markdown too.
"""

import posixpath
import re
import tomllib
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from settings_page import algorithm_table, settings_page  # beside this file, where mkdocs looks

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COPIES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
COPIES["CHANGELOG.md"] = "changelog.md"
"""Files of the repository that are pages of the site."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_MARK = re.compile(r"<!-- (settings|recipe): ([\w-]+) -->")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

_markdown: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Sets the repository's address, which the head of every page links to."""
    config.repo_url = repository()
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made here."""
    for source, target in COPIES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "settings.md", content=settings_page()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in tables of settings and turns links out of `docs/` into ones that lead somewhere."""
    path = page.file.src_uri
    source = next((name for name, copy in COPIES.items() if copy == path), f"docs/{path}")
    _markdown[path] = relink(_MARK.sub(_filled, markdown), source, path)
    return _markdown[path]


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Remembers the order of the pages."""
    config.extra["order"] = [page.file.src_uri for page in nav.pages]
    return nav


def on_post_build(config: MkDocsConfig) -> None:
    """Writes `llms.txt` and the Markdown of every page."""
    site = Path(config.site_dir)
    lines = [f"# {PROJECT['name']}", "", f"> {PROJECT['description']}", "", "## Pages", ""]
    for path in config.extra["order"]:
        (site / path).write_text(_markdown[path])
        title, sentence = summary(_markdown[path], path)
        lines.append(f"- [{title}]({path}): {sentence}")
    (site / "llms.txt").write_text("\n".join([*lines, ""]))


def _filled(mark: re.Match[str]) -> str:
    if mark[1] == "settings":
        return algorithm_table(mark[2])
    recipe = (ROOT / "src" / "astarpo" / "recipes" / f"{mark[2]}.toml").read_text()
    return f"```toml\n{recipe}```"


def repository() -> str:
    """The repository's address without a slash at its end; empty where it is not known."""
    return PROJECT.get("urls", {}).get("Repository", "").rstrip("/")


def relink(markdown: str, source: str, path: str) -> str:
    """Rewrites the relative links of a page.

    Args:
        markdown: The page.
        source: The file that it comes from, from the repository's root.
        path: Where it is in the site.
    """

    def replace(match: re.Match[str]) -> str:
        image, label, target, anchor = match.groups(default="")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = COPIES.get(there) or there.removeprefix("docs/")
        if there in COPIES or there.startswith("docs/"):
            relative = posixpath.relpath(page, posixpath.dirname(path) or ".")
            return f"{image}[{label}]({relative}{anchor})"
        if repository() and not image:
            return f"[{label}]({repository()}/blob/main/{there}{anchor})"
        return label

    return _LINK.sub(replace, markdown)


def summary(markdown: str, path: str) -> tuple[str, str]:
    """A page's title, and the first sentence of its first paragraph of words."""
    title = _TITLE.search(markdown)
    body = markdown[title.end() :] if title else markdown
    paragraphs = (" ".join(part.split()) for part in body.split("\n\n"))
    text = next((part for part in paragraphs if re.match(r"[A-Za-z*]|`(?!`)", part)), "")
    sentence = re.split(r"(?<=[.])\s", text, maxsplit=1)[0]
    return (title[1] if title else path), sentence
