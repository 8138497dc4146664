"""Every verb's wrong inputs: one line, exit 2, before any long work."""

import json
import re
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from astarpo.cli import main
from astarpo.config.documents import VERBS
from astarpo.config.setting import setting_of


@pytest.fixture
def files(tmp_path, policy_path, problems_path):
    rows = pq.read_table(problems_path)
    pq.write_table(rows.slice(0, 0), tmp_path / "empty.parquet")
    pq.write_table(pa.concat_tables([rows, rows]), tmp_path / "twice.parquet")
    pq.write_table(rows.select(["prompt"]), tmp_path / "columns.parquet")
    unknown = rows.set_column(0, "data_source", pa.array(["nobody/knows"] * len(rows)))
    assert rows.column_names[0] == "data_source"
    pq.write_table(unknown, tmp_path / "unknown.parquet")
    lost = rows.set_column(0, "data_source", pa.array(["reward:gone.py:f"] * len(rows)))
    pq.write_table(lost, tmp_path / "lost.parquet")
    foreign = rows.set_column(0, "data_source", pa.array(["reward:rewards.py:f"] * len(rows)))
    pq.write_table(foreign, tmp_path / "foreign.parquet")
    (tmp_path / "rewards.py").write_text("1 / 0\n")
    (tmp_path / "text.parquet").write_text("no parquet")
    (tmp_path / "bad.jsonl").write_text('{"question": "q", "answer": "#### 1"}\n{"question": \n')
    (tmp_path / "nogold.jsonl").write_text('{"question": "q", "answer": "no mark"}\n')
    (tmp_path / "other.jsonl").write_text('{"q": "q", "a": "#### 1"}\n')
    (tmp_path / "aime24.jsonl").write_text('{"problem": "q", "answer": "025"}\n')
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "qwen2"}')
    (tmp_path / "config.toml").write_text("sampels = 8\n")
    (tmp_path / "table.toml").write_text("[estimate]\nsampels = 8\n")
    (tmp_path / "tables.toml").write_text("[estimat]\nsamples = 8\n")
    (tmp_path / "value.toml").write_text("[estimate]\nsamples = 0\n")
    (tmp_path / "policy").symlink_to(policy_path)
    (tmp_path / "good.parquet").symlink_to(problems_path)
    (tmp_path / "in_use").mkdir()
    (tmp_path / "in_use" / "notes.txt").write_text("mine")
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "config.json").write_text('{"algorithm": "astar_po", "values": "v"}')
    return tmp_path


ESTIMATE = "estimate --model policy --problems good.parquet --out new"
TRAIN = "train --model policy --problems good.parquet --values values --out new"
GRPO = "train --model policy --problems good.parquet --out new --algorithm grpo"
EVALUATE = "evaluate --model policy --problems good.parquet --out new.json"
SUITE = "evaluate --model policy --suite paper --out new.json"
AIME = f"{SUITE} --benchmarks aime24 --suite-sources ."

OWN = "data own --source other.jsonl --out p.parquet"

CASES = {
    "frobnicate": "no such verb; the verbs are demo, run, ",
    "estimat": "no such verb; did you mean estimate?",
    "estimate": "missing: --model, --problems, --out",
    "estimate --sampels 8": "estimate has no flag --sampels; did you mean --samples?",
    "estimate --sampels=8": "estimate has no flag --sampels; did you mean --samples?",
    "estimate --lr 1e-3": "estimate has no flag --lr, but train, warm-start have it",
    "estimate --no-rejugde": "did you mean --no-rejudge?",
    "estimate --model": "argument --model: expected one argument",
    f"{ESTIMATE} --samples 0": "--samples: Input should be greater than or equal to 1 (got '0')",
    f"{ESTIMATE} --samples many": "samples: Input should be a valid integer",
    f"{ESTIMATE} --beta1 -1": "beta1: Input should be greater than or equal to 0",
    f"{ESTIMATE} --beta1 nan": "beta1",
    f"{ESTIMATE} --prompt-format html": "--prompt-format: 'html' is none of raw, chat",
    f"{ESTIMATE} --device cuda": "PyTorch sees no GPU",
    f"{ESTIMATE} --config missing.toml": "missing.toml: no such file",
    f"{ESTIMATE} --config gsm8k_small": "did you mean gsm8k-small?",
    f"{ESTIMATE} --config config.toml": "no such setting: sampels; did you mean samples?",
    f"{ESTIMATE} --config table.toml": "table.toml: sampels: no such setting; did you mean sampl",
    f"{ESTIMATE} --config tables.toml": "no such setting: estimat; did you mean estimate?",
    f"{ESTIMATE} --config value.toml": "value.toml: samples: Input should be greater than or eq",
    f"{ESTIMATE} --problems missing.parquet": "missing.parquet",
    f"{ESTIMATE} --problems text.parquet": "text.parquet",
    f"{ESTIMATE} --problems empty.parquet": "empty.parquet",
    f"{ESTIMATE} --problems twice.parquet": "digits/train/0",
    f"{ESTIMATE} --problems columns.parquet": "data_source",
    f"{ESTIMATE} --problems unknown.parquet": "nobody/knows",
    f"{ESTIMATE} --model missing": "missing: no such model folder",
    f"{ESTIMATE} --model in_use": "no config.json",
    f"{ESTIMATE} --model broken": "broken",
    f"{ESTIMATE} --model nobody/knows-this": "nor available from the hub",
    f"{ESTIMATE} --out in_use": "exists and is not a value table",
    f"{ESTIMATE} --max-prompt-tokens 1": "every prompt is longer",
    f"{TRAIN}": "values: no value table here",
    f"{TRAIN} --beta2 -1": "beta2: Input should be greater than 0",
    f"{TRAIN} --lr 0": "lr: Input should be greater than 0",
    f"{TRAIN} --steps 0": "steps",
    f"{TRAIN} --algorithm grop": "grpo, ppo, rebel, rloo, spo; did you mean grpo?",
    f"{TRAIN} --lora-rank 0": "--lora-rank: Input should be greater than or equal to 1",
    f"{GRPO} --lora-alpha 8": "give --lora-rank too",
    f"{GRPO} --lora-rank 8 --reference-offload": "nothing to keep elsewhere",
    f"{GRPO} --lora-alpha 8 --dry-run": "give --lora-rank too",
    f"{TRAIN} --problems missing.parquet": "missing.parquet",
    f"{EVALUATE} --problems missing.parquet": "missing.parquet",
    f"{EVALUATE} --problems unknown.parquet": "nobody/knows",
    f"{EVALUATE} --problems lost.parquet --trust-reward gone.py:f": "reward gone.py: no such file",
    f"{EVALUATE} --problems foreign.parquet": "asks to run the function 'rewards.py:f'",
    f"{ESTIMATE} --problems foreign.parquet --trust-reward gsm8k": (
        "asks to run the function 'rewards"
    ),
    f"{ESTIMATE} --problems foreign.parquet --trust-reward rewards.py:f": "ZeroDivisionError",
    f"{EVALUATE} --model missing": "missing: no such model folder",
    f"{EVALUATE} --samples -1": "samples",
    f"{EVALUATE} --top-p 0": "--top-p: Input should be greater than 0",
    f"{EVALUATE} --top-p 0.9 --reference policy": "--top-p 1",
    f"{EVALUATE} --reference missing": "missing: no such model folder",
    f"{EVALUATE} --suite paper": "takes no --problems or --reference",
    f"{EVALUATE} --benchmarks aime24": "give --suite paper",
    "evaluate --model policy --out new.json": "give --problems FILE or --suite paper",
    f"{SUITE}": "cannot load math500, minerva_math, olympiadbench, amc23, aime24, aime25, hmmt",
    f"{SUITE} --benchmarks aime24,poetry": "benchmarks: poetry not in this suite, which has math",
    f"{SUITE} --benchmarks aime24 --suite-sources in_use": "neither of aime24.jsonl and aime24.par",
    f"{AIME} --model missing": "missing: no such model folder",
    f"{AIME} --out broken/config.json": "config.json: exists and is no suite's result",
    f"{AIME} --max-new-tokens 4096": "max_new_tokens=4096 do not fit the context of policy, 4096",
    f"{ESTIMATE} --max-new-tokens 4090": "context of policy, 4096 tokens; set max_new_tokens to",
    f"{EVALUATE} --max-new-tokens 4090": "context of policy, 4096 tokens; set max_new_tokens to",
    f"{GRPO} --max-new-tokens 4090": "context of policy, 4096 tokens; set max_new_tokens to",
    f"{GRPO} --eval-problems missing.parquet": "missing.parquet",
    "evaluate --model policy --out new.json --suite exam": "--suite: 'exam' is none of paper",
    "data": "missing: TASK, --out",
    "data poetry --out p.parquet": "poetry",
    "data gsm8k --out p.parquet --source missing.jsonl": "missing.jsonl",
    "data gsm8k --out p.parquet --source bad.jsonl": "line 2",
    "data gsm8k --out p.parquet --source nogold.jsonl": "####",
    "data gsm8k --out p.parquet --source other.jsonl": "question",
    "data gsm8k --out p.parquet": "network",
    "data aime24 --out p.parquet": "give --split test",
    "data aime24 --out p.parquet --split test": "network",
    "data aime24 --out p.parquet --split test --source other.jsonl": "problem or question or prom",
    "data aime24 --out p.parquet --split test --source nogold.jsonl": "'no mark' cannot be an ans",
    "data hellaswag --out p.parquet --split test --source other.jsonl": "ctx_a",
    "data multiply --out p.parquet --split dev": "dev",
    f"{OWN}": "what judges these answers?",
    f"{OWN} --reward gsm9k": "reasoning_gym:NAME; did you mean gsm8k?",
    f"{OWN} --reward gsm8k": "no column 'prompt'",
    f"{OWN} --reward gsm8k --prompt-column q --answer-column gold": "no column 'gold'",
    f"{OWN} --reward gsm8k --prompt-column q --answer-column q": "cannot judge against 1 of 1",
    f"{OWN} --reward none.py:f --prompt-column q": "no such file",
    f"{OWN} --reward rewards.py:f --prompt-column q": "ZeroDivisionError",
    "data own --out p.parquet --reward gsm8k": "--source",
    "data own --out p.parquet --source in_use": "save_to_disk",
    "data gsm8k --out p.parquet --prompt-column q": "for own problems",
    "data reasoning_gym:chainsum --out p.parquet": "chain_sum",
    "data own --out p.parquet --source foreign.parquet": "asks to run the function 'rewards.py:f'",
    f"{ESTIMATE} --problems lost.parquet --trust-reward gone.py:f": "reward gone.py: no such file",
    "export nowhere --problems good.parquet --out p.parquet": "no value table here",
    "export --problems good.parquet --out p.parquet": "missing: TABLE",
    "export nowhere --problems good.parquet --out p.parquet --format csv": "'csv' is none of verl",
    "import-values --model policy --out new --source good.parquet": "response_0",
    "import-values --model policy --out new --source missing.parquet": "missing.parquet",
    "import-values --model policy --out new --source nobody/knows-this": "network",
    "data multiply --out p.parquet --limit 0": "limit",
    "warm-start --problems missing.parquet --out new": "missing.parquet",
    "warm-start --problems good.parquet --out in_use": "exists already",
    "warm-start --problems good.parquet --out new --hidden-size 10 --heads 4": "hidden_size 10",
    "warm-start --problems good.parquet --out new --max-tokens 9": "no worked solution",
    "run nothing --out new": "shipped recipes: ",
    "run config.toml --out new": "no such setting: sampels",
    "run": "missing: RECIPE, --out",
    "compare --algorithms grop --out new": "no such algorithm: grop; there are astar_po, grpo, ",
    "sweep beta3 --out new": "; did you mean beta2?",
    "run deme --out new": "did you mean demo?",
    "run demo --out new --set train.lrr=1": "train has no setting lrr; did you mean lr?",
    "run demo --out new --set trian.lr=1": "no such table: trian; did you mean train?",
    "run demo --out new --set train.task=x": "train has no setting task, but data, ",
    "run demo --out new --set train.lr": "write TABLE.SETTING=VALUE",
    "compare demo --out new --set trian.lr=1": "no such table: trian; did you mean train?",
    "sweep lr compare-beliefs --out new --set variants.zer.lr=1": "no [variants.zer]; did you mean",
    "run demo --out new --set train.out=x": "all files of a recipe go below --out",
    "run demo --model policy --out new --set train.lr=0": "lr: Input should be greater than 0",
    "run demo --out new --set data.reward=rewards.py:f": "--trust-reward rewards.py:f",
    "run demo --out new --device gpu": "--device: 'gpu' is none of auto, cpu, cuda",
    "recipes deme": "no such recipe file; shipped recipes: ",
    "recipes text.parquet": "a config file ends in .toml or .json",
    "chat": "missing: RUN",
    "chat missing": "missing: no such folder",
    "chat in_use": "in_use: not a run",
    "push": "missing: SOURCE, REPO",
    "push started name/of/repo": "name/of/repo: no name of a repository",
    "push started me/mine": "has no trained model yet",
    "push in_use me/mine": "in_use: not a run",
    "--print-completion fish": "takes one of bash, zsh, tcsh",
    "--print-completion": "takes one of bash, zsh, tcsh",
    "demo --seed -1": "seed",
    "report": "missing: RUNS",
    "report missing": "missing: no such folder",
    "report in_use": "in_use: not a run",
    "report broken": "broken: not a run",
    "report started --out started/page.txt": "--out is a file that ends in .html",
    "report started --out good.parquet/report.html": "good.parquet is not a folder",
    "report started --max-answers -1": "--max-answers: Input should be greater than or equal to 0",
    "runs": "runs: no such folder",
    "runs in_use": "in_use: no run of astarpo train or astarpo run in it",
    "runs in_use more": "too many words: more",
}


@pytest.mark.parametrize(("words", "message"), CASES.items())
def test_one_line_and_exit_2(words, message, files, monkeypatch, capsys):
    if "--device cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(files)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a machine without network, at once
    started = time.monotonic()
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("astarpo: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert time.monotonic() - started < 30
    assert not (files / "new").exists() or not list((files / "new").glob("samples-*"))


def test_help_of_every_verb_names_its_defaults(capsys):
    for verb, config_class in VERBS.items():
        with pytest.raises(SystemExit) as exit_info:
            main([verb, "--help"])
        assert exit_info.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for name, field in config_class.model_fields.items():
            flag = f"--{name.replace('_', '-')}"
            shown = name.upper() if setting_of(field).positional else flag
            assert re.search(rf" {shown}[ ,]", text)
            assert field.description is not None
            assert " ".join(field.description.split()) in text


def test_help_lists_settings_in_groups_and_by_their_algorithms(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    found = {}
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            heading = found.setdefault(line[:-1], [])
        elif line.startswith("  --"):
            heading.append(line.split()[0].rstrip(","))
    assert found["inputs and output"][:3] == ["--model", "--problems", "--out"]
    assert found["algorithm"] == ["--algorithm"]
    assert found["algorithm: read by astar_po"] == [
        "--beta1", "--estimator", "--beta2", "--baseline-from", "--first-rollouts",
        "--stage1-drift",
    ]  # fmt: skip
    assert found["algorithm: read by grpo, rloo"] == ["--group-size"]
    assert found["checkpoints and logs"][0] == "--health"
    assert max(map(len, found.values())) <= 11


def test_overview_names_every_verb_and_imports_no_torch():
    code = (
        "import sys; from astarpo.cli import main; main(['--help']); "
        "import astarpo.config, astarpo.types; "
        "heavy = {'torch', 'transformers', 'matplotlib', 'pyarrow', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in VERBS)


def test_flags_lie_over_the_config_file(files, monkeypatch, capsys):
    from astarpo.cli import parse

    monkeypatch.chdir(files)
    (files / "c.toml").write_text(
        'model = "policy"\nbeta1 = inf\n[estimate]\nproblems = "good.parquet"\nsamples = 3\n'
    )
    config, _ = parse(["estimate", "--config", "c.toml", "--out", "o", "--samples", "5"])
    settings = json.loads(config.model_dump_json())
    assert (settings["samples"], settings["model"]) == (5, "policy")
    assert settings["beta1"] == "Infinity"
