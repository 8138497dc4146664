"""Two questions that the paper leaves open, on sums of four terms and shipped policies.

    python benchmarks/open_questions.py hopeless --out runs/hopeless
    python benchmarks/open_questions.py running --out runs/running

`hopeless`: what problems that the reference hardly ever solves do to A*-PO, and what is to be done
about them. The policy is `mixed`. Problems of which it solves none in 16 samples count as hopeless;
training sets of 512 hold a share of them, 0 to .9. Every way gets the same total of samples, those
of stage 1 included (not the 16, which only sort the problems).

`running`: a V* that stays as stage 1 found it, against one that follows the policy (the tracker of
SPO, with A*-PO's loss), for few problems that are seen often and many that are seen seldom. The
policy is `beliefs`; equal steps, stage 1 not counted; scores in and out of distribution.

Each run is done once: the same command goes on where it stopped. Results go to results.json in the
folder, the table to the screen.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import astarpo
from astarpo.algorithms.astar_po import AStarPO
from astarpo.algorithms.running_value import RunningValue
from astarpo.config.documents import find_recipe, read_document
from astarpo.types import Problem
from astarpo.values.estimators import Plugin

PROBLEMS, TOTAL_SAMPLES = 512, 8192
SHARES = (0.0, 0.3, 0.6, 0.9)
POOL, SORTING_SAMPLES = 3072, 16
RECIPE = read_document(find_recipe("compare-beliefs"))
"""Whose settings all runs here have."""
LIMITS: dict[str, Any] = {
    name: RECIPE[name] for name in ("max_prompt_tokens", "max_new_tokens", "max_sequences")
}
TRAINING: dict[str, Any] = LIMITS | RECIPE["train"]
MEAN: dict[str, Any] = {"beta1": float("inf")}
Scores = dict[str, float]


class RunningAStarPO(AStarPO):
    """A*-PO's loss with values that follow the policy; every prompt is drawn as often as any."""

    running = RunningValue(exploration=1e6)

    def __init__(self, beta2: float) -> None:
        super().__init__(beta2)


@dataclass(frozen=True)
class Bench:
    """Where runs go, and what has been found so far."""

    out: Path

    @property
    def _file(self) -> Path:
        return self.out / "results.json"

    @property
    def found(self) -> dict[str, Scores]:
        """Scores by the name of a run."""
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def run(self, name: str, work: Callable[[Path], Scores]) -> None:
        """Does a run that is not done yet, in a new folder of its own."""
        if name in self.found:
            return
        print(f"== {name}", flush=True)
        trial = len(list(self.out.glob(f"{name}.*")))  # one that was cut off leaves its folder
        scores = work(self.out / f"{name}.{trial}")
        self._file.write_text(json.dumps(self.found | {name: scores}, indent=1))

    def table(self, scores: Sequence[str]) -> str:
        """Mean and standard deviation over seeds; a run's name ends in its seed."""
        by_way: dict[str, list[Scores]] = {}
        for name, each in self.found.items():
            by_way.setdefault(name.rpartition("-")[0], []).append(each)
        lines = [f"| | seeds | {' | '.join(scores)} |", "|-" * (len(scores) + 2) + "|"]
        for way, runs in by_way.items():
            cells = [_spread([run[score] for run in runs]) for score in scores]
            lines.append(f"| {way} | {len(runs)} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


def _sums(limit: int, split: str = "train", size: int = 4) -> astarpo.ProblemSet:
    return astarpo.load_problems("arithmetic", split=split, limit=limit, size=size, seed=1)


def _avg(model: Any, problems: Sequence[Problem], out: Path) -> float:
    scores = astarpo.evaluate(model=model, problems=problems, samples=4, out=out, **LIMITS)
    return scores["avg_at_4"].value


def _train(model: Any, problems: Sequence[Problem], out: Path, **settings: Any) -> astarpo.Run:
    settings = TRAINING | settings
    return astarpo.train(model=model, problems=problems, out=out, **settings)


# Hopeless problems.


@dataclass(frozen=True)
class Way:
    """How A*-PO deals with a training set, in settings of the two stages.

    Attributes:
        stage1: Of estimate; None where there is no stage 1.
        stage2: Of train, which tell how V* is estimated too.
        rounds: How often the trained policy becomes the reference of another stage 1.
    """

    stage1: dict[str, Any] | None
    stage2: dict[str, Any]
    rounds: int = 1

    @property
    def stage1_samples(self) -> int:
        """Of one round."""
        if self.stage1 is None:
            return 0
        return self.stage1.get("budget_samples") or PROBLEMS * self.stage1["samples"]


SHRUNK: dict[str, Any] = MEAN | {"estimator": "shrunk"}
BUDGET: dict[str, Any] = SHRUNK | {"budget_samples": 2 * PROBLEMS, "samples": 1}
WAYS = {
    "no stage 1": Way(None, {"baseline_from": "rollout"}),
    "one V*": Way({"samples": 1}, MEAN | {"estimator": "constant"}),
    "N = 4": Way({"samples": 4}, MEAN),
    "N = 4, filter": Way({"samples": 4}, MEAN | {"filter": "all_wrong"}),
    "budget of 2, filter": Way(BUDGET, SHRUNK | {"filter": "all_wrong"}),
    "N = 2, reference renewed once": Way({"samples": 2}, MEAN, rounds=2),
}


def sorted_by_hope(
    problems: astarpo.ProblemSet, folder: Path
) -> tuple[list[Problem], list[Problem]]:
    """Problems that the reference solved none of, and the others."""
    table = astarpo.estimate(
        model="shipped:mixed",
        problems=problems,
        samples=SORTING_SAMPLES,
        out=folder,
        seed=999,  # not one of those that train
        **LIMITS,
    )
    mean_P = table.values(problems, Plugin(beta1=float("inf"))).mean_P
    pairs = list(zip(problems, mean_P, strict=True))
    return [p for p, mean in pairs if mean == 0], [p for p, mean in pairs if mean > 0]


def hopeless(bench: Bench, seeds: Sequence[int], shares: Sequence[float]) -> None:
    """Every way at every share of hopeless problems."""
    bad, good = sorted_by_hope(_sums(POOL), bench.out / "sorting-train")
    held_bad, held_good = sorted_by_hope(_sums(1024, "test"), bench.out / "sorting-test")
    print(f"hopeless: {len(bad)} of {POOL}, held out {len(held_bad)} of 1024")
    held_out = {"hopeless": held_bad[:256], "others": held_good[:256]}
    for seed in seeds:
        for share in shares:
            number = round(PROBLEMS * share)
            chosen = bad[:number] + good[: PROBLEMS - number]
            random.Random(seed).shuffle(chosen)
            for name, way in WAYS.items():
                bench.run(f"{share}-{name}-{seed}", _way_run(way, chosen, held_out, seed))
    print(bench.table(["hopeless", "others", "kl", "steps"]))


def _way_run(
    way: Way, problems: list[Problem], held_out: dict[str, list[Problem]], seed: int
) -> Callable[[Path], Scores]:
    steps = (TOTAL_SAMPLES // way.rounds - way.stage1_samples) // TRAINING["prompts_per_step"]

    def work(out: Path) -> Scores:
        model, kl = "shipped:mixed", 0.0
        for turn in range(way.rounds):
            place = out / f"round-{turn}"
            stage2 = way.stage2 | {"seed": seed, "steps": steps}
            if way.stage1 is not None:
                stage1 = LIMITS | way.stage1 | {"seed": seed, "out": place / "values"}
                stage2["values"] = astarpo.estimate(model=model, problems=problems, **stage1)
            run = _train(model, problems, place / "train", **stage2)
            model, kl = run.model_path, run.metrics[-1]["kl"]
        scores = {name: _avg(model, each, out / f"{name}.json") for name, each in held_out.items()}
        return scores | {"kl": kl, "steps": steps * way.rounds}

    return work


# A fixed V* against a running one.


def running(
    bench: Bench, seeds: Sequence[int], numbers: Sequence[int], counts: Sequence[int]
) -> None:
    """Both values, from few samples and from many, for few problems and for many."""
    held_out = {f"{size} terms": list(_sums(256, "test", size)) for size in (4, 3, 5)}
    held_out["4 terms"] = list(_sums(512, "test"))
    for seed in seeds:
        for number in numbers:
            problems = _sums(number)
            for samples in counts:
                for name, settings in _values(samples).items():
                    work = _value_run(settings, samples, problems, held_out, seed)
                    bench.run(f"{number} problems, N = {samples}, {name}-{seed}", work)
    print(bench.table(["trained on", *held_out, "kl"]))


def _values(samples: int) -> dict[str, dict[str, Any]]:
    fixed: dict[str, Any] = (
        {"estimator": "constant"} if samples == 1 else {}
    )  # one sample tells no V* of its own
    return {"fixed": MEAN | fixed, "running": MEAN | {"algorithm": RunningAStarPO}}


def _value_run(
    settings: dict[str, Any],
    samples: int,
    problems: astarpo.ProblemSet,
    held_out: dict[str, list[Problem]],
    seed: int,
) -> Callable[[Path], Scores]:
    def work(out: Path) -> Scores:
        stage1 = LIMITS | {"samples": samples, "seed": seed, "out": out / "values"}
        values = astarpo.estimate(model="shipped:beliefs", problems=problems, **stage1)
        stage2 = settings | {"values": values, "seed": seed, "steps": 120}
        run = _train("shipped:beliefs", problems, out / "train", **stage2)
        sets = held_out | {"trained on": list(problems)[:512]}
        scores = {name: _avg(run, each, out / f"{name}.json") for name, each in sets.items()}
        return scores | {"kl": run.metrics[-1]["kl"]}

    return work


def main() -> None:
    """Does the runs of one question that are not done yet, and prints the table."""
    parser = argparse.ArgumentParser(description="Two questions that the paper leaves open.")
    parser.add_argument("question", choices=["hopeless", "running"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shares", default=",".join(map(str, SHARES)), help="of hopeless")
    parser.add_argument("--problems", default="128,2048", help="of running")
    parser.add_argument("--samples", default="1,8", help="of running: of each problem")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = [int(seed) for seed in args.seeds.split(",")]
    bench = Bench(args.out)
    if args.question == "hopeless":
        hopeless(bench, seeds, [float(share) for share in args.shares.split(",")])
    else:
        numbers, counts = args.problems.split(","), args.samples.split(",")
        running(bench, seeds, [int(n) for n in numbers], [int(n) for n in counts])


if __name__ == "__main__":
    main()
