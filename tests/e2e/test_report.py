"""Reports and listings of real runs, of runs cut short, and of runs full of hostile text."""

import base64
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.cli import main
from astarpo.config import ReportConfig, RunConfig, RunsConfig
from astarpo.reports.collect import collect_runs, run_names
from astarpo.reports.page import show
from astarpo.rundir.reader import open_run
from astarpo.runtime.locks import folder_lock
from astarpo.types import UserError
from astarpo.verbs.run import run_document
from tests.conftest import command

RECIPE = {
    "max_prompt_tokens": 64,
    "max_new_tokens": 24,
    "device": "cpu",
    "data": {"task": "arithmetic", "size": 2, "limit": 12},
    "test": {"limit": 8},
    "estimate": {"samples": 4, "allow_truncated": True},
    "train": {"steps": 3, "prompts_per_step": 6, "lr": 1e-4},
    "evaluate": {"samples": 2},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, policy_path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    run_document(RECIPE | {"model": str(policy_path)}, out, "recipe")
    return out


def parts(page: Path) -> tuple[dict, dict]:
    """The data of a page, as a browser would read it."""
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    data, answers, _ = scripts
    return json.loads(data), json.loads(zlib.decompress(base64.b64decode(answers)))


def collected(*paths: Path) -> list[dict]:
    """What is said of each run."""
    return collect_runs([open_run(path) for path in paths], run_names(paths))[0]


def make_report(*runs: Path, out: Path, **settings) -> tuple[dict, dict]:
    astarpo.report(ReportConfig(runs=list(runs), out=out, overwrite=True, **settings))
    data, answers = parts(out)
    assert data["runs"] == run_names(runs)
    return data | {"runs": collected(*runs)}, answers


def rows_of(page: str, label: str) -> list[list[str]]:
    """The cells of a table of the page as text, row by row, its heads first."""
    table = page.partition(f'aria-label="{label}"')[2].partition("</table>")[0]
    return [
        [
            " ".join(html.unescape(re.sub("<.*?>", "", cell)).split())
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL)
    ]


def test_a_run_ends_with_its_report(finished):
    data, answers = parts(finished / "report.html")
    (run,) = collected(finished)
    facts = dict(run["facts"])
    assert facts["State"] == "finished"
    assert facts["Steps"] == "3 of 3"
    assert run["notes"] == []
    assert run["scores"]["trained"] == {
        name: pytest.approx(score, abs=1e-5)
        for name, score in json.loads((finished / "trained.json").read_text())["scores"].items()
    }
    assert run["changes"]["pass_at_1"]["low"] <= run["changes"]["pass_at_1"]["high"]
    assert run["curves"]["step"] == [1, 2, 3]
    assert run["curves"]["tokens"] == sorted(run["curves"]["tokens"])
    assert run["stage1"]["num_samples"] == [4]
    assert sum(run["stage1"]["solve_rates"]["count"]) == 12
    counts = {kind: sum(c.values()) - c["cut"] for kind, c in run["verdicts"].items()}
    assert counts == {"stage1": 48, "training": 18, "reference": 24, "trained": 24}
    assert "weights" in run["settings"]["Fingerprint of the value table"]

    assert data["num_answers"] == data["num_shown"] == len(answers["text"]) == 114
    assert len(answers["problems"]) == 20
    assert all(question.startswith("Compute") for question in answers["questions"])
    rows = pq.read_table(finished / "train" / "samples" / "step-000002.parquet").to_pylist()
    for row in rows:
        at = [
            i
            for i, step in enumerate(answers["step"])
            if step == 2 and answers["problems"][answers["problem"][i]] == row["problem_id"]
        ]
        assert row["text"] in [answers["text"][i] for i in at]
        assert all(answers["v_star"][i] == pytest.approx(row["v_star"], abs=1e-5) for i in at)
        assert answers["truths"][answers["problem"][at[0]]] == row["ground_truth"]


def test_the_page_shows_what_is_known_of_the_run(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    (run,) = collected(finished)
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["State"] == "finished"
    assert facts["Steps"] == "3 of 3"
    assert facts["Problems, train"] == "12"
    assert facts.keys() == {label for label, value in run["facts"] if value is not None}
    assert '<ul class="notes">' not in page
    scores = {cells[0]: cells[1:] for cells in rows_of(page, "Scores")}
    for name, words in (("pass_at_1", "pass@1, greedy"), ("avg_at_2", "avg@2")):
        reference, trained, change, verdict, _ = scores[words]
        for cell, kind in ((reference, "reference"), (trained, "trained")):
            score = run["scores"][kind][name]
            assert cell == "{value:.3f} [{low:.3f}, {high:.3f}]".format(**score)
        found = run["changes"][name]
        assert change.startswith("{value:+.3f} [{low:.3f}, {high:.3f}]".format(**found))
        assert change.endswith(f"▲ {found['better']} ▼ {found['worse']}")
        assert verdict == ""  # Six updates of a random policy change nothing beyond chance.
    heads, last = rows_of(page, "Last values")
    assert heads[1:3] == ["mean reward", "KL to reference"]
    assert last[1] == show(run["curves"]["reward"][-1])
    heads, *verdicts = rows_of(page, "Verdicts by origin")
    assert [(row[0], row[-1]) for row in verdicts] == [
        ("Stage 1 (reference)", "48"), ("Training", "18"), ("Reference, evaluated", "24"),
        ("Trained, evaluated", "24"),
    ]  # fmt: skip
    counts = run["verdicts"]["training"]
    assert [int(cell.split()[0]) for cell in verdicts[1][1:-1]] == list(counts.values())
    assert ["lr", "0.0001"] in rows_of(page, "Training")
    assert "12 problems, 4 samples each, β₁ = " in page


def test_the_page_asks_nothing_of_the_network(finished):
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:; script-src 'sha256-" in page
    assert "unsafe" not in page
    code, pictures = re.subn('src="data:image/(svg\\+xml|png);base64,[A-Za-z0-9+/=]+"', "", page)
    assert pictures == 6 * 3 + 3 + 4  # curves against three axes, stage 1, by problem
    assert not re.search(r"https?://|src=|innerHTML|outerHTML|insertAdjacent|document\.write", code)
    for data in re.findall(r"svg\+xml;base64,([^\"]+)", page):
        picture = re.sub(
            "<metadata>.*?</metadata>", "", base64.b64decode(data).decode(), flags=re.S
        )
        assert not re.search(r"<script|href=\"(?!#)|url\((?!#)| on\w+=", picture)


@pytest.mark.parametrize("axis", ["step", "seconds", "tokens"])
def test_a_picture_for_each_measure_and_axis(finished, axis):
    page = (finished / "report.html").read_text(encoding="utf-8")
    alts = re.findall(rf'<img class="plot {axis}" alt="(.*?)"', page)
    names = ["mean reward", "KL to reference", "mean response length", "loss", "entropy",
             "gradient norm"]  # fmt: skip
    assert [alt.partition(":")[0] for alt in alts] == names
    (run,) = collected(finished)
    first, *_, last = run["curves"]["kl"]
    assert alts[1] == f"KL to reference: finished from {show(first)} to {show(last)}"


def test_several_runs_and_markdown(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    training = tmp_path / "train"
    shutil.copytree(finished / "train", training)
    line = astarpo.report(
        ReportConfig(runs=[finished, other, training], out=tmp_path / "r.html", markdown=True)
    )
    data, answers = parts(tmp_path / "r.html")
    assert line.startswith(f"{tmp_path / 'r.html'}: 3 runs, ")
    assert data["runs"] == ["finished", "other", "train"]
    data["runs"] = collected(finished, other, training)
    # The bare training run reads the first run's value table, which is in the page once.
    kinds = [(source["run"], source["kind"]) for source in answers["sources"]]
    assert (0, "stage1") in kinds
    assert (2, "stage1") not in kinds
    assert any("training run on its own" in note for note in data["runs"][2]["notes"])
    assert data["runs"][2]["stage1"] == data["runs"][0]["stage1"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    heads, *facts = rows_of(page, "Facts of the runs")
    assert heads == ["", "finished", "other", "train"]
    assert ["Steps", "3 of 3", "3 of 3", "3 of 3"] in facts
    assert [row[0] for row in rows_of(page, "Last values")[1:]] == heads[1:]
    assert "<h3>finished, other, train</h3>" in page
    assert "pass@1, greedy · other" in [row[0] for row in rows_of(page, "Scores")]
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "| other    | pass_at_1    |" in text
    assert (tmp_path / "r-curves.png").stat().st_size > 1000


def test_beyond_the_limit_whole_problems_are_left_out(finished, tmp_path):
    _, every = make_report(finished, out=tmp_path / "all.html")
    data, some = make_report(finished, out=tmp_path / "some.html", max_answers=40)
    assert 20 < data["num_shown"] == len(some["text"]) <= 40
    assert data["num_answers"] == 114
    for place, name in enumerate(some["problems"]):
        before = every["problem"].count(every["problems"].index(name))
        assert some["problem"].count(place) == before
    _, none = make_report(finished, out=tmp_path / "none.html", max_answers=0)
    assert none["text"] == []


def test_runs_cut_short_say_what_is_missing(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for name in ("trained.json", "trained.parquet", "train/summary.json", "summary.json"):
        (run / name).unlink()
    (run / "stages.json").write_text('{"train_data": 1, "test_data": 1, "evaluate_reference": 1,')
    with (run / "train" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "reward": NaN, "seconds": 1}\n{"step": 5, "rew')
    samples = run / "train" / "samples" / "step-000003.parquet"
    samples.write_bytes(samples.read_bytes()[:100])
    data, answers = make_report(run, out=tmp_path / "r.html")
    (found,) = data["runs"]
    notes = " ".join(found["notes"])
    assert "No trained.json" in notes
    assert "step-000003.parquet: not readable" in notes
    assert found["curves"]["reward"][-1] is None
    assert found["curves"]["step"] == [1, 2, 3, 4]
    assert max(step or 0 for step in answers["step"]) == 2

    shutil.rmtree(run / "train")
    shutil.rmtree(run / "values")
    data, answers = make_report(run, out=tmp_path / "r.html", markdown=True)
    notes = " ".join(data["runs"][0]["notes"])
    assert "No training step yet" in notes
    assert "No value table" in notes
    assert {answers["sources"][k]["kind"] for k in answers["source"]} == {"reference"}

    for file in run.iterdir():
        if file.name != "recipe.json":
            file.unlink()
    data, answers = make_report(run, out=tmp_path / "r.html", markdown=True)
    assert answers["text"] == []
    assert data["num_answers"] == 0


HOSTILE = [
    "</script><img src=x onerror=document.title='owned'>",
    "<!--<script>",
    "]]></style><script>document.title='owned'</script>",
    "null \x00 byte, escape \x1b[31m, \u2028 \u2029 \u202e \ufeff",
    "${title} $style &lt;b&gt; \\u003c {{7*7}}",
    "x" * 1_000_000,
    "",
]


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A run whose every name and text tries to break out of the page."""
    run = tmp_path / "<img src=x onerror=alert(1)>"
    (run / "samples").mkdir(parents=True)
    settings = '{"algorithm": "</script>", "values": "\\ud800", "model": "<b>\\ud83d</b>"}'
    (run / "config.json").write_text(settings)
    row = {"step": 1, "reward": 0.5, "kl": 0.0, "seconds": 1.0, "tokens": 5}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    columns = {"problem_id": HOSTILE, "text": HOSTILE, "answer": HOSTILE, "ground_truth": HOSTILE}
    rows = pa.table(
        {name: [value[:5000] if name != "text" else value for value in values]
         for name, values in columns.items()}
        | {"reward": [0.0] * len(HOSTILE), "status": ["ok"] * len(HOSTILE)}
    )  # fmt: skip
    pq.write_table(rows, run / "samples" / "step-000001.parquet")
    return run


def test_hostile_text_stays_data(hostile, tmp_path):
    data, answers = make_report(hostile, out=tmp_path / "r.html", markdown=True)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("</script") == 3
    assert page.count("<script") == 3
    assert page.count("<img") == page.count('src="data:image/svg+xml;base64,') > 0
    assert "\x00" not in page
    names = [answers["problems"][place] for place in answers["problem"]]
    by_problem = dict(zip(names, answers["text"], strict=True))
    for text in HOSTILE[:5] + HOSTILE[6:]:
        assert by_problem[text] == text
    long = by_problem[HOSTILE[5][:5000]]
    assert long.startswith("x" * 200_000)
    assert long.endswith("[… 800,000 more characters]")
    assert dict(data["runs"][0]["facts"])["Model"] == "<b>\ufffd</b>"
    markdown = (tmp_path / "r.md").read_text(encoding="utf-8")
    assert "<img" not in markdown.replace("\\<", "")


def chromium() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not found:
        pytest.skip("no Chromium here to open the page with")
    return found


def open_page(page: Path | str, profile: Path) -> str:
    """The elements of a page, a file or an address, after its scripts have run, as text."""
    address = page.as_uri() if isinstance(page, Path) else page
    dom = ""
    for seconds in (20, 60, 180):  # of virtual time, which on a busy machine may end too soon
        words = [
            chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={profile}",
            f"--virtual-time-budget={seconds * 1000}", "--dump-dom", address,
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, timeout=120, check=True)
        log = done.stderr.decode("utf-8", "replace")
        assert "CONSOLE" not in log, log  # errors of scripts, refusals of the security policy
        dom = done.stdout.decode("utf-8", "replace")
        if "data-ready=" in dom.partition(">")[2].partition(">")[0]:
            break
    return dom


def test_a_browser_shows_all_of_it(finished, tmp_path):
    dom = open_page(finished / "report.html", tmp_path / "profile")
    assert re.search(r"<html[^>]* data-ready=", dom)
    body = html.unescape(re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL))
    assert "114 answers to 20 problems" in body
    assert body.count("<figure>") == 13
    assert "pass@1, greedy" in body
    assert "Fingerprint of the value table" in body


def test_a_browser_runs_nothing_that_a_model_wrote(hostile, tmp_path):
    make_report(hostile, out=tmp_path / "r.html")
    dom = open_page(tmp_path / "r.html", tmp_path / "profile")
    assert re.search(r"<html[^>]* data-ready=", dom)
    shown = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    images = re.findall("<img[^>]*>", shown)
    assert images
    assert all('src="data:image/svg+xml;base64,' in image for image in images)
    assert not any(re.search(r"\son\w+=", re.sub('"[^"]*"', "", image)) for image in images)
    assert "&lt;img src=x onerror" in shown
    assert "<title>owned" not in dom


def test_runs_are_listed_with_their_state(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "r" / "finished")
    shutil.copytree(finished / "train", tmp_path / "r" / "deep" / "stopped")
    summary = tmp_path / "r" / "deep" / "stopped" / "summary.json"
    summary.write_text(
        json.dumps(json.loads(summary.read_text()) | {"completed": False, "reason": "KL"})
    )
    lock = json.dumps({"host": "node7", "pid": 12})
    for name in ("running", "silent", "killed", "failed"):
        shutil.copytree(finished / "train", tmp_path / "r" / name)
        (tmp_path / "r" / name / "summary.json").unlink()
        if name in ("silent", "killed"):
            (tmp_path / "r" / name / ".lock").write_text(lock)
    (tmp_path / "r" / "killed" / ".lock").write_text(lock.replace("node7", socket.gethostname()))
    hours_ago = time.time() - 3 * 3600
    for file in (tmp_path / "r" / "silent").rglob("*"):
        os.utime(file, (hours_ago, hours_ago))
    with folder_lock(tmp_path / "r" / "running"):
        assert main(["runs", str(tmp_path / "r")]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line for line in lines[1:7]}
    assert lines[1].startswith("silent")  # it is the oldest
    assert " silent (for 3.0 h, process 12 on node7) " in states["silent"]
    assert " running  " in states["running"]
    assert " killed (last seen " in states["killed"]
    assert " unfinished  " in states["failed"]
    assert " stopped (unhealthy, see summary.json) " in states["deep/stopped"]
    assert " finished  " in states["finished"]
    assert all(" 3 of 3 " in line for line in states.values())
    assert lines[8].startswith("killed: its process is gone")


def test_a_run_gone_on_with_is_no_longer_stopped(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished / "train", run)
    (run / "summary.json").write_text('{"completed": false, "steps": 2}')
    with folder_lock(run):
        assert " running " in astarpo.runs(RunsConfig(dir=tmp_path))
    assert " unfinished " in astarpo.runs(RunsConfig(dir=tmp_path))


@pytest.mark.parametrize(("part", "stage"), [("values", "estimate"), ("train", "train")])
def test_a_run_killed_is_listed_so_at_once(part, stage, finished, tmp_path):
    recipe = tmp_path / "mine.json"
    recipe.write_text((finished / "recipe.json").read_text().replace('"steps": 3', '"steps": 300'))
    out = tmp_path / "runs" / "mine"
    words = command("run", recipe, "--out", out)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (out / part / ".lock").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)  # so that it stays in this stage
        listed = astarpo.runs(RunsConfig(dir=tmp_path / "runs"))
        assert f"\nmine  running ({stage}) " in listed
        with pytest.raises(UserError, match=f"process {process.pid} on .* is writing here"):
            astarpo.run(RunConfig(recipe=str(recipe), out=out))
    finally:
        process.kill()
        process.wait()
    listed = astarpo.runs(RunsConfig(dir=tmp_path / "runs"))
    assert f"\nmine  killed ({stage}, last seen " in listed


def test_a_model_is_no_run(policy_path):
    with pytest.raises(UserError, match="not a run"):
        astarpo.report(ReportConfig(runs=[policy_path]))
