r"""How far the verifiers of MATH and GSM8K can be fooled, and what they miss, on published data.

    python benchmarks/hacks.py --data FOLDER [--limit N] [--out hacks.json]

FOLDER holds `math/test.jsonl` and `gsm8k/test.jsonl` as their authors publish them. Four counts:

- **Golds**: published solutions that are judged right for their own gold, and golds in a dress that
  is not the same text (`x = `, spacing), so that they have to be read.
- **Boxed formulas**: problems of which boxing some formula of the prompt, unchanged, earns 1. Where
  the formula is the gold itself, up to signs of units, nobody who sees the response alone can tell;
  those are counted apart. And the rate of the policy that always boxes the first formula.
- **Neighbours**: each gold against the same gold with one digit raised, one letter changed or its
  sign turned, alone and as `I = ...`; and, times `10^{-20}`, against the same times `10^{-21}`. All
  are unequal but for a few, which are listed.
- **Others**: each gold against the five that follow it in alphabetical order.
"""

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from astarpo.grading.pool import GradingPool
from astarpo.tasks import get_task
from astarpo.types import Problem
from astarpo.verify.notation import compact, plain, split_percent, without_unit

_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$((?:\\.|[^$\\])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL
)
_NEXT = str.maketrans("0123456789", "1234567890")


def main() -> None:
    """Prints the counts and writes them where `--out` says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="problems of each set (default: all)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    math = _problems("math", args.data / "math" / "test.jsonl", args.limit)
    gsm8k = _problems("gsm8k", args.data / "gsm8k" / "test.jsonl", args.limit)
    with GradingPool(args.workers, timeout_s=60.0) as pool:
        counts = (
            ("math golds", lambda: _golds(pool, math)),
            ("math boxed formulas", lambda: _boxed_formulas(pool, math)),
            ("gsm8k golds", lambda: _golds(pool, gsm8k)),
            ("gsm8k neighbours", lambda: _judge_wrong(pool, "gsm8k", _neighbours(gsm8k))),
            ("math neighbours", lambda: _judge_wrong(pool, "math", _neighbours(math))),
            ("math others", lambda: _judge_wrong(pool, "math", _others(math))),
        )
        for name, count in counts:
            found[name] = count()
            print(name, json.dumps(found[name], indent=1, ensure_ascii=False), flush=True)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1, ensure_ascii=False))


def _problems(task: str, source: Path, limit: int | None) -> list[Problem]:
    problems = get_task(task).problems(source=str(source), split="test", size=None, seed=0)
    return list(problems)[:limit]


def _golds(pool: GradingPool, problems: list[Problem]) -> dict[str, Any]:
    task = get_task(problems[0].data_source).name
    said = "solution" if task == "math" else "answer"
    start = time.perf_counter()
    own = pool.grade([(task, p.extra[said], p.ground_truth) for p in problems])
    report: dict[str, Any] = {
        "problems": len(problems),
        "solutions judged right": sum(v.reward == 1 for v in own),
        "solutions a second": round(len(own) / (time.perf_counter() - start), 1),
        "judged wrong": [
            [p.id, p.ground_truth, v.status]
            for p, v in zip(problems, own, strict=True)
            if v.reward < 1
        ],
    }
    if task == "math":
        start = time.perf_counter()
        dressed = pool.grade(
            [("math", rf"\boxed{{q = {p.ground_truth}}}", p.ground_truth) for p in problems]
        )
        report["golds as q = gold judged right"] = sum(v.reward == 1 for v in dressed)
        report["golds as q = gold a second"] = round(
            len(dressed) / (time.perf_counter() - start), 1
        )
    return report


def _boxed_formulas(pool: GradingPool, problems: list[Problem]) -> dict[str, Any]:
    boxed = [
        (number, rank, formula)
        for number, problem in enumerate(problems)
        for rank, formula in enumerate(_formulas(problem.extra["question"]))
    ]
    verdicts = pool.grade(
        [("math", rf"\boxed{{{f}}}", problems[number].ground_truth) for number, _, f in boxed]
    )
    itself, others, first = set(), {}, set()
    for (number, rank, formula), verdict in zip(boxed, verdicts, strict=True):
        if verdict.reward < 1:
            continue
        gold = problems[number].ground_truth
        if _bare(formula) == _bare(gold):
            itself.add(number)
        else:
            others.setdefault(number, [formula, gold])
            if rank == 0:
                first.add(number)
    return {
        "formulas": len(boxed),
        "problems whose gold itself stands in the prompt": len(itself - others.keys()),
        "problems where another formula earns 1": len(others),
        "percent of problems": round(100 * len(others) / len(problems), 2),
        "percent, always boxing the first formula": round(100 * len(first) / len(problems), 2),
        "statuses": Counter(verdict.status for verdict in verdicts),
        "which": list(others.values()),
    }


def _formulas(question: str) -> list[str]:
    found = (next(g for g in m.groups() if g is not None) for m in _FORMULA.finditer(question))
    return list(dict.fromkeys(formula.strip().rstrip(".,;") for formula in found))


def _bare(latex: str) -> str:
    return compact(split_percent(without_unit(plain(latex)))[0])


def _neighbours(problems: list[Problem]) -> Iterator[tuple[str, str]]:
    """Pairs of an answer and a gold that differ in one sign."""
    for gold in dict.fromkeys(p.ground_truth for p in problems):
        places = [m.start() for m in re.finditer(r"\d|(?<![A-Za-z\\])[a-z](?![A-Za-z])", gold)]
        for place in places:
            sign = gold[place]
            other = sign.translate(_NEXT) if sign.isdigit() else ("u" if sign != "u" else "v")
            changed = gold[:place] + other + gold[place + 1 :]
            yield changed, gold
            if problems[0].extra.get("solution") and "=" not in gold:
                yield f"I = {changed}", f"I = {gold}"
        yield (gold[1:] if gold.startswith("-") else f"-{gold}"), gold
        if gold.isdigit() and gold != "0":
            yield rf"{gold} \times 10^{{-21}}", rf"{gold} \times 10^{{-20}}"


def _others(problems: list[Problem]) -> Iterator[tuple[str, str]]:
    golds = sorted({p.ground_truth for p in problems})
    for place, gold in enumerate(golds):
        yield from ((other, gold) for other in golds[place + 1 : place + 6])


def _judge_wrong(
    pool: GradingPool, task: str, neighbours: Iterator[tuple[str, str]]
) -> dict[str, Any]:
    pairs = list(neighbours)
    form = r"\boxed{%s}" if task == "math" else "#### %s"
    verdicts = pool.grade([(task, form % answer, gold) for answer, gold in pairs])
    equal = [list(pair) for pair, v in zip(pairs, verdicts, strict=True) if v.reward == 1]
    return {"pairs": len(pairs), "judged equal": len(equal), "which": equal}


if __name__ == "__main__":
    main()
