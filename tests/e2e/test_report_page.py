"""The page of a report in a browser: formulas, addresses of problems, and a run that goes on."""

import hashlib
import html
import json
import re
import shutil
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import astarpo
from astarpo.config import EvaluateConfig, ReportConfig
from astarpo.models.folder import fingerprint
from astarpo.reports.page import content_hash
from astarpo.rundir.rows import write_rows
from astarpo.runtime.locks import folder_lock
from astarpo.types import UserError
from astarpo.verbs.report import _make
from tests.conftest import command
from tests.e2e.test_report import RECIPE, collected, open_page, parts, rows_of
from tests.e2e.test_suite import ROWS

FORMULAS = [
    r"First \( \frac{1}{2} \) and then $x^2$. It costs $5 and $6, or $7-$8.",
    r"\[ \int_0^1 y\,dy \] so \boxed{42}",
    r"He paid $5 of the money she had, i.e. half of $10.",
]
HOSTILE_FORMULAS = [
    r"\(\href{javascript:document.title='owned'}{click}\)",
    r"\(\text{<img src=x onerror=document.title='owned'>}\) </math><script>owned</script>",
    r"\(\label{settings} \id{answers}{q}\) \(\includegraphics{https://example.org/a.png}\)",
    r"\(\def\a{\a\a}\a\)",
    r"\(\rule{99999em}{99999em}\) \(\style{position:fixed;top:0}{z}\)",
    "\\(" * 3000 + "$" * 3000,
]


def run_of(path: Path, texts: list[str]) -> Path:
    """A training run of one step whose answers, all to one problem, say these texts."""
    (path / "samples").mkdir(parents=True)
    (path / "config.json").write_text('{"algorithm": "astar_po", "values": "none", "seed": 3}')
    write_rows(path / "metrics.jsonl", [{"step": 1, "reward": 0.5, "seconds": 1.0, "tokens": 5}])
    count = len(texts)
    columns = {"problem_id": ["p/ü & 1"] * count, "text": texts, "reward": [1.0] * count,
               "status": ["ok"] * count, "v_star": [0.25] * count}  # fmt: skip
    pq.write_table(pa.table(columns), path / "samples" / "step-000001.parquet")
    return path


def shown(dom: str) -> str:
    """What a page shows, without scripts."""
    return re.sub("<script.*?</script>", "", dom, flags=re.DOTALL)


def test_formulas_are_shown_as_such(tmp_path):
    run = run_of(tmp_path / "run", FORMULAS)
    astarpo.report(ReportConfig(runs=[run]))
    body = shown(open_page(run / "report.html", tmp_path / "profile"))
    assert body.count("<math") == 4
    for element in ("mfrac", "msup", "msubsup"):
        assert f"<{element}" in body
    assert "border: 1px solid" in body  # of the box
    assert "It costs $5 and $6, or $7-$8." in body
    assert FORMULAS[2] in body
    assert "+0.75" in body  # reward minus V* of each answer


def test_formulas_run_nothing_and_stay_in_their_place(tmp_path):
    run = run_of(tmp_path / "run", HOSTILE_FORMULAS)
    astarpo.report(ReportConfig(runs=[run]))
    dom = open_page(run / "report.html", tmp_path / "profile")
    assert re.search(r"<html[^>]* data-ready=", dom)
    body = shown(dom)
    assert "<title>owned" not in dom
    assert re.findall(r'<section[^>]* id="settings"|<section id="settings"', body)
    assert body.count('id="settings"') == body.count('id="answers"') == 1
    assert not re.search(r'href="(?!#)|style="[^"]*position|<mglyph', body)
    images = re.findall("<img[^>]*>", re.sub('"[^"]*"', '""', body))
    assert set(images) <= {'<img class="" alt="" src="">'}
    assert "&lt;img src=x onerror" in body  # as text, within the formula
    sizes = [float(size) for size in re.findall(r'(?:width|height)="([\d.]+)em"', body)]
    assert all(size <= 10 for size in sizes)


def test_the_library_of_formulas_is_as_published_and_only_where_needed(tmp_path):
    assets = resources.files("astarpo.reports") / "assets"
    library = (assets / "temml.min.js").read_bytes()
    # Version 0.13.5 in the npm registry.
    published = "1ab19148afe0dbc836b7a74f344071b3f3a70a7a8259ae4049e76894fcdf8d95"
    assert hashlib.sha256(library).hexdigest() == published
    assert (assets / "temml.LICENSE").read_text().startswith("The MIT License")
    assert not re.search(rb"</script|<!--|innerHTML|document\.write|\beval\(", library)
    assert set(re.findall(rb"https?://[\w./]+", library)) == {b"http://www.w3.org/1998/Math/MathML"}
    plain = run_of(tmp_path / "plain", ["It costs $5 and $6.", r"a \n and \( here", r"$ \frac"])
    astarpo.report(ReportConfig(runs=[plain]))
    assert "var temml" not in (plain / "report.html").read_text(encoding="utf-8")
    run = run_of(tmp_path / "run", FORMULAS)
    astarpo.report(ReportConfig(runs=[run]))
    page = (run / "report.html").read_text(encoding="utf-8")
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[0]
    assert f"script-src 'sha256-{content_hash(script)}'" in page
    assert library.decode() in script


def test_an_address_leads_to_its_problem(tmp_path):
    run = run_of(tmp_path / "run", ["one"])
    table = pq.read_table(run / "samples" / "step-000001.parquet")
    other = table.set_column(0, "problem_id", pa.array(["a first problem"]))
    pq.write_table(pa.concat_tables([other, table]), run / "samples" / "step-000001.parquet")
    astarpo.report(ReportConfig(runs=[run]))
    address = (run / "report.html").as_uri()
    dom = shown(open_page(f"{address}#problem=p%2F%C3%BC%20%26%201", tmp_path / "profile"))
    assert "<h3>p/ü &amp; 1 <a" in dom
    assert 'href="#problem=p%2F%C3%BC%20%26%201"' in dom
    dom = shown(open_page(f"{address}#problem=%ff", tmp_path / "profile"))
    assert "The problem of this address is not in this page." in dom


def test_a_live_page_reloads_itself_until_it_is_final(tmp_path):
    run = run_of(tmp_path / "run", ["one"])
    _make(ReportConfig(runs=[run]), run / "report.html", live_s=2)
    pages = [(run / "report.html").read_bytes()]
    assert b'http-equiv="refresh" content="2"' in pages[0]  # for browsers without scripts
    astarpo.report(ReportConfig(runs=[run]))
    pages.append((run / "report.html").read_bytes())
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/report"
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(pages[min(len(asked), 1)])
                asked.append(self.path)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/report"
        dom = open_page(address, tmp_path / "profile")
    finally:
        server.shutdown()
    assert len(asked) >= 2
    assert 'id="live"' not in dom
    assert "data-ready=" in dom


def test_a_run_is_watched_until_it_ends(tmp_path, policy_path, monkeypatch):
    monkeypatch.setattr("astarpo.verbs.report._SECONDS_BETWEEN_LOOKS", 0.05)
    recipe = tmp_path / "mine.json"
    recipe.write_text(json.dumps(RECIPE | {"model": str(policy_path)}))
    out, page = tmp_path / "run", tmp_path / "live.html"
    process = subprocess.Popen(command("run", recipe, "--out", out), stderr=subprocess.DEVNULL)
    lines = []
    try:
        deadline = time.monotonic() + 120
        while not ((out / "recipe.json").exists() and (out / ".lock").exists()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        config = ReportConfig(runs=[out], out=page, watch=True)
        watcher = threading.Thread(target=lambda: lines.append(astarpo.report(config)))
        watcher.start()
        states = set()
        while watcher.is_alive():
            if page.exists() and 'id="live"' in (text := page.read_text(encoding="utf-8")):
                states |= set(re.findall(r"<dt>State</dt><dd>(.*?)</dd>", text))
            time.sleep(0.05)
        watcher.join()
    finally:
        process.kill()
        process.wait()
    assert any(state.startswith("running (") for state in states), states
    assert lines[0].startswith(f"{page}: 1 run, 114 of 114 answers")
    text = page.read_text(encoding="utf-8")
    assert 'id="live"' not in text
    assert "<dt>State</dt><dd>finished</dd>" in text
    assert "nothing to watch" in astarpo.report(config.model_copy(update={"overwrite": True}))


def test_ctrl_c_leaves_a_page_that_stays_as_it_is(tmp_path):
    run = run_of(tmp_path / "run", ["one"])
    with folder_lock(run):
        process = subprocess.Popen(
            command("report", run, "--watch"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 120
            while not (run / "report.html").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert 'id="live"' in (run / "report.html").read_text(encoding="utf-8")
            process.send_signal(signal.SIGINT)
            line, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert b"report.html: 1 run, 1 of 1 answers" in line
    assert 'id="live"' not in (run / "report.html").read_text(encoding="utf-8")


def test_suite_results_stand_beside_one_another(tmp_path, policy_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    for name in ("math500", "hellaswag"):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, ROWS[name])))
    run = run_of(tmp_path / "run", ["one"])
    shutil.copytree(policy_path, run / "model")
    (run / "config.json").write_text('{"algorithm": "astar_po", "values": "values"}')
    (tmp_path / "values").mkdir()
    manifest = {"fingerprint": fingerprint(str(policy_path))}
    (tmp_path / "values" / "manifest.json").write_text(json.dumps(manifest))
    settings = {"suite": "paper", "suite_sources": folder, "max_new_tokens": 8, "device": "cpu",
                "benchmarks": "math500,hellaswag", "grade_workers": 1}  # fmt: skip
    models = {"before.json": policy_path, "after.json": run / "model"}
    for name, model in models.items():
        astarpo.evaluate(EvaluateConfig(model=str(model), out=run / name, **settings))
    found = collected(run)[0]["suites"]
    assert [(suite["suite"], suite["policies"]) for suite in found] == [
        ("paper", ["reference", "trained"])
    ]
    math, choices = found[0]["rows"]
    assert (math["name"], math["problems"], math["protocol"]) == ("math500", 3, "greedy")
    after = json.loads((run / "after.json").read_text())["benchmarks"]
    assert choices["scores"][1]["value"] == pytest.approx(
        after["hellaswag"]["scores"]["acc_norm"]["value"]
    )
    difference = choices["scores"][1]["value"] - choices["scores"][0]["value"]
    assert choices["change"]["value"] == pytest.approx(difference)
    astarpo.report(ReportConfig(runs=[run]))
    page = (run / "report.html").read_text(encoding="utf-8")
    heads, *rows = rows_of(page, "Suite paper")
    assert heads == ["benchmark", "problems", "protocol", "reference", "trained", "change", ""]
    assert [row[:3] for row in rows] == [
        ["math500", "3", "greedy"], ["hellaswag", "4", "likeliest ending"]
    ]  # fmt: skip

    # Of other problems there is no pair, and of a model that is neither its file is named.
    other = json.loads((run / "after.json").read_text())
    other["benchmarks"]["math500"]["problems"] = "others"
    (run / "after.json").write_text(json.dumps(other))
    third = json.loads((run / "before.json").read_text())
    third["settings"]["weights"], third["model"] = "else", "else"
    third["benchmarks"]["hellaswag"] = {"half": "written"}
    (run / "third.json").write_text(json.dumps(third))
    (suite,) = collected(run)[0]["suites"]
    assert suite["policies"] == ["reference", "trained", "third"]
    assert suite["rows"][0]["change"] is None
    assert suite["rows"][1]["scores"][2] is None


def test_an_experiment_is_not_watched(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match="no --watch"):
        astarpo.report(ReportConfig(runs=[tmp_path], watch=True))


def test_the_page_says_first_what_changed_and_where_it_ran(tmp_path):
    run = run_of(tmp_path / "run", ["one"])
    environment = {"python": "3.12.1", "astarpo": "0.2.0", "torch": "2.9.1", "device": "H100 <b>",
                   "commit": "0123456789abcdef", "transformers": "5.17.0"}  # fmt: skip
    config = json.loads((run / "config.json").read_text()) | {"environment": environment}
    (run / "config.json").write_text(json.dumps(config))
    held_out = [{"step": s, "seconds": s, "tokens": s, "reward": r, "low": r - 0.01,
                 "high": r + 0.01} for s, r in ((0, 0.6), (1, 0.5))]  # fmt: skip
    write_rows(run / "evaluations.jsonl", held_out)
    astarpo.report(ReportConfig(runs=[run], markdown=True))
    page = (run / "report.html").read_text(encoding="utf-8")
    first = page.partition("<nav")[0]
    assert "held-out reward 0.600 → 0.500 (step 0 to 1), <b>worse beyond chance</b>" in first
    assert "One run, seed 3:" in first
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert facts["Seed"] == "3"
    assert html.unescape(facts["Device"]) == "H100 <b>"
    assert facts["Versions"] == (
        "astarpo 0.2.0, python 3.12.1, torch 2.9.1, transformers 5.17.0, commit 0123456789ab"
    )
    assert ["device", "H100 <b>"] in rows_of(page, "Environment")
    assert not any("environment" in row[0] for row in rows_of(page, "Training"))
    assert page.count('alt="held-out reward: run from 0.6 to 0.5"') == 3
    assert "held-out reward 0.600 → 0.500" in (run / "report.md").read_text(encoding="utf-8")
    assert parts(run / "report.html")[0]["num_answers"] == 1
