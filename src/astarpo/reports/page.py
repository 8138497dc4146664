"""Self-contained HTML pages: style, script, pictures and data in a single file.

Templates escape every text that they are given. Only four values go in unescaped (`| safe`): the
style and the script of `assets/`, and the data for the script, which are JSON and base64 without
any character that means something in HTML. The page's content security policy names its style and
its script by their hashes and allows nothing else but pictures within the page: no network, no
inline handlers, no evaluation.
"""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from astarpo.runtime.words import printable
from astarpo.values.summary import count_words

_SCRIPTS = ("dom.js", "formulas.js", "live.js", "answers.js", "problem.js", "problem_list.js")
# Linear in the text, whatever it is.
_DOLLARS = re.compile(r"\$[^$\n\\]*\\[A-Za-z][^$\n]*\$")


def render(template: str, **values: Any) -> str:
    """A page from a template of `assets/`, whose values are escaped, with the common style."""
    return _ENVIRONMENT.get_template(template).render(style=_asset("page.css"), **values)


def answer_browser(data: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, str]:
    """What a template needs for the browser of answers: `script`, `data` and `answers`.

    Args:
        data: Names of the runs and numbers of answers; becomes JSON in a script tag.
        answers: Columns of answers; becomes deflated JSON in base64, read after the first paint.
    """
    # Temml is half a page of its own: it goes along only where there may be a formula.
    texts = [*answers["text"], *filter(None, answers["questions"])]
    has_any = any(map(_has_formula, texts))
    library = _asset("temml.min.js") if has_any else "const temml = null;"
    script = "\n".join(['"use strict";', "(() => {", library, *map(_asset, _SCRIPTS), "})();"])
    # Level 6 takes nearly twice as long and saves 2%.
    packed = base64.b64encode(zlib.compress(to_json(answers).encode("ascii"), 5)).decode("ascii")
    return {"script": script, "data": to_json(data), "answers": packed}


def _has_formula(text: str) -> bool:
    """Whether `formulas.js` may show a part of a text as a formula with a command in it."""
    return "\\" in text and (
        ("\\(" in text and "\\)" in text)
        or ("\\[" in text and "\\]" in text)
        or "\\boxed{" in text
        or _DOLLARS.search(text) is not None
    )


def to_json(value: Any) -> str:
    r"""JSON that may stand in a script tag: ASCII, `<`, `>` and `&` as `\u003c` and the like."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return (resources.files("astarpo.reports") / "assets" / name).read_text(encoding="utf-8")


def content_hash(text: str) -> str:
    """The hash by which a content security policy names a style or script."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def show(value: Any, digits: int = 4) -> str:
    """A number for people, a dash where there is none; texts as they are."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "-"
    if not isinstance(value, int | float):
        return str(value)
    whole = isinstance(value, int) or abs(value) >= 10**digits
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def plural(count: int, noun: str) -> str:
    """A number with its noun: `1 run`, `2 runs`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _showable(value: Any) -> Any:
    """Text without characters that no page may hold, or that change how other text is shown."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else printable(value)


_ENVIRONMENT = Environment(
    loader=PackageLoader("astarpo.reports", "assets"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_showable,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {"show": show, "plural": plural, "content_hash": content_hash}
_ENVIRONMENT.filters["counts"] = count_words
