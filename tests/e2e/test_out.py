"""Where verbs may write: every verb against every place that will not do, before any work."""

import json
import os
import shutil
import time

import pyarrow.parquet as pq
import pytest

from astarpo.cli import main

FILES = {
    "data": "data multiply --limit 3",
    "evaluate": "evaluate --model policy --problems digits.parquet --max-new-tokens 4 --samples 0",
    "suite": "evaluate --model policy --suite paper --benchmarks aime24 --suite-sources bench",
    "export": "export values --problems digits.parquet",
    "report": "report started",
}
FOLDERS = {
    "estimate": "estimate --model policy --problems digits.parquet",
    "train": "train --model policy --problems digits.parquet --algorithm rloo",
    "warm-start": "warm-start --problems digits.parquet",
    "import-values": "import-values --model policy --source published.parquet",
    "run": "run recipe.toml",
    "demo": "demo",
    "compare": "compare --seeds 0",
    "sweep": "sweep beta1 --seeds 0",
}
ENDINGS = {"data": ".parquet", "export": ".parquet", "report": ".html"}

NOWHERE = {
    "notes.txt/{name}": "is not a folder",
    "/proc/{name}": "cannot be written",
    "/proc/nowhere/{name}": "cannot be written",
    "dangling/{name}": "cannot be written",
    "{long}{name}": "cannot be written",
    "link{ending}": "is a link to nothing",
}
NO_FILE = {".": "", "taken{ending}": "is a folder"}
NO_FOLDER = {".": "exists", "notes.txt": "is a file", "taken": "exists", "policy": ""}


@pytest.fixture
def here(tmp_path, monkeypatch, policy_path, problems_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "policy").symlink_to(policy_path)
    shutil.copy(problems_path, tmp_path / "digits.parquet")
    (tmp_path / "values").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "aime24.jsonl").write_text('{"problem": "q", "answer": "025"}\n')
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "config.json").write_text('{"algorithm": "astar_po", "values": "v"}')
    for ending in ("", ".json", ".parquet", ".html"):
        (tmp_path / f"taken{ending}").mkdir()
        (tmp_path / f"taken{ending}" / "notes.txt").write_text("mine")
        (tmp_path / f"link{ending}").symlink_to("gone")
    rows = pq.read_table(problems_path)
    pq.write_table(rows.append_column("response_0", rows["ability"]), "published.parquet")
    (tmp_path / "recipe.toml").write_text(
        'model = "policy"\n[data]\ntask = "multiply"\nlimit = 9\n'
    )
    return tmp_path


def contents(folder) -> dict[str, bytes]:
    found = {}
    for place, _, names in os.walk(folder):
        found[place] = b""
        for name in names:
            path = os.path.join(place, name)
            found[path] = open(path, "rb").read() if os.path.isfile(path) else b"link"  # noqa: SIM115
    return found


def refused(words: str, capsys) -> str:
    started = time.monotonic()
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("astarpo: ")
    assert error.count("\n") == 1
    assert time.monotonic() - started < 20
    return error


@pytest.mark.parametrize("verb", FILES | FOLDERS)
def test_places_that_will_not_do(verb, here, capsys):
    ending = ENDINGS.get(verb, ".json") if verb in FILES else ""
    before = contents(here)
    for place, says in (NOWHERE | (NO_FILE if verb in FILES else NO_FOLDER)).items():
        out = place.format(name=f"new{ending}", long="x" * 300, ending=ending)
        for dry in ("", " --dry-run"):
            error = refused(f"{(FILES | FOLDERS)[verb]} --out {out}{dry}", capsys)
            assert says in error
            assert out in error
    assert contents(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
@pytest.mark.parametrize("verb", FILES | FOLDERS)
def test_closed_folders(verb, here, capsys):
    (here / "closed").mkdir(mode=0o500)
    out = f"closed/new{ENDINGS.get(verb, '.json') if verb in FILES else ''}"
    assert "cannot be written" in refused(f"{(FILES | FOLDERS)[verb]} --out {out}", capsys)


@pytest.mark.parametrize("verb", FILES)
def test_a_file_is_replaced_only_if_it_is_asked_for(verb, here, table_path, capsys):
    """What the message says to do is done: another --out, and --overwrite."""
    ending = ENDINGS.get(verb, ".json")
    (here / f"mine{ending}").write_text("mine")
    shutil.copytree(table_path, here / "values", dirs_exist_ok=True)
    error = refused(f"{FILES[verb]} --out mine{ending}", capsys)
    assert "exists" in error
    assert (here / f"mine{ending}").read_text() == "mine"
    assert main(f"{FILES[verb]} --out another{ending}".split()) == 0
    assert main(f"{FILES[verb]} --out mine{ending} --overwrite".split()) == 0
    assert (here / f"mine{ending}").read_bytes()[:4] != b"mine"


INPUTS = {
    "data own --source digits.parquet --out digits.parquet --overwrite": "digits.parquet",
    "data own --source digits.parquet --out ./values/../digits.parquet --overwrite": "digits",
    "data multiply --without digits.parquet --out digits.parquet --overwrite": "digits.parquet",
    "evaluate --model policy --problems test.parquet --out test.json": "test.parquet",
    "evaluate --model policy --problems test.parquet --out test.json --overwrite": "test.parquet",
    "export values --problems digits.parquet --out digits.parquet --overwrite": "digits.parquet",
    "export values --problems digits.parquet --out values/values.parquet --overwrite": "values",
    "evaluate --model copy --problems digits.parquet --out copy/generation_config.json "
    "--overwrite": "copy",
    "evaluate --model policy --suite paper --benchmarks aime24 --suite-sources answers "
    "--out answers.json --overwrite": "answers/aime24.parquet",
    "estimate --model policy --problems digits.parquet --out policy": "policy",
    "train --model values --problems digits.parquet --algorithm rloo --out values": "values",
    "report started --out started/config.json --overwrite": "ends in .html",
}


@pytest.mark.parametrize(("words", "says"), INPUTS.items())
def test_no_input_is_written_over(words, says, here, capsys):
    shutil.copy("digits.parquet", "test.parquet")
    (here / "answers").mkdir()
    shutil.copy("digits.parquet", here / "answers" / "aime24.parquet")
    (here / "values" / "values.parquet").write_text("mine")
    shutil.copytree("policy", "copy")
    before = contents(here)
    error = refused(words, capsys)
    assert says in error
    assert "ends in" in error or "an input of this call" in error
    assert contents(here) == before


def test_answers_beside_the_scores_are_not_replaced_either(here, capsys):
    shutil.copy("digits.parquet", "scores.parquet")
    words = f"{FILES['evaluate']} --out scores.json"
    assert "scores.parquet: exists already" in refused(words, capsys)
    assert main(f"{words} --overwrite".split()) == 0
    assert json.loads((here / "scores.json").read_text())["num_problems"] == 24
    (here / "scores.json").unlink()  # as a kill between both files leaves them
    assert main(words.split()) == 0
    assert (here / "scores.json").exists()
