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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation
from mkdocs.structure.pages import Page
from pydantic.fields import FieldInfo

from astarpo.config import VERBS
from astarpo.config.setting import ALGORITHM_NAMES, Group, Setting, setting_of

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COPIES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
COPIES["CHANGELOG.md"] = "changelog.md"
"""Files of the repository that are pages of the site."""
GENERATED = {*COPIES.values(), "settings.md"}
"""Pages that are not files in `docs/`."""

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
    text = next((part for part in paragraphs if re.match(r"[A-Za-z*`]", part)), "")
    sentence = re.split(r"(?<=[.:])\s", text, maxsplit=1)[0]
    return (title[1] if title else path), sentence


def settings_page() -> str:
    """Every setting of every verb, under the headings of `--help`."""
    lines = [
        "# Settings by theme",
        "",
        "Every setting of every verb, made of the declarations that the command line and config "
        "files go by. A setting is a flag (`--max-new-tokens 512`), a key of a recipe or a config "
        "file (`max_new_tokens = 512`) and a keyword in Python (`max_new_tokens=512`).",
        "",
        "- **on resume** says what `astarpo train --resume` may be given anew: *free* settings "
        "change how far or how fast, not what is computed; *steering* ones help a run that goes "
        "wrong, are allowed and recorded; *length* is free at a constant learning rate and "
        "steering otherwise; all others are fixed.",
        "- A setting that only some algorithms read is refused if the chosen one does not.",
        "",
    ]
    for group in Group:
        rows = list(_rows(group))
        if rows:
            lines += [f"## {group[0].upper()}{group[1:]}", "", *table(rows), ""]
    return "\n".join(lines)


def algorithm_table(name: str) -> str:
    """The settings that an algorithm reads and not all others do."""
    rows = []
    for key, field in VERBS["train"].model_fields.items():
        setting = setting_of(field)
        if name in setting.readers and setting.readers != ALGORITHM_NAMES:
            rows.append((key, field, setting, ["train"]))
    return "\n".join(table(rows))


Row = tuple[str, FieldInfo, Setting, list[str]]


def _rows(group: Group) -> Iterator[Row]:
    """The settings of a group; what verbs declare alike is one row."""
    found: dict[tuple[str, str, str, str], Row] = {}
    for verb, config_class in VERBS.items():
        for name, field in config_class.model_fields.items():
            setting = setting_of(field)
            if setting.group == group:
                alike = (name, str(field.description), default(field), values(field))
                found.setdefault(alike, (name, field, setting, []))[3].append(verb)
    yield from sorted(found.values(), key=lambda row: row[0])


def table(rows: list[Row]) -> list[str]:
    """Markdown of some settings."""
    lines = ["| setting | default | values | verbs | on resume |  |", "|-|-|-|-|-|-|"]
    for name, field, setting, verbs in rows:
        read = "" if setting.readers == ALGORITHM_NAMES else f" ({', '.join(setting.readers)})"
        resume = setting.on_resume if "train" in verbs and setting.on_resume != "fixed" else ""
        text = " ".join(str(field.description).split()).replace("|", "\\|")
        cells = [f"`{name}`", default(field), values(field), ", ".join(verbs) + read, resume, text]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def default(field: FieldInfo) -> str:
    """A setting's default as a recipe would write it."""
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    if isinstance(field.default, bool):
        return "on" if field.default else "off"
    return f"`{field.default}`"


def values(field: FieldInfo) -> str:
    """What values a setting may have: its choices, or its type and bounds."""
    kinds = (field.annotation, *get_args(field.annotation))
    for kind in kinds:
        if get_origin(kind) is Literal:
            return ", ".join(f"`{choice}`" for choice in get_args(kind))
    names = {int: "whole number", float: "number", bool: "on or off", Path: "path", str: "text"}
    words = next((names[kind] for kind in kinds if kind in names), "")
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [
        f"{sign} {getattr(bound, name):g}"
        for bound in field.metadata
        if isinstance(bound, annotated_types.BaseMetadata)
        for name, sign in signs.items()
        if hasattr(bound, name)
    ]
    return " ".join([words, " and ".join(bounds)]).strip()
