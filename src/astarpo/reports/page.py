"""One self-contained HTML page: template, styles, scripts and data in a single file.

What models and files say goes in as data and is only ever set as text. The page's content security
policy names its own script and style by their hashes and allows nothing else: no network, no
inline handlers, no evaluation.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

_SCRIPTS = ("dom.js", "overview.js", "charts.js", "stage1.js", "answers.js")


def render_page(title: str, data: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """The page as text; whatever came from a run is ASCII in it.

    Args:
        title: Of the browser's tab.
        data: All but the answers; becomes JSON in a script tag.
        answers: Columns of answers; becomes deflated JSON in base64, read after the first paint.
    """
    style = asset("page.css")
    script = "\n".join(['"use strict";', "(() => {", *map(asset, _SCRIPTS), "main();", "})();"])
    packed = base64.b64encode(zlib.compress(to_json(answers).encode("ascii"), 6)).decode("ascii")
    return Template(asset("page.html")).substitute(
        title=escape(title),
        style=style,
        script=script,
        style_hash=content_hash(style),
        script_hash=content_hash(script),
        data=to_json(data),
        answers=packed,
    )


def to_json(value: Any) -> str:
    r"""JSON that may stand in a script tag: ASCII, `<`, `>` and `&` as `\u003c` and the like."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def asset(name: str) -> str:
    """A file of `assets/`."""
    return (resources.files("astarpo.reports") / "assets" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """As a content security policy names a style or script."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def escape(text: str) -> str:
    """Text as it may stand in HTML, also in an attribute in double quotes."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text.encode("utf-8", "replace").decode("utf-8")
