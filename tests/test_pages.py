"""The pages are complete: every verb, setting, algorithm and table of a recipe has its place."""

import re
import tomllib
from pathlib import Path

import astarpo
from astarpo.config import VERBS
from astarpo.config.documents import TABLES
from astarpo.config.setting import ALGORITHM_NAMES, Group
from tools.settings_page import algorithm_table, settings_page

ROOT = Path(__file__).parents[1]


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_settings_are_all_on_their_page():
    page = settings_page()
    for verb, config_class in VERBS.items():
        for name, field in config_class.model_fields.items():
            text = " ".join(str(field.description).split()).replace("|", "\\|")
            rows = [line for line in page.splitlines() if f"| `{name}` | {text} |" in line]
            verbs = [re.split(r"(?<!\\)\|", row)[5] for row in rows]
            assert any(verb in re.findall(r"[\w-]+", cell) for cell in verbs), (verb, name)
    assert all(f"## {group[0].upper()}{group[1:]}" in page for group in Group)


def test_a_settings_row_says_all_that_is_declared():
    row = next(line for line in settings_page().splitlines() if "| `1e-06` |" in line)
    assert row == "| `lr` | Peak learning rate. | `1e-06` | number > 0 | train | steering |"
    assert [line.split("|")[1].strip() for line in algorithm_table("rebel").splitlines()[2:]] == [
        "`kl_coef`",
        "`eta`",
    ]


def test_every_algorithm_has_a_page():
    index = (ROOT / "docs" / "algorithms" / "index.md").read_text()
    site = (ROOT / "mkdocs.yml").read_text()
    for name in ALGORITHM_NAMES:
        page = (ROOT / "docs" / "algorithms" / f"{name}.md").read_text()
        assert f"<!-- settings: {name} -->" in page
        assert f"({name}.md)" in index
        assert f"algorithms/{name}.md" in site


def test_every_table_of_a_recipe_is_explained():
    text = (ROOT / "docs" / "recipes.md").read_text()
    stages = {"data", "warm-start", "estimate", "train", "evaluate"}
    for table in stages | (TABLES.keys() - VERBS.keys() - set(ALGORITHM_NAMES)):
        assert f"`[{table}]`" in text or f"`[{table}.NAME]`" in text, table
    for recipe in (ROOT / "src" / "astarpo" / "recipes").glob("*.toml"):
        assert f"`{recipe.stem}`" in text, recipe.stem


def test_every_verb_has_a_row():
    text = (ROOT / "docs" / "verbs.md").read_text()
    for verb in VERBS:
        assert re.search(rf"^\| `astarpo {verb}[ `]", text, re.MULTILINE), verb


def test_every_page_is_in_the_sites_navigation():
    site = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f" {page.relative_to(ROOT / 'docs')}\n" in site, page


def test_the_reference_has_the_packages_functions():
    assert "::: astarpo\n" in (ROOT / "docs" / "api" / "index.md").read_text()
    assert all(getattr(astarpo, name) is not None for name in astarpo.__all__)


def test_the_recipe_of_one_gpu_says_that_it_was_not_run():
    text = (ROOT / "src" / "astarpo" / "recipes" / "gsm8k-16gb.toml").read_text()
    assert "NOT YET RUN" in text
    train = tomllib.loads(text)["train"]
    assert (train["lora_rank"], train["lora_alpha"], train["lr"]) == (32, 32, 1e-5)
