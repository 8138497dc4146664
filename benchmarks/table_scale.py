"""What the parts that touch every problem cost, by the number of problems: 10k, 100k, a million.

    python benchmarks/table_scale.py [--problems 10000 100000 1000000] [--folder DIR]

Makes a problem set and a finished value table with 8 samples of each problem, of about the lengths
that a 1.5B model writes on GSM8K (prompts of 90 tokens, answers of 200), without sampling anything.
Then runs each verb in a process of its own:

    plan      `estimate --dry-run` for twice as many samples: which are missing
    estimate  on the finished table: shards checked, samples counted, V* and its picture written
    train     up to where the model would be loaded: prompts, their V*, digests, the first step's
    export    for verl
    report    of a training run on these problems

Seconds are those of a process, Python's and torch's imports included, by its CPU and by the clock;
the best of some runs. Memory is the most that the process held (`ru_maxrss`). A table of a million
problems has 5 GB, which are written below `--folder`.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from astarpo.config import EstimateConfig, ExportConfig, ReportConfig, TrainConfig
from astarpo.runtime.tables import markdown_table

VERBS = ("plan", "estimate", "train", "export", "report")
SAMPLES_EACH = 8
SHARD_PROBLEMS = 256
RESULTS = Path(__file__).parent / "results" / "table_scale.json"


def estimate_config(folder: Path, samples: int = SAMPLES_EACH) -> EstimateConfig:
    """Stage 1 on these problems."""
    return EstimateConfig(
        model=str(folder / "model"), problems=folder / "problems.parquet", out=folder / "values",
        max_prompt_tokens=512, samples=samples, shard_problems=SHARD_PROBLEMS, device="cpu",
    )  # fmt: skip


def train_config(folder: Path, out: str = "run") -> TrainConfig:
    """Stage 2 on these problems."""
    return TrainConfig(
        model=str(folder / "model"), problems=folder / "problems.parquet", out=folder / out,
        values=folder / "values", eval_problems=folder / "held.parquet", device="cpu",
        filter="all_wrong",
    )  # fmt: skip


def run_verb(verb: str, folder: Path, number: int) -> None:
    """Runs one verb, as far as it goes without a model that is worth anything, or makes files."""
    if verb == "make":
        import_module("made_table").make(folder, number)
    elif verb == "plan":
        stage1 = import_module("astarpo.stages.estimate")
        print("\n".join(stage1.preview(estimate_config(folder, 2 * SAMPLES_EACH))))
    elif verb == "estimate":
        import_module("astarpo.stages.estimate").estimate(estimate_config(folder))
    elif verb == "train":
        prepare_training(folder)
    elif verb == "export":
        config = ExportConfig(
            table=folder / "values", problems=folder / "problems.parquet",
            out=folder / "export.parquet", overwrite=True,
        )  # fmt: skip
        import_module("astarpo.verbs.export").export(config)
    else:
        config = ReportConfig(runs=[folder / "run"])
        print(import_module("astarpo.verbs.report").report(config))


def prepare_training(folder: Path) -> None:
    """All that training does before its first rollout, but for the model."""
    config = train_config(folder, "new")
    inputs = import_module("astarpo.stages.train").prepare(config)
    digests = import_module("astarpo.training.identity").input_digests(config, inputs)
    schedule = import_module("astarpo.training.schedule")
    prompts, _ = schedule.step_prompts(inputs.prompts, inputs.algorithm, config, step=1)
    print(len(inputs.prompts), inputs.longest_prompt, prompts[0].problem.id, digests)


def measured(folder: Path, verb: str, number: int = 0) -> dict[str, float]:
    """Seconds and MiB of a verb in a process of its own."""
    started = time.perf_counter()
    words = [sys.executable, __file__, "--verb", verb, "--folder", folder, "--problems", number]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{verb}: {done.stderr}")
    used = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": seconds, **used}


def measure(
    folder: Path, num_problems: int, verbs: list[str], num_runs: int
) -> dict[str, dict[str, float]]:
    """The best of some runs of each verb, and the most memory of them."""
    found = {}
    for verb in verbs:
        runs = [measured(folder, verb) for _ in range(num_runs)]
        found[verb] = {
            "seconds": round(min(run["seconds"] for run in runs), 1),
            "cpu_seconds": round(min(run["cpu_seconds"] for run in runs), 1),
            "mib": round(max(run["mib"] for run in runs)),
        }
        print(f"{num_problems:>9,} {verb:9} {found[verb]}", file=sys.stderr, flush=True)
    return found


def shown(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as a table in Markdown: seconds of CPU, seconds by the clock, memory."""
    rows = [["problems", *VERBS]]
    for number, found in results.items():
        cells = [
            f"{found[v]['cpu_seconds']:.0f} s CPU, {found[v].get('seconds', float('nan')):.0f} s, "
            f"{found[v]['mib'] / 1024:.2f} GiB"
            if v in found
            else "-"
            for v in VERBS
        ]
        rows.append([f"{int(number):,}", *cells])
    return "\n".join(markdown_table(rows, right=set(range(len(rows[0])))))


def main() -> None:
    """Makes and measures each size, or runs one verb for the process that measures it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where to make the files; kept if given")
    parser.add_argument("--runs", type=int, default=2, help="the best of so many counts")
    parser.add_argument("--verbs", nargs="+", default=list(VERBS), choices=VERBS)
    parser.add_argument("--verb", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.verb:
        run_verb(asked.verb, asked.folder, asked.problems[0])
        used = resource.getrusage(resource.RUSAGE_SELF)
        seconds = used.ru_utime + used.ru_stime
        print(json.dumps({"cpu_seconds": seconds, "mib": used.ru_maxrss / 1024}))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for number in asked.problems:
        folder = (asked.folder or Path(tempfile.mkdtemp())) / str(number)
        if not (folder / "run").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            # In a process of its own, since a process begins with its parent's `ru_maxrss`.
            measured(folder, "make", number)
            measured(folder, "estimate")  # finishes the table
        found = measure(folder, number, asked.verbs, asked.runs)
        results[str(number)] = results.get(str(number), {}) | found
        if asked.folder is None:
            shutil.rmtree(folder.parent)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(shown(results))


if __name__ == "__main__":
    main()
