"""Two processes with one --out: one does the work, or both; what is there in the end is whole."""

import random
import signal
from collections.abc import Iterator

from tests.crash.kills import judge
from tests.crash.results import UNRULY, Finding, ending, last_line
from tests.crash.server import COUNT, KILL, Trial
from tests.crash.world import World

ATTACK = "two at once"


def run_pairs(world: World, name: str, trials: int, seed: int) -> Iterator[Finding]:
    """Starts a command twice; in every other trial the first is killed at some file operation."""
    draw = random.Random(seed)
    words = world.subjects[name].words
    for number in range(trials):
        folder = world.start(name, world.folder / "trial")
        at = draw.randint(1, world.whole(name)[1]) if number % 2 else 0
        delay_s = draw.choice([0.0, 0.0, draw.uniform(0, 1)])
        both = world.server.run(
            Trial(words, folder, fault=KILL if at else COUNT, at=at),
            Trial(words, folder, delay_s=delay_s),
        )
        case = f"trial {number}: the second {delay_s:.2f} s later"
        case += f", the first killed at {at}" if at else ""
        yield _judge(world, name, case, both, killed=bool(at))


def _judge(world: World, name: str, case: str, both: list, *, killed: bool) -> Finding:
    folder = world.folder / "trial"
    for outcome in both:
        if killed and outcome.status == -signal.SIGKILL and not outcome.hung:
            continue
        if fault := ending(outcome):
            return Finding(ATTACK, name, case, fault, last_line(outcome))
    if not killed and all(outcome.status for outcome in both):
        return Finding(ATTACK, name, case, UNRULY, f"neither finished: {last_line(both[1])}")
    return judge(world, name, folder, ATTACK, case, world.go_on(name, folder))
