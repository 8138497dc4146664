"""What hanging answers cost the pool of verifier workers, and what honest ones do.

    python benchmarks/pool.py --out benchmarks/results/pool.json
    python benchmarks/pool.py --math test.jsonl      # CPU time of judging MATH, answer by answer

The first judges whole numbers in boxes, all different, by a reward function that compares them as
MATH's verifier does and loops for ever on some. Those that hang are copies of one answer (`equal`)
or all different. Different ones cost what must be spent on each, whatever the pool does: the share
that hangs times the CPU limit divided by the workers is the least time an answer takes.
"""

import argparse
import json
import os
import random
import statistics
import time
from pathlib import Path

from astarpo.grading.pool import GradingPool
from astarpo.tasks import get_task
from astarpo.verify.boxes import last_boxed
from astarpo.verify.latex import equal, warm_up

VERIFIER = f"reward:{Path(__file__).resolve()}:score"
HANGS = "hang"


def score(completions: list[str], ground_truth: list[str]) -> list[float]:
    """The reward function that the workers load: never returns where it is asked to hang."""
    answer = last_boxed(completions[0])
    assert answer is not None
    while answer.startswith(HANGS):
        pass
    return [float(equal(answer, ground_truth[0]))]


def requests_of(count: int, share: float, kind: str) -> list[tuple[str, str, str]]:
    """Requests of which a share hangs, evenly spread."""
    every = round(1 / share) if share else count + 1
    requests = []
    for n in range(count):
        answer, gold = str(n), str(n)
        if n % every == every - 1:
            answer, gold = (HANGS, "0") if kind == "equal" else (f"{HANGS} {n}", gold)
        asked = {"prompt": "Q", "columns": {"ground_truth": gold}}
        requests.append((VERIFIER, rf"\boxed{{{answer}}}", json.dumps(asked)))
    return requests


def rate(requests: list[tuple[str, str, str]], workers: int, timeout_s: float) -> float:
    """Answers a second of one call, by a pool that is warm but has met none of them."""
    with GradingPool(workers, timeout_s, own_rewards=True) as pool:
        asked = json.dumps({"prompt": "Q", "columns": {"ground_truth": "-1"}})
        pool.grade([(VERIFIER, rf"\boxed{{-{n}}}", asked) for n in range(1, 50)])
        start = time.perf_counter()
        verdicts = pool.grade(requests)
        seconds = time.perf_counter() - start
    for request, verdict in zip(requests, verdicts, strict=True):
        assert verdict.status == ("timeout" if HANGS in request[1] else "ok"), (request, verdict)
    return len(requests) / seconds


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Medians over the repeats, every condition in turn within each."""
    conditions = [("none", 0.0, arguments.answers)]
    conditions += [("equal", share, arguments.answers) for share in (0.01, 0.05)]
    conditions += [("different", share, arguments.answers // 10) for share in (0.01, 0.05)]
    rates: dict[str, list[float]] = {}
    for _ in range(arguments.repeats):
        for kind, share, count in conditions:
            requests = requests_of(count, share, kind)
            name = f"{share:.0%} hang, {kind}" if share else "none hang"
            rates.setdefault(name, []).append(rate(requests, arguments.workers, arguments.timeout))
            print(f"{name}: {rates[name][-1]:.0f} answers a second", flush=True)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "settings": {key: value for key, value in vars(arguments).items() if key != "out"},
        "cpus": os.cpu_count(),
        "answers_a_second": {name: round(value, 1) for name, value in medians.items()},
        "share_of_the_rate": {
            name: round(value / medians["none hang"], 3) for name, value in medians.items()
        },
    }


def costs(source: str) -> dict[str, object]:
    """CPU time of judging each reference answer of MATH against itself and against another's."""
    task = get_task("math")
    problems = list(task.problems(source=source, split="test", size=None, seed=0))
    golds = [problem.ground_truth for problem in problems]
    others = random.Random(0).sample(golds, len(golds))
    warm_up()
    taken = []
    for gold, other in zip(golds, others, strict=True):
        for answer in (gold + "+0", other):
            start = time.process_time()
            task.grade(rf"\boxed{{{answer}}}", gold)
            taken.append(time.process_time() - start)
    taken.sort()
    return {"answers": len(taken), "p99_s": taken[len(taken) * 99 // 100], "slowest_s": taken[-1]}


def main() -> None:
    """Measures, prints the result as JSON, and writes it where it is wanted."""
    parser = argparse.ArgumentParser(description="Cost of hanging answers")
    parser.add_argument("--answers", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=5.0)
    parser.add_argument("--math", help="MATH's test.jsonl: measure honest answers instead")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = costs(arguments.math) if arguments.math else measure(arguments)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
