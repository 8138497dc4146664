"""Templates escape what goes into them."""

import re
from importlib import resources

import pytest
from jinja2 import UndefinedError

from astarpo.reports.overview import setting_tables, stage1_groups
from astarpo.reports.page import _has_formula, content_hash, plural, render, show

PAGE = {
    "made": "", "tables": [], "remarks": [], "pictures": [], "run_heads": [], "runs": [],
    "variants": [], "differing": [], "shared": [],
}  # fmt: skip


def test_texts_are_escaped_wherever_they_stand():
    text = "</title><b a='1' b=\"2\">&amp;\x00\x1b\ud800\u202e\u3000\n"
    page = render("experiment.html", **PAGE | {"title": text, "remarks": [text]})
    safe = "&lt;/title&gt;&lt;b a=&#39;1&#39; b=&#34;2&#34;&gt;&amp;amp;"
    safe += "\ufffd\ufffd\ufffd\ufffd\u3000\n"
    assert f"<title>{safe} · astarpo</title>" in page
    assert f"<li>{safe}</li>" in page
    page.encode("utf-8")


def test_the_policy_names_the_style_of_the_page():
    page = render("experiment.html", title="a", **PAGE)
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert f"style-src 'sha256-{content_hash(style)}'" in page
    assert "script-src" not in page


def test_a_template_without_its_values_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        render("experiment.html", **PAGE)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (float("nan"), "-"), (0, "0"), (12345, "12,345"), (12345.6, "12,346"),
     (0.123456, "0.1235"), ("finished", "finished")],
)  # fmt: skip
def test_numbers_read_well(value, text):
    assert show(value) == text


def test_nouns_agree_with_their_number():
    assert plural(1, "run") == "1 run"
    assert plural(2000, "run") == "2,000 runs"


def test_settings_that_differ_come_first():
    runs = [
        {"settings": {"Training": {"lr": "1", "seed": "0"}}},
        {"settings": {"Training": {"lr": "1", "seed": "1", "new": "x"}, "Data": {"limit": "5"}}},
    ]
    tables = setting_tables(runs)
    rows = [("seed", True, ["0", "1"]), ("new", True, ["-", "x"]), ("lr", False, ["1", "1"])]
    assert tables == {"Training": rows, "Data": [("limit", True, ["-", "5"])]}


def test_runs_that_share_stage_1_show_it_once():
    first, second = {"mean_reward": 0.5}, {"mean_reward": 0.6}
    stages = [("a", first), ("b", dict(first)), ("c", second), ("d", None)]
    runs = [{"name": name, "stage1": found} for name, found in stages]
    assert stage1_groups(runs) == [(["a", "b"], first), (["c"], second)]


def test_only_what_the_package_makes_goes_in_unescaped():
    folder = resources.files("astarpo.reports") / "assets"
    templates = [file for file in folder.iterdir() if file.name.endswith(".html")]
    assert len(templates) == 4
    found = [name for file in templates for name in re.findall(r"(\w+) \| safe", file.read_text())]
    assert sorted(found) == ["answers", "data", "script", "style"]
    assert not any("autoescape" in file.read_text() for file in templates)


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (r"so \( \frac{1}{2} \)", True), (r"\[ x \]", True), (r"is $x \le 2$", True),
        (r"\boxed{4}", True), ("it costs $5 and $6", False), (r"a \n and \( here", False),
        ("$ \\frac\n$", False), ("$\\a" * 100_000, True), ("\\(" * 100_000, False),
    ],
)  # fmt: skip
def test_texts_with_formulas_are_told(text, has):
    assert _has_formula(text) is has
