"""Command lines that are wrong: each is refused in one line, exit 2, and nothing is written."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from astarpo.tasks.problem_set import read_problems, write_problems
from tests.crash.artefacts import artefacts, differences, fresh
from tests.crash.results import REFUSED, UNRULY, Finding, ending, last_line
from tests.crash.server import Trial
from tests.crash.world import World

ATTACK = "wrong use"

ESTIMATE = "estimate --model policy --problems problems.parquet --device cpu"
TRAIN = "train --model policy --problems problems.parquet --values values --steps 2 --device cpu"
GRPO = "train --model policy --problems problems.parquet --algorithm grpo --steps 2 --device cpu"
EVALUATE = "evaluate --model policy --problems problems.parquet --device cpu"
EXPORT = "export values --problems problems.parquet"
WARM = "warm-start --problems problems.parquet --steps 2"
IMPORT = "import-values --model policy --source published.parquet"
DATA = "data gsm8k --source rows.jsonl"
OWN = "data own --source other.jsonl"
RUN = "run recipe.toml"

# Each --out with each verb that writes it: below a file, where nothing can be made, the user's own.
_NO_PLACE = ("notes/mine.txt/new", "/proc/new")
_USED = (".", "notes", "notes/mine.txt")
_FOLDERS = (ESTIMATE, TRAIN, GRPO, WARM, IMPORT, RUN, "compare", "sweep samples", "demo")
_FILES = (DATA, EVALUATE, EXPORT)
_OUTS = [f"{verb} --out {out}" for verb in _FOLDERS + _FILES for out in _NO_PLACE + _USED]

_INPUTS_AS_OUT = [
    f"{ESTIMATE} --out problems.parquet",
    f"{ESTIMATE} --out policy",
    f"{ESTIMATE} --out run",
    f"{TRAIN} --out values",
    f"{TRAIN} --out policy",
    f"{TRAIN} --out problems.parquet",
    f"{EVALUATE} --out problems.parquet",
    f"{EVALUATE} --out problems.json",
    f"{EVALUATE} --out policy",
    f"{EXPORT} --out problems.parquet",
    f"{EXPORT} --out values/values.parquet",
    f"{EXPORT} --out values",
    f"{DATA} --out rows.jsonl",
    f"{WARM} --out policy",
    f"{WARM} --out problems.parquet",
    f"{IMPORT} --out published.parquet",
    f"{RUN} --out run",
    f"{RUN} --out recipe.toml",
    "report run --out problems.parquet",
    "report run --out notes/mine.txt",
    "report run --out notes/mine.txt/page.html",
    "report run --out /proc/page.html",
]

_INPUTS = [
    f"{verb} --out {out} --problems {problems}"
    for verb, out in ((ESTIMATE, "new"), (TRAIN, "new"), (EVALUATE, "new.json"))
    for problems in (
        "missing.parquet", "text.parquet", "empty.parquet", "twice.parquet", "columns.parquet",
        "unknown.parquet", "foreign.parquet", "cut.parquet", "gold.parquet", "notes",
    )
] + [
    f"{verb} --out {out} --model {model}"
    for verb, out in ((ESTIMATE, "new"), (GRPO, "new"), (EVALUATE, "new.json"))
    for model in ("missing", "notes", "no-tokenizer", "no-weights", "cut-weights", "bad-config")
] + [
    f"{TRAIN} --out new --values missing",
    f"{TRAIN} --out new --values notes",
    f"{TRAIN} --out new --values problems.parquet",
    f"{TRAIN} --out new --values bad-manifest",
    f"{TRAIN} --out new --values list-manifest",
    f"{TRAIN} --out new --values empty-manifest",
    f"{TRAIN} --out new --values unfinished",
    f"{TRAIN} --out new --values no-shards",
    f"{EXPORT.replace('values', 'unfinished')} --out new.parquet",
    f"{EXPORT.replace('values', 'notes')} --out new.parquet",
    f"{ESTIMATE} --out values --samples 2 --seed 5",
    f"{IMPORT.replace('published', 'ragged')} --out new",
    f"{IMPORT.replace('published', 'problems')} --out new",
    f"{IMPORT.replace('published', 'text')} --out new",
    "report missing",
    "report notes",
    "runs missing",
    "runs notes",
]  # fmt: skip

_SETTINGS = [
    "frobnicate",
    "estimate",
    f"{ESTIMATE}",
    f"{ESTIMATE} --out new --sampels 8",
    f"{ESTIMATE} --out new --samples 0",
    f"{ESTIMATE} --out new --samples 1.5",
    f"{ESTIMATE} --out new --beta1 -1",
    f"{ESTIMATE} --out new --temperature 0",
    f"{ESTIMATE} --out new --temperature inf",
    f"{ESTIMATE} --out new --max-new-tokens 100000",
    f"{ESTIMATE} --out new --max-prompt-tokens 1",
    f"{ESTIMATE} --out new --shard-problems 0",
    f"{ESTIMATE} --out new --seed -1",
    f"{ESTIMATE} --out new --config missing.toml",
    f"{ESTIMATE} --out new --config unknown.toml",
    f"{ESTIMATE} --out new --config syntax.toml",
    f"{ESTIMATE} --out new --config list.json",
    f"{ESTIMATE} --out new --config notes",
    f"{ESTIMATE} --out new --config problems.parquet",
    f"{TRAIN} --out new --beta2 0",
    f"{TRAIN} --out new --lr nan",
    f"{TRAIN} --out new --steps 0",
    f"{TRAIN} --out new --epochs 2",
    f"{TRAIN} --out new --algorithm dqn",
    f"{TRAIN} --out new --group-size 4",
    f"{TRAIN} --out new --kl-coef 0.1",
    f"{TRAIN} --out new --values-samples 99",
    f"{TRAIN} --out new --lora-alpha 8",
    f"{TRAIN} --out new --temperature 0.5",
    f"{TRAIN} --out new --max-new-tokens 13",
    f"{TRAIN} --out new --eval-problems missing.parquet",
    f"{TRAIN} --out new --eval-problems text.parquet",
    f"{TRAIN} --out new --resume",
    f"{TRAIN} --out notes --resume",
    f"{TRAIN} --out run",
    f"{TRAIN} --out run --resume --seed 5",
    f"{TRAIN} --out run --resume --beta2 0.5",
    f"{TRAIN} --out run --resume --problems other.parquet",
    f"{TRAIN} --out no-checkpoints --resume",
    f"{GRPO} --out new --beta2 0.5",
    f"{GRPO} --out new --filter all_wrong",
    f"{GRPO} --out new --values-samples 2",
    f"{GRPO} --out new --max-new-tokens 100000",
    f"{EVALUATE} --out new.json --samples -1",
    f"{EVALUATE} --out new.json --top-p 0",
    f"{EVALUATE} --out new.json --reference missing",
    f"{EVALUATE} --out new.json --reference policy --samples 0",
    f"{EVALUATE} --out new.json --suite exam",
    f"{EVALUATE} --out new.json --suite paper",
    f"{EVALUATE} --out new.json --benchmarks aime24",
    f"{EVALUATE} --out new.json --max-new-tokens 100000",
    "evaluate --model policy --out new.json",
    "evaluate --model policy --suite paper --suite-sources notes --out new.json",
    f"{EXPORT} --out new.parquet --format csv",
    f"{EXPORT} --out new.parquet --problems other.parquet",
    f"{WARM} --out new --hidden-size 10 --heads 4",
    f"{WARM} --out new --max-tokens 8",
    f"{WARM} --out new --problems missing.parquet",
    "data --out new.parquet",
    "data poetry --out new.parquet",
    "data gsm8k --out new.parquet --source missing.jsonl",
    "data gsm8k --out new.parquet --source bad.jsonl",
    "data gsm8k --out new.parquet --source nogold.jsonl",
    "data gsm8k --out new.parquet --source other.jsonl",
    "data gsm8k --out new.parquet --source notes",
    "data gsm8k --out new.parquet --source text.parquet",
    "data multiply --out new.parquet --split dev",
    "data multiply --out new.parquet --limit 0",
    "data countdown --out new.parquet --size 0",
    f"{OWN} --out new.parquet",
    f"{OWN} --out new.parquet --reward gsm9k",
    f"{OWN} --out new.parquet --reward gsm8k --prompt-column q --answer-column nobody",
    f"{OWN} --out new.parquet --reward none.py:f --prompt-column q",
    f"{OWN} --out new.parquet --reward list.json:f --prompt-column q",
    f"{DATA} --out new.parquet --prompt-column q",
    "run",
    "run nothing --out new",
    "run syntax.toml --out new",
    "run unknown.toml --out new",
    "run negative.toml --out new",
    "run late.toml --out new",
    f"{RUN} --out new --source missing.jsonl",
    f"{RUN} --out new --model missing",
    "compare nothing --out new",
    "compare --seeds x --out new",
    "compare --algorithms dqn --out new",
    "sweep beta9 --out new",
    "sweep beta2 --over x --out new",
    "demo --seed -1 --out new",
    "demo --seed x --out new",
]

CASES = [*_SETTINGS, *_INPUTS, *_INPUTS_AS_OUT, *_OUTS]


def misuse(world: World, cases: Sequence[str]) -> Iterator[Finding]:
    """Runs wrong command lines in a folder of good, bad and foreign files."""
    folder = _files(world)
    before = artefacts(folder)
    for case in cases:
        (outcome,) = world.server.run(Trial(case.split(), folder))
        subject = case.split()[0]
        written = differences(artefacts(folder), before)
        if fault := ending(outcome):
            yield Finding(ATTACK, subject, case, fault, last_line(outcome))
        elif not outcome.is_one_line or written:
            detail = f"{last_line(outcome)} ({len(outcome.err.splitlines())} lines)"
            yield Finding(ATTACK, subject, case, UNRULY, "; ".join([detail, *written[:4]]))
        else:
            yield Finding(ATTACK, subject, case, REFUSED, last_line(outcome))
        if written:
            folder = _files(world)


def _files(world: World) -> Path:
    """A folder with inputs, artefacts, and files that are wrong in every way."""
    folder = fresh(world.folder / "misused", like=world.undisturbed("train"))
    shutil.copytree(world.inputs / "policy", folder / "policy")
    for name in ("rows.jsonl", "recipe.toml"):
        shutil.copy(world.inputs / name, folder)
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    _texts(folder)
    _problem_files(folder)
    _models(folder)
    _tables(folder)
    shutil.copytree(folder / "run", folder / "no-checkpoints")
    shutil.rmtree(folder / "no-checkpoints" / "checkpoints")
    return folder


def _texts(folder: Path) -> None:
    recipe = (folder / "recipe.toml").read_text()
    for name, text in {
        "unknown.toml": "sampels = 8\n",
        "syntax.toml": "samples = \n",
        "list.json": "[1, 2]\n",
        "negative.toml": recipe.replace("lr = 1e-3", "lr = -1"),
        "late.toml": recipe.replace("[evaluate]\nsamples = 1", "[evaluate]\nsamples = -1"),
        "text.parquet": "no parquet",
        "bad.jsonl": '{"question": "q", "answer": "#### 1"}\n{"question": \n',
        "nogold.jsonl": '{"question": "q", "answer": "no mark"}\n',
        "other.jsonl": '{"q": "q", "a": "1"}\n',
    }.items():
        (folder / name).write_text(text, encoding="utf-8")


def _problem_files(folder: Path) -> None:
    rows = pq.read_table(folder / "problems.parquet")
    source = rows.column_names.index("data_source")
    pq.write_table(rows.slice(0, 0), folder / "empty.parquet")
    pq.write_table(pa.concat_tables([rows, rows]), folder / "twice.parquet")
    pq.write_table(rows.select(["prompt"]), folder / "columns.parquet")
    for name, judge in (("unknown", "nobody/knows"), ("foreign", "reward:rewards.py:f")):
        column = pa.array([judge] * len(rows))
        pq.write_table(rows.set_column(source, "data_source", column), folder / f"{name}.parquet")
    whole = (folder / "problems.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    problems = read_problems(folder / "problems.parquet")
    others = [replace(p, id=f"{p.id}/other", ground_truth="7") for p in problems]
    write_problems(folder / "other.parquet", others)
    gold = [replace(p, data_source="countdown", ground_truth="24") for p in problems]
    write_problems(folder / "gold.parquet", gold)
    for name, counts in (("published", [2] * len(rows)), ("ragged", [2] + [1] * (len(rows) - 1))):
        table = rows
        for i in range(2):
            column = pa.array(["#### 1" if i < count else None for count in counts])
            table = table.append_column(f"response_{i}", column)
        pq.write_table(table, folder / f"{name}.parquet")


def _models(folder: Path) -> None:
    for name, change in {
        "no-tokenizer": lambda path: [file.unlink() for file in path.glob("tokenizer*")],
        "no-weights": lambda path: (path / "model.safetensors").unlink(),
        "cut-weights": lambda path: _cut(path / "model.safetensors"),
        "bad-config": lambda path: _cut(path / "config.json"),
    }.items():
        shutil.copytree(folder / "policy", folder / name)
        change(folder / name)


def _tables(folder: Path) -> None:
    manifest = json.loads((folder / "values" / "manifest.json").read_text())
    unfinished = {k: v for k, v in manifest.items() if k in ("format", "fingerprint", "model")}
    for name, text in {
        "bad-manifest": '{"format": 1,',
        "list-manifest": "[1]",
        "empty-manifest": "{}",
        "unfinished": json.dumps(unfinished),
        "no-shards": json.dumps(manifest),
    }.items():
        shutil.copytree(folder / "values", folder / name)
        (folder / name / "manifest.json").write_text(text)
    for name in ("unfinished", "no-shards"):
        for shard in sorted((folder / name).glob("samples-*"))[name == "unfinished" :]:
            shard.unlink()


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
