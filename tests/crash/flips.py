"""A single bit flipped in a file: healed, refused by a line, or without effect; never silent."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.crash.artefacts import artefacts, differences, fresh
from tests.crash.results import EQUAL, REFUSED, SILENT, TOLD, UNRULY, Finding, ending, last_line
from tests.crash.server import Trial
from tests.crash.world import World

ATTACK = "flip of a bit"
HALF_TRAINED = "half-trained"


@dataclass(frozen=True)
class Target:
    """A file to damage, and the command that then reads it.

    Attributes:
        what: For people.
        file: Where it is in the folder.
        left_by: The subject that left it behind, or `HALF_TRAINED`.
        read_by: The subject that reads it.
        heals: Whether the command can do without the file: then it must not be refused.
        is_input: Whether the command only reads it, so that it stays as it is.
    """

    what: str
    file: str
    left_by: str
    read_by: str
    heals: bool = False
    is_input: bool = False


_SHARDS = "values/samples-*.parquet"
_STEP = "run/checkpoints/step-000002"
TARGETS = [
    Target("shard", _SHARDS, "estimate", "estimate", heals=True),
    Target("shard, read by train", _SHARDS, "estimate", "train", is_input=True),
    Target("shard, read by export", _SHARDS, "estimate", "export", is_input=True),
    Target("manifest", "values/manifest.json", "estimate", "estimate"),
    Target("manifest, read by train", "values/manifest.json", "estimate", "train", is_input=True),
    Target("values.parquet", "values/values.parquet", "estimate", "estimate", heals=True),
    Target("problem file", "problems.parquet", "data", "estimate", is_input=True),
    Target("problem file, read by evaluate", "problems.parquet", "data", "evaluate", is_input=True),
    Target("checkpoint's weights", f"{_STEP}/model/model.safetensors", HALF_TRAINED, "train", True),
    Target("checkpoint's optimiser", f"{_STEP}/optimizer.safetensors", HALF_TRAINED, "train", True),
    Target("checkpoint's state", f"{_STEP}/state.json", HALF_TRAINED, "train", True),
    Target("checkpoint's model config", f"{_STEP}/model/config.json", HALF_TRAINED, "train", True),
    Target("checkpoint's tokenizer", f"{_STEP}/model/tokenizer.json", HALF_TRAINED, "train", True),
    Target("run's config.json", "run/config.json", HALF_TRAINED, "train"),
    Target("metrics.jsonl", "run/metrics.jsonl", HALF_TRAINED, "train"),
    Target("evaluations.jsonl", "run/evaluations.jsonl", HALF_TRAINED, "train"),
    Target("recipe.json", "all/recipe.json", "run", "run"),
    Target("stages.json", "all/stages.json", "run", "run"),
]


def flip(world: World, target: Target, trials: int, seed: int) -> Iterator[Finding]:
    """Flips one bit at random places of a file, one a trial, and runs the command that reads it."""
    draw = random.Random(seed)
    source = (
        world.half_trained()
        if target.left_by == HALF_TRAINED
        else world.undisturbed(target.left_by)
    )
    for _ in range(trials):
        folder = fresh(world.folder / "trial", like=source)
        path = draw.choice(sorted(folder.glob(target.file)))
        content = bytearray(path.read_bytes())
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        case = f"{path.relative_to(folder)}, byte {place}, bit {bit}"
        yield _judge(world, target, folder, path, case)


def _judge(world: World, target: Target, folder: Path, path: Path, case: str) -> Finding:
    def found(result: str, detail: str = "") -> Finding:
        return Finding(ATTACK, target.what, case, result, detail)

    words = world.subjects[target.read_by].words
    words += ("--resume",) if target.left_by == HALF_TRAINED else ()
    (outcome,) = world.server.run(Trial(words, folder))
    if fault := ending(outcome):
        return found(fault, last_line(outcome))
    if outcome.status:
        return found(UNRULY if target.heals else REFUSED, last_line(outcome))
    whole, _ = world.whole(target.read_by)
    own = artefacts(folder)
    if target.is_input:
        name = str(path.relative_to(folder))
        own[name] = whole[name]
    differing = differences(own, whole)
    if not differing:
        return found(EQUAL)
    named = path.name in outcome.err or path.parent.name in outcome.err
    return found(TOLD if named else SILENT, "; ".join(differing[:6]))
