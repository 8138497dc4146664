"""What README and docs name is there, and what they tell to type works.

Every command of a page runs as it stands with `--dry-run` behind it, in a folder that holds what
the pages speak of: models, problems, a value table, a run. Python that imports the package is
executed.
"""

import ast
import importlib.util
import json
import re
import shlex
import shutil
from itertools import islice, tee
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from astarpo.cli import main, parse
from astarpo.config import VERBS
from astarpo.config.base import find_shipped
from astarpo.tasks.countdown import Countdown
from astarpo.tasks.made import MadeTask
from astarpo.tasks.problem_set import write_problems
from astarpo.types import Problem

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = {page: str(page.relative_to(ROOT)) for page in PAGES}

PARSED = {
    "--suite paper": "its benchmarks are on the hub alone",
    "--ray auto": "Ray is not among what the tests need",
    "astarpo train --config mine.toml": "its value table has 512 tokens an answer: too slow here",
}
"""Commands that are checked without their inputs, and why."""

SHORTER = {
    "problems=problems, samples=4": "problems=problems, samples=4, max_new_tokens=24, "
    "allow_truncated=True",
    "steps=100": "steps=1, prompts_per_step=8",
    "problems=held_out, samples=4": "problems=held_out, samples=4, max_new_tokens=24",
}
"""What makes of an example for a real model one for a tiny one."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)
_INLINE = re.compile(r"`(astarpo [^`]+)`")
_LINK = re.compile(r"(?<!`)\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")
_FILE = re.compile(r"(?<![\w/.])((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)\b")
_MODULE = re.compile(r"python -m ((?:astarpo|benchmarks|tests)[\w.]*)")
_GENERATED = {"docs/settings.md", "docs/contributing.md", "docs/changelog.md"}
"""Pages that `tools/pages.py` makes."""


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of a page's code blocks; of indented ones the language is empty."""
    text = page.read_text()
    indented = [("", block) for block in _INDENTED.findall(_FENCE.sub("", text))]
    return _FENCE.findall(text) + indented


def typed(page: Path, word: str) -> list[str]:
    """The lines of a page's blocks that begin with a word, without their comments."""
    lines = []
    for language, block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if language != "python" and command.split()[:1] == [word]:
                lines.append(" ".join(command.split()) if "'" not in command else command)
    return lines


def is_synopsis(command: str) -> bool:
    """Whether a command has placeholders: brackets, dots, words in capitals."""
    return "[" in command or "..." in command or re.search(r" [A-Z]+\b(?!/)", command) is not None


COMMANDS = {
    line.removesuffix(" --dry-run"): page for page in PAGES for line in typed(page, "astarpo")
}
PYTHON = {
    ast.unparse(ast.parse(text)): page  # without comments, so that each example runs once
    for page in PAGES
    if page.name != "CONTRIBUTING.md"  # tests/test_contributing.py runs its examples
    for language, text in blocks(page)
    if language == "python" and "import astarpo" in text
}


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    for link in _LINK.findall(_FENCE.sub("", text)):
        target = (page.parent / link).resolve()
        assert target.exists() or str(target.relative_to(ROOT)) in _GENERATED, link
    for name in _FILE.findall(text):
        places = [ROOT / name, ROOT / "src" / "astarpo" / name]
        assert any(place.exists() for place in places), name
    for module in _MODULE.findall(text):
        assert importlib.util.find_spec(module), module
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for line in typed(page, "make"):
        assert line.split()[1] in targets, line


@pytest.fixture(scope="module")
def world(tmp_path_factory, policy_path, problems_path, table_path, train_words):
    """A folder with everything that the pages' commands read."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "Qwen").mkdir()
    for name in ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-7B", "Qwen/Qwen3-0.6B-Base"):
        (folder / name).symlink_to(policy_path)
    (folder / "policy").symlink_to(find_shipped("shipped:sums"))
    (folder / "train.parquet").symlink_to(problems_path)
    (folder / "values").symlink_to(table_path)
    write_problems(folder / "test.parquet", [_test_problem(i) for i in range(8)])
    run = [*map(str, train_words), "--steps", "2", "--out", str(folder / "runs" / "gsm8k")]
    assert main(run) == 0
    for name in ("a", "b"):
        (folder / "runs" / name).symlink_to(folder / "runs" / "gsm8k")
    (folder / "runs" / "countdown").symlink_to(find_shipped("shipped:sums"))
    made = Countdown().problems(source=None, split="train", size=3, seed=1)
    write_problems(folder / "runs" / "countdown-warm.parquet", islice(made, 8))
    _write_sources(folder)
    return folder


def _test_problem(number: int) -> Problem:
    return Problem(
        id=f"digits/test/{number}",
        data_source="gsm8k",
        prompt=({"role": "user", "content": f"Another item {number}:"},),
        ground_truth=str(number % 3),
        extra={"split": "test", "index": number},
    )


def _write_sources(folder: Path) -> None:
    """Problems as their authors publish them, as on the hub and on disk; and recipes."""
    recipe = next(text for kind, text in blocks(ROOT / "docs" / "recipes.md") if kind == "toml")
    (folder / "mine.toml").write_text(recipe)
    compare = (ROOT / "src" / "astarpo" / "recipes" / "compare.toml").read_text()
    variant = '\n[variants.mean]\nalgorithm = "astar_po"\nbeta1 = "inf"\neval_every = 4\n'
    (folder / "mean.toml").write_text(compare + variant)
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(64)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gsm8k = [row | {"answer": f"So #### {row['answer']}"} for row in rows]
    math = [{"problem": f"Find ${i}$.", "solution": f"It is $\\boxed{{{i}}}$."} for i in range(64)]
    for place, every in (("openai/gsm8k", gsm8k), ("gsm8k", gsm8k), ("math", math)):
        (folder / place).mkdir(parents=True)
        for split, part in (("train", every[:48]), ("test", every[48:])):
            text = "\n".join(map(json.dumps, part))
            (folder / place / f"{split}.jsonl").write_text(text)
    # The data set's folder stands for the hub's copy.
    (folder / "openai" / "gsm8k" / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
    )


@pytest.fixture(scope="module")
def problems_once():
    """Made problems are made once for all commands: a dozen of them ask for the same 2048 sums."""
    made, original = {}, MadeTask.problems

    def problems(self, *, source, split, size, seed):
        key = (self.name, split, size, seed)
        fresh = made.get(key) or original(self, source=source, split=split, size=size, seed=seed)
        made[key], copy = tee(fresh)
        return copy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MadeTask, "problems", problems)
        yield


@pytest.fixture
def here(world, monkeypatch, tmp_path):
    """The working directory: a copy of the world, made of links, that knows no network."""
    folder = tmp_path / "here"
    for path in world.rglob("*"):
        if path.is_file() or path.is_symlink():
            link = folder / path.relative_to(world)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda line: f"{NAMES[COMMANDS[line]]}-{line}")
@pytest.mark.usefixtures("problems_once")
def test_a_command_is_understood_and_its_inputs_fit(command, here, capsys):
    if is_synopsis(command):
        return _understand(command)
    words = shlex.split(command)[1:]
    if any(part in command for part in PARSED):
        assert parse(words)
        return None
    if "--out" in words:  # What an earlier command of the page made, or would make.
        out = here / words[words.index("--out") + 1]
        (shutil.rmtree if out.is_dir() and not out.is_symlink() else _unlink)(out)
    assert main([*words, "--dry-run"]) == 0, capsys.readouterr().err
    return None


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_commands_within_sentences_name_verbs_and_flags(page):
    for command in _INLINE.findall(page.read_text()):
        _understand(command)


@pytest.mark.parametrize("page", PAGES, ids=NAMES.get)
def test_a_flag_that_stands_alone_is_there(page):
    known = set().union(*map(_flags, VERBS))
    for benchmark in (ROOT / "benchmarks").glob("*.py"):
        known |= set(re.findall(r'"(--[a-z-]+)"', benchmark.read_text()))
    for flag in re.findall(r"`(--[a-z][a-z0-9-]*)", page.read_text()):
        assert flag in known, flag


def _flags(verb: str) -> set[str]:
    flags = {f"--{name.replace('_', '-')}" for name in VERBS[verb].model_fields}
    flags |= {flag.replace("--", "--no-", 1) for flag in flags}
    return flags | {"--config", "--dry-run", "--help"}


def _understand(command: str) -> None:
    """Checks a command with placeholders: its verb, and the names of its flags."""
    verb = command.split()[1]
    if verb in ("VERB", "--version"):
        return
    assert verb in VERBS, command
    for flag in re.findall(r"(?<!\S)\[?(--[a-z][a-z0-9-]*)", command):
        assert flag in _flags(verb), command


@pytest.mark.parametrize("text", PYTHON, ids=lambda text: NAMES[PYTHON[text]])
@pytest.mark.usefixtures("here")
def test_python_of_a_page_runs(text):
    page = str(PYTHON[text])
    for words, shorter in SHORTER.items():
        text = text.replace(words, shorter)
    exec(compile(text, page, "exec"), {"__name__": "example"})
