"""The one sentence over a report: what training changed, and whether that is beyond chance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from astarpo.reports.changes import verdict_of
from astarpo.reports.curves import SMOOTH
from astarpo.reports.overview import score_name

Run = Mapping[str, Any]


class Claim(NamedTuple):
    """One part of a headline.

    Attributes:
        words: What is claimed, such as `avg@4 0.433 → 0.906 (+0.474 ± 0.024)`.
        verdict: `better` or `worse` where that is beyond chance, else nothing.
    """

    words: str
    verdict: str = ""


def headline(run: Run) -> list[Claim]:
    """The most that can be said of a run: its scores, else its held-out reward, else how far it is.

    Every score that got significantly worse is among the claims.
    """
    return [*_main(run), *_suites(run)]


def _main(run: Run) -> list[Claim]:
    scored = _scores(run)
    if scored:
        return scored
    if len(run["held_out"]["step"]) > 1:
        return [_held_out(run["held_out"])]
    rewards = [reward for reward in run["curves"]["reward"] if reward is not None]
    if len(rewards) == 1:
        words = f"training reward {rewards[0]:.3f} at the only step so far"
        return [Claim(words), Claim("not measured on held-out problems yet")]
    if rewards:
        width = min(SMOOTH, len(rewards) // 2)
        first, last = np.mean(rewards[:width]), np.mean(rewards[-width:])
        steps = "step" if width == 1 else f"{width} steps"
        words = f"training reward {first:.3f} → {last:.3f} (the first {steps} against the last)"
        return [Claim(words), Claim("not measured on held-out problems yet")]
    if run["stage1"]:
        found = run["stage1"]
        mean, count = found["mean_reward"], found["num_problems"]
        words = f"mean reward of the reference {mean:.3f} on {count:,} problems"
        return [Claim(words), Claim("no training step yet")]
    return [Claim("nothing is measured yet")]


def caution(runs: Sequence[Run]) -> str | None:
    """What a report of single seeds cannot tell; None where seeds are not known or repeated."""
    seeds = [run["seed"] for run in runs]
    if not any(run["curves"]["step"] for run in runs) or None in seeds:
        return None
    if len(runs) == 1:
        return (
            f"One run, seed {seeds[0]}: intervals are over test problems, and another seed may "
            "change more than they span. astarpo compare trains several seeds."
        )
    differ = "a difference between them may be one between seeds; astarpo compare trains several."
    if len(set(seeds)) == 1:
        return f"All runs have seed {seeds[0]}: {differ}"
    algorithms = [str(run["algorithm"]) for run in runs]
    if alone := [name for name in dict.fromkeys(algorithms) if algorithms.count(name) == 1]:
        return f"One seed only of {', '.join(alone)}: {differ}"
    return None


def _scores(run: Run) -> list[Claim]:
    before, after = (run["scores"].get(kind, {}) for kind in ("reference", "trained"))
    shared = [name for name in before if name in after]
    main = [name for name in shared if name.startswith("avg_at_")] + ["pass_at_1"]
    claims = []
    for name in dict.fromkeys([*main, *shared]):
        change = run["changes"].get(name)
        verdict = verdict_of(change)
        if name not in shared or (name not in main and verdict != "worse"):
            continue
        words = f"{score_name(name)} {before[name]['value']:.3f} → {after[name]['value']:.3f}"
        if change:
            half = (change["high"] - change["low"]) / 2
            words += f" ({change['value']:+.3f} ± {half:.3f})"
        claims.append(Claim(words, verdict))
    return claims


def _suites(run: Run) -> list[Claim]:
    """The benchmarks that changed beyond chance, those that got better first."""
    claims = []
    for suite in run["suites"]:
        verdicts = {row["name"]: verdict_of(row["change"]) for row in suite["rows"]}
        for wanted in ("better", "worse"):
            if names := [name for name, verdict in verdicts.items() if verdict == wanted]:
                claims.append(Claim(f"suite {suite['suite']}: {', '.join(names)}", wanted))
    return claims


def _held_out(columns: Mapping[str, Sequence[float]]) -> Claim:
    """First against last held-out evaluation; beyond chance where their intervals are apart."""
    first, last = columns["reward"][0], columns["reward"][-1]
    verdict = ""
    if columns["reward_low"][-1] > columns["reward_high"][0]:
        verdict = "better"
    elif columns["reward_high"][-1] < columns["reward_low"][0]:
        verdict = "worse"
    steps = f"step {columns['step'][0]} to {columns['step'][-1]}"
    return Claim(f"held-out reward {first:.3f} → {last:.3f} ({steps})", verdict)
