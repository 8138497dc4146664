"""A tiny policy and problems, and the commands that are attacked."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.crash.artefacts import artefacts, fresh
from tests.crash.server import KILL, Outcome, Server, Trial

RECIPE = """\
max_prompt_tokens = 64
max_new_tokens = 12
device = "cpu"

[data]
task = "arithmetic"
limit = 8
size = 2

[test]
limit = 4

[warm-data]
limit = 16

[warm-start]
steps = 2
batch_size = 4
hidden_size = 16
layers = 1
heads = 2

[estimate]
samples = 2
shard_problems = 4
allow_truncated = true

[train]
steps = 2
prompts_per_step = 4
checkpoint_every = 1
lr = 1e-3

[evaluate]
samples = 1
"""

LONG_STEPS = 30
"""Of training that is signalled at random moments."""


@dataclass(frozen=True)
class Subject:
    """A command that is attacked.

    Attributes:
        words: All of its words; what it writes is relative to the folder it runs in.
        after: The subject in a copy of whose folder it runs; None for an empty one.
    """

    words: tuple[str, ...]
    after: str | None = None


class World:
    """Inputs in a folder, and what each command makes of them when nothing disturbs it.

    Attributes:
        folder: Where everything is.
        server: Runs the processes.
        subjects: The commands by name, which is the verb's but for `resume`.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        """Makes the inputs."""
        self.folder, self.server = folder, server
        self.inputs = inputs = folder / "inputs"
        inputs.mkdir(parents=True)
        write_rows(inputs / "rows.jsonl", range(8))
        write_rows(inputs / "held-out.jsonl", range(8, 12))
        (inputs / "recipe.toml").write_text(RECIPE)
        self.subjects = _subjects(inputs)
        self._whole: dict[str, tuple[dict[str, bytes], int]] = {}
        shutil.copytree(self.undisturbed("warm-start") / "policy", inputs / "policy")
        self._make("data", "gsm8k", "--source", "held-out.jsonl", "--out", "held-out.parquet")

    def _make(self, *words: str) -> None:
        (outcome,) = self.server.run(Trial(words, self.inputs))
        assert outcome.status == 0, outcome.err

    def start(self, name: str, folder: Path) -> Path:
        """Makes `folder` what a command finds before it has run for the first time."""
        after = self.subjects[name].after
        return fresh(folder, like=self.undisturbed(after) if after else None)

    def undisturbed(self, name: str) -> Path:
        """The folder in which a command has run without being disturbed."""
        self.whole(name)
        return self.folder / "undisturbed" / name

    def whole(self, name: str) -> tuple[dict[str, bytes], int]:
        """What a command leaves when nothing disturbs it, and its number of file operations."""
        if name not in self._whole:
            folder = self.start(name, self.folder / "undisturbed" / name)
            (outcome,) = self.server.run(Trial(self.subjects[name].words, folder))
            assert outcome.status == 0, outcome.err
            self._whole[name] = artefacts(folder), outcome.operations
        return self._whole[name]

    def go_on(self, name: str, folder: Path) -> Outcome:
        """Runs a command again as a user would: as it was, then with --resume where so advised.

        What a killed process left over is removed by the next that writes beside it: where there is
        nothing left for the command to write, another does.
        """
        words = self.subjects[name].words
        (outcome,) = self.server.run(Trial(words, folder))
        if outcome.is_refusal and "--resume" in outcome.err:
            (outcome,) = self.server.run(Trial((*words, "--resume"), folder))
        elif outcome.is_refusal and any(folder.glob(".unfinished-*")):
            rows = str(self.inputs / "rows.jsonl")
            self._make("data", "gsm8k", "--source", rows, "--out", str(folder / "other.parquet"))
            (folder / "other.parquet").unlink()
        return outcome

    def half_trained(self) -> Path:
        """A folder in which training was killed once it had two checkpoints."""
        folder = self.folder / "half-trained"
        if not folder.exists():
            for at in range(self.whole("train")[1] // 2, self.whole("train")[1], 4):
                self.start("train", folder)
                self.server.run(Trial(self.subjects["train"].words, folder, fault=KILL, at=at))
                if (folder / "run/checkpoints/step-000002/state.json").exists():
                    break
        return folder


def write_rows(path: Path, numbers: Iterable[int]) -> None:
    """Writes questions whose answers a policy soon knows to be digits, in GSM8K's layout."""
    rows = [{"question": f"Item {i}:", "answer": f"#### {i % 3}"} for i in numbers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _subjects(inputs: Path) -> dict[str, Subject]:
    policy, problems = ("--model", str(inputs / "policy")), ("--problems", "problems.parquet")
    answers = ("--max-new-tokens", "12", "--device", "cpu")
    estimate = (
        "estimate",
        *policy,
        *problems,
        "--samples",
        "2",
        *answers,
        "--shard-problems",
        "2",
        "--allow-truncated",
        "--out",
        "values",
    )
    train = (
        "train",
        *policy,
        *problems,
        "--values",
        "values",
        "--device",
        "cpu",
        "--steps",
        "3",
        "--prompts-per-step",
        "4",
        "--lr",
        "1e-3",
        "--checkpoint-every",
        "1",
        "--eval-every",
        "2",
        "--eval-problems",
        str(inputs / "held-out.parquet"),
        "--out",
        "run",
    )
    long_train = ("--steps", str(LONG_STEPS), "--checkpoint-every", "4", "--eval-every", "10")
    return {
        "data": Subject(
            ("data", "gsm8k", "--source", str(inputs / "rows.jsonl"), "--out", "problems.parquet")
        ),
        "warm-start": Subject(
            (
                "warm-start", *problems, "--hidden-size", "16", "--layers", "1", "--heads", "2",
                "--steps", "80", "--batch-size", "8", "--lr", "1e-2", "--out", "policy",
            ),
            after="data",
        ),
        "estimate": Subject(estimate, after="data"),
        "long estimate": Subject(
            (*estimate, "--samples", "96", "--shard-problems", "1"), after="data"
        ),
        "train": Subject(train, after="estimate"),
        "long train": Subject((*train, *long_train), after="estimate"),
        "evaluate": Subject(
            ("evaluate", *policy, *problems, "--samples", "2", *answers, "--out", "scores.json"),
            after="data",
        ),
        "export": Subject(
            ("export", "values", *problems, "--out", "export.parquet"), after="estimate"
        ),
        "run": Subject(("run", str(inputs / "recipe.toml"), "--out", "all")),
    }  # fmt: skip
