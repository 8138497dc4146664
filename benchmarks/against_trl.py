"""A*-PO and GRPO(8), here and in TRL 1.16, on equal footing.

    python benchmarks/against_trl.py            # or: make bench
    python benchmarks/against_trl.py --quick    # a minute or two, to see that it runs

Four contenders (`trl_contender.py`), each in a process of its own, take turns: astarpo's A*-PO and
GRPO, TRL's experimental `A2POTrainer` and its `GRPOTrainer`. It reports medians over the turns with
[min, max], and ratios of the two sides within one turn.

The same on both sides: the shipped policy in fp32 (bf16 autocast on CUDA), the sums of the shipped
comparison (`recipes/compare.toml`) and its settings, batch in sequences a step, whole softmax at
temperature 1, one update a rollout, AdamW over all parameters with the same learning rate in every
step, beta1, beta2, GRPO's clip, KL weight and group-normalised advantages, the verifier, threads,
and the held-out evaluation: our engine on the live model, with the same random numbers, its time
left out. No prompts are filtered.

A*-PO's stage 1 counts in full, ours with reading, loading, writing and drawing, of which TRL's
does nothing. "To a reward" is the time on the line between the evaluations around it, as in
`astarpo compare`. Ours writes all samples and metrics to disk at every step; that is timed too.

How TRL is set up: what is fastest of what was tried, and equal mathematics.

- A whole batch in one pass. In four or eight GRPO took 0 to 4% longer on CPU, A2PO, which then also
  samples in smaller batches, up to 14%. But they need less memory, so there is a line for that: a
  short run in four passes of 32, as many as ours learns from at once here.
- In stage 1, which has 8 samples a prompt, 8 to 32 prompts at once were fastest on CPU; 64 took 5%
  more time, 128 15%, 256 twice as much, since the cache is copied at every token. So it gets 32
  there (on CUDA, untried, 128), although it would take the batch of training by itself.
- No gradient checkpointing, logging, progress bar, saving or tracking.
- `generate` with its default cache. The static one took 20% more time on CPU, continuous batching
  six times as much. vLLM needs a GPU and is left out, as it is here.
- `top_k=0`. With A2PO's default of None `generate` falls back on transformers' own 50, although the
  documentation says that it disables the filter.
- GRPO: `loss_type="grpo"` and `use_bias_correction_kl=False`, as our equation has no such ratio.

A fifth run is ours alone: A*-PO without stage 1 (`--baseline-from rollout`), which comparisons
found to pay on this task (docs/experiments.md). It is held against TRL's two as they are.

It refuses to compare where the two sides did different work: other numbers of sequences, or tokens
a sequence more than 5% apart, in stage 1 or in the first steps, before learning tells them apart.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.config import DataConfig
from astarpo.config.base import find_shipped
from astarpo.experiments.records import Curves
from astarpo.experiments.results import cost_of
from astarpo.stages.data import data

SIDES = ("astarpo", "trl")
NAMES = {"astar_po": "A*-PO", "grpo": "GRPO(8)"}
GROUPS = {"astar_po": 1, "grpo": 8}
CONTENDERS = [(side, algorithm) for algorithm in NAMES for side in SIDES]
LEAN = "trl-lean"
"""TRL in micro-batches, run for its memory alone."""
LEAN_PASSES, LEAN_STEPS = 4, 3
ROLLOUT = "astarpo-rollout"
"""A*-PO without stage 1, run for its time to a reward."""
ROLLOUT_SETTINGS = {"train": {"baseline_from": "rollout", "values": None}}
PHASES = ("generate", "verify", "reference", "update", "other")

TASK, SIZE = "arithmetic", 4
PROMPT_TOKENS = NEW_TOKENS = 64
EVAL_EVERY = 5
FIRST_STEPS = 5
"""Steps in which both sides' policies are still much the same."""
TOLERANCE = 0.05
"""Of tokens a sequence."""
START_TOLERANCE = 0.02
"""Of the reward before training: the same random numbers, so only rounding can tell them apart."""

Result = Mapping[str, Any]
Turn = Mapping[tuple[str, str], Result]


class DifferentWorkError(Exception):
    """Two runs generated different amounts: their times do not compare."""


class Work(NamedTuple):
    """What was generated."""

    sequences: int
    tokens: int


def require_same_work(what: str, ours: Work, theirs: Work) -> None:
    """Sees to it that two runs' times may be compared.

    Args:
        what: Names the part of the runs, for the message.
        ours: Of astarpo.
        theirs: Of TRL.

    Raises:
        DifferentWorkError: The sequences differ, or the mean tokens of one by more than 5%.
    """
    if ours.sequences != theirs.sequences:
        raise DifferentWorkError(
            f"{what}: astarpo generated {ours.sequences} sequences and TRL {theirs.sequences}: "
            "their times do not compare"
        )
    mean, their_mean = (work.tokens / work.sequences for work in (ours, theirs))
    apart = abs(mean - their_mean) / min(mean, their_mean)
    if apart > TOLERANCE:
        raise DifferentWorkError(
            f"{what}: astarpo generated {mean:.2f} tokens a sequence and TRL {their_mean:.2f}: "
            f"{apart:.1%} apart, more than {TOLERANCE:.0%}, so their times do not compare"
        )


def check_turn(turn: Turn) -> None:
    """Refuses a turn whose runs did different work, or did not start from the same policy.

    Raises:
        DifferentWorkError: See above; the message has both numbers.
    """
    starts = sorted(result["curve"]["reward"][0] for result in turn.values())
    if starts[-1] - starts[0] > START_TOLERANCE:
        raise DifferentWorkError(
            f"held-out rewards before training are {starts[0]:.3f} and {starts[-1]:.3f}: that is "
            "not the same policy"
        )
    for algorithm, name in NAMES.items():
        ours, theirs = (turn[side, algorithm] for side in SIDES)
        if ours["stage1"]:
            pair = [work_of([result["stage1"]]) for result in (ours, theirs)]
            require_same_work(f"{name}, stage 1", *pair)
        pair = [work_of(result["steps"][:FIRST_STEPS]) for result in (ours, theirs)]
        require_same_work(f"{name}, the first {FIRST_STEPS} steps", *pair)


def work_of(spans: Sequence[Mapping[str, Any]]) -> Work:
    """All that was generated in stage 1 or in some steps."""
    return Work(sum(s["sequences"] for s in spans), sum(s["tokens"] for s in spans))


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        label: What it says.
        algorithm: Of the two runs compared.
        value: Reads it off a run; None where the run does not have it.
        digits: After the point.
        ours: Which of our runs.
        theirs: Which of TRL's runs.
        their_algorithm: Of it, where it is another.
    """

    label: str
    algorithm: str
    value: Callable[[Result], float | None]
    digits: int = 3
    ours: str = "astarpo"
    theirs: str = "trl"
    their_algorithm: str | None = None


def table_rows(target: float) -> list[Row]:
    """All that is compared."""
    rows = [Row("A*-PO stage 1, samples/s", "astar_po", lambda r: _rate(r["stage1"]), 0)]
    for algorithm, name in NAMES.items():
        rows.append(Row(f"{name} step, s", algorithm, lambda r: _per_step(r, None)))
        rows += [
            Row(f"{name} step: {phase}, s", algorithm, lambda r, p=phase: _per_step(r, p))
            for phase in PHASES
        ]

    def seconds_to_target(run: Result) -> float | None:
        cost = cost_of(Curves.model_validate(run["curve"]), target)
        return cost.seconds if cost else None

    to = f"to a reward of {target:g}"
    rows += [
        Row(f"A*-PO {to}, s", "astar_po", seconds_to_target, 1),
        Row(f"A*-PO (no stage 1) {to}, s", "astar_po", seconds_to_target, 1, ROLLOUT),
        Row(f"A*-PO {to}, TRL's GRPO, s", "astar_po", seconds_to_target, 1, their_algorithm="grpo"),
        Row(
            f"A*-PO (no stage 1) {to}, TRL's GRPO, s",
            "astar_po",
            seconds_to_target,
            1,
            ROLLOUT,
            their_algorithm="grpo",
        ),
        Row(f"GRPO(8) {to}, s", "grpo", seconds_to_target, 1),
    ]
    for algorithm, name in NAMES.items():
        rows += [
            Row(
                f"{name} {label}, GiB",
                algorithm,
                lambda r, k=key: r["memory"].get(k),
                2,
                theirs=theirs,
            )
            for key, label, theirs in (
                ("peak_rss_gib", "peak of memory", "trl"),
                ("growth_gib", "peak over imports and model", "trl"),
                ("growth_gib", "peak over the same, TRL in 4 passes", LEAN),
                ("cuda_allocated_gib", "CUDA allocated", "trl"),
                ("cuda_allocated_gib", "CUDA allocated, TRL in 4 passes", LEAN),
                ("cuda_reserved_gib", "CUDA reserved", "trl"),
            )
        ]
    return rows


def _rate(span: Mapping[str, Any]) -> float:
    return span["sequences"] / span["seconds"]


def _per_step(result: Result, phase: str | None) -> float:
    """Mean over all steps of a run."""
    spans = result["steps"]
    seconds = [s["seconds"] if phase is None else s["phases"][phase] for s in spans]
    return statistics.mean(seconds)


def summarize(turns: Sequence[Turn], target: float) -> list[dict[str, Any]]:
    """Median and range of every row over the turns, and of the ratios within each."""
    lines = []
    for row in table_rows(target):
        their_key = row.theirs, row.their_algorithm or row.algorithm
        ours, theirs = (
            [row.value(turn[key]) for turn in turns]
            for key in ((row.ours, row.algorithm), their_key)
        )
        # 0 s is no time to be faster than: such a target was reached before training.
        pairs = [p for p in zip(ours, theirs, strict=True) if p[0] and p[1]]
        line = {"row": row.label, "digits": row.digits}
        line |= {"astarpo": spread(ours), "trl": spread(theirs)}
        line["trl_over_astarpo"] = spread([b / a for a, b in pairs])
        if line["astarpo"] or line["trl"] or "reward" in row.label:
            lines.append(line)
    return lines


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median and range, and how many runs they are of; None where no run has a value."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "median": statistics.median(known),
        "min": min(known),
        "max": max(known),
        "runs": len(known),
    }


def print_table(lines: Sequence[Mapping[str, Any]], num_turns: int) -> None:
    """A line for each row: both sides and their ratio, median [min, max]."""
    print(f"{'median [min, max]':58}{'astarpo':>24}{'TRL':>24}{'TRL / astarpo':>22}")
    for line in lines:
        cells = [_cell(line[side], line["digits"], num_turns) for side in SIDES]
        ratio = _cell(line["trl_over_astarpo"], 2, num_turns)
        print(f"{line['row']:58}{cells[0]:>24}{cells[1]:>24}{ratio:>22}")


def _cell(values: Mapping[str, float] | None, digits: int, num_turns: int) -> str:
    if values is None:
        return "-"
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "min", "max"))
    missing = "" if values["runs"] == num_turns else f" in {values['runs']:.0f} of {num_turns}"
    return f"{median} [{low}, {high}]{missing}"


def run_contender(side: str, algorithm: str, seed: int, work: Path, spec: Mapping[str, Any]) -> Any:
    """Runs one contender in a process of its own and reads what it found.

    Raises:
        SystemExit: It failed; its last words are shown.
    """
    folder = work / f"{side}-{algorithm}-{seed}"
    folder.mkdir()
    own = {"side": side, "algorithm": algorithm, "group": GROUPS[algorithm], "seed": seed}
    if side == LEAN:
        few = {"train": spec["few"], "steps": LEAN_STEPS}
        own |= {"side": "trl", "passes": LEAN_PASSES} | few
    if side == ROLLOUT:
        own |= {"side": "astarpo", "settings": ROLLOUT_SETTINGS}
    paths = folder / "spec.json", folder / "result.json"
    paths[0].write_text(json.dumps(dict(spec) | own | {"work": str(folder)}), encoding="utf-8")
    # Nothing is fetched, and TRL's report of its use is not waited for.
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("trl_contender.py")), *map(str, paths)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{side} {algorithm} failed:\n{done.stdout[-3000:]}")
    return json.loads(paths[1].read_text(encoding="utf-8"))


def run_turns(options: argparse.Namespace, work: Path) -> list[Turn]:
    """Lets the contenders take turns, with another one first in each.

    Raises:
        DifferentWorkError: In a turn two runs did different work.
    """
    spec = {
        "model": find_shipped("shipped:sums"),
        "train": str(work / "train.parquet"),
        "few": str(work / "few.parquet"),
        "test": str(work / "test.parquet"),
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "eval_every": EVAL_EVERY,
        "sequences": options.batch,
        "passes": 1,
        "steps": options.steps,
        "threads": options.threads,
        "device": options.device,
        "settings": {},
    }
    for name, limit in (
        ("train", options.prompts),
        ("few", options.batch),
        ("test", options.held_out),
    ):
        split = "test" if name == "test" else "train"
        data(DataConfig(task=TASK, size=SIZE, split=split, limit=limit, out=spec[name]))
    turns = []
    for seed in range(options.repeats):
        first = seed % len(CONTENDERS)
        turn = {}
        for side, algorithm in CONTENDERS[first:] + CONTENDERS[:first]:
            result = turn[side, algorithm] = run_contender(side, algorithm, seed, work, spec)
            print(
                f"turn {seed + 1} of {options.repeats}: {side} {NAMES[algorithm]}: "
                f"{_per_step(result, None):.3f} s a step, "
                f"reward {result['curve']['reward'][0]:.3f} to {result['curve']['reward'][-1]:.3f}",
                flush=True,
            )
        check_turn(turn)
        lean = {(LEAN, name): run_contender(LEAN, name, seed, work, spec) for name in NAMES}
        rollout = {(ROLLOUT, "astar_po"): run_contender(ROLLOUT, "astar_po", seed, work, spec)}
        turns.append(turn | lean | rollout)
    return turns


def describe_machine(result: Result) -> dict[str, Any]:
    """Where and with what the numbers were taken."""
    packages = ("astarpo", "torch", "transformers", "trl", "accelerate")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": result["threads"],
        "device": result["device"],
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "date": date.today().isoformat(),
    }


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=2048, help="to train on (%(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="sequences a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="of each run (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns, a seed each (%(default)s)")
    parser.add_argument("--target", type=float, default=0.7, help="held-out reward (%(default)s)")
    parser.add_argument("--threads", type=int, help="of each process (PyTorch's choice)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/against_trl.json"))
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    options = parser.parse_args(arguments)
    options.held_out = 512
    if options.quick:
        options.prompts, options.held_out, options.batch = 128, 64, 64
        options.steps, options.repeats, options.target = 5, 1, 0.4
    unit = LEAN_PASSES * max(GROUPS.values())
    if options.batch % unit or options.batch > options.prompts:
        parser.error(f"--batch must be a multiple of {unit} and at most --prompts")
    return options


def main() -> None:
    """Runs everything, prints the table and writes the JSON file."""
    options = parse_options()
    if importlib.util.find_spec("trl") is None:
        sys.exit("TRL is not installed: run make bench, or pip install -e '.[bench]'")
    with tempfile.TemporaryDirectory() as folder:
        try:
            turns = run_turns(options, Path(folder))
        except DifferentWorkError as error:
            sys.exit(f"refused: {error}")
    lines = summarize(turns, options.target)
    machine = describe_machine(next(iter(turns[0].values())))
    print_table(lines, len(turns))
    print(json.dumps(machine))
    report = {
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "machine": machine,
        "summary": lines,
        "turns": [{" ".join(key): result for key, result in turn.items()} for turn in turns],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
