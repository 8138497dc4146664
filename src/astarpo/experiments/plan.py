"""What an experiment consists of: variants, seeds, and the settings of every stage of every run.

    experiment.json    what was asked for, by every call so far
    data/              train.parquet, test.parquet, and a file for each `[ood.NAME]` of the recipe
    reference/         scores of the reference policy on test.json and each NAME.json
    values/seed-S/     a value table a seed, shared by all variants that need one
    runs/VARIANT/seed-S/    run directories of `astarpo train`, with scores/ of the result
    results.json  table.md  report.html

A variant is an algorithm by its name, with the recipe's table of that name over `[train]`; or a
table `[variants.NAME]`, which names its `algorithm` and goes over both.

Where variants differ in their data (a sweep over `size`), `data/`, `reference/` and `values/` have
a folder for each size. Problems and the seed of the evaluations are the recipe's own: every run
answers the same questions with the same random numbers.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from astarpo.algorithms.base import Algorithm
from astarpo.algorithms.choice import make_algorithm, needs_table, reads
from astarpo.config import DataConfig, EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.config.documents import build, measures_kl, settings_for
from astarpo.rundir.reader import has_run
from astarpo.stages.data import TEST_SHARE
from astarpo.training.inputs import TextSettings
from astarpo.types import UserError

TEST = "test"
"""The held-out set of the training task; the other sets are the recipe's `[ood.NAME]`."""

# With --equal seconds, time ends a run, and this number of steps is never reached.
_MANY_STEPS = 100_000


class Cost(NamedTuple):
    """Cost of stage 1."""

    seconds: float = 0.0
    samples: int = 0
    tokens: int = 0
    memory_gib: float = 0.0


NO_COST = Cost()


@dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        name: The row's name, and its folder's.
        algorithm: Whose loss it is trained with.
        line: The name it shares with the variants that differ only in the swept setting.
        value: Value of the swept setting.
        train: Settings over the recipe's `[train]` and the algorithm's own table.
        size: Size of the made problems it is trained and tested on; None for the recipe's.
    """

    name: str
    algorithm: str
    line: str
    value: float | str | None = None
    train: Mapping[str, Any] = field(default_factory=dict, hash=False)
    size: int | None = None

    @property
    def data(self) -> str:
        """Name of the folder, in `data/` and others, of variants with the same problems."""
        return "" if self.size is None else f"size={self.size}"


@dataclass(frozen=True)
class Experiment:
    """Variants by seeds.

    Attributes:
        kind: `compare` or `sweep`.
        out: Folder for everything.
        origin: Where the recipe came from, for messages.
        document: The recipe.
        variants: In the order of the table.
        seeds: Seeds of stage 1, data order and samples.
        setting: The swept setting.
        equal: What all runs get the same amount of: `prompts`, `samples`, `total` or `seconds`.
        seconds: Length of each run, stage 1 included, if `equal` is `seconds`.
        total_samples: Samples of each run, stage 1 included, if `equal` is `total`.
        steps: Steps of every run; None for the recipe's.
        target: Held-out reward up to which costs are counted; None: chosen from the results.
        validation: Whether a share of the training problems is held out instead of the test ones.
    """

    kind: str
    out: Path
    origin: str
    document: Mapping[str, Any]
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    setting: str | None = None
    equal: str | None = None
    seconds: float | None = None
    total_samples: int | None = None
    steps: int | None = None
    target: float | None = None
    validation: bool = False

    def runs(self) -> Iterator[tuple[Variant, int]]:
        """Every run, seed by seed, so that the finished ones can be compared at any time."""
        return ((variant, seed) for seed in self.seeds for variant in self.variants)

    def run_path(self, variant: Variant, seed: int) -> Path:
        """The run directory."""
        return self.out / "runs" / variant.name / f"seed-{seed}"

    def data_configs(self, variant: Variant) -> list[DataConfig]:
        """Problem files of a variant: training, test, and out of distribution."""
        base = settings_for("data", self.document, self.origin)
        own = base if variant.size is None else base | {"size": variant.size}
        own |= {"test_share": TEST_SHARE} if self.validation else {}
        test = {"split": "test"} | self.document.get("test", {})
        files = self.test_files(variant)
        settings = [
            own | {"split": "train", "out": self._train_file(variant)},
            own | test | {"out": files[TEST]},
        ]
        # A table [ood.NAME] with a task of its own takes nothing from the training task's settings.
        bare = settings_for("data", {**self.document, "data": {}}, self.origin)
        for name, table in self._ood().items():
            shared = bare | {"split": "test"} if "task" in table else base | test
            settings.append(shared | table | {"out": files[name]})
        return [build(DataConfig, each | {"overwrite": True}) for each in settings]

    def test_files(self, variant: Variant) -> dict[str, Path]:
        """Problem files to score on, `test` first."""
        ood = {name: self.out / "data" / f"{name}.parquet" for name in self._ood()}
        return {TEST: self.out / "data" / variant.data / "test.parquet"} | ood

    def reference_configs(self, variant: Variant) -> dict[str, EvaluateConfig]:
        """Evaluations of the reference policy, by problem set."""
        configs = {}
        for name, file in self.test_files(variant).items():
            folder = variant.data if name == TEST else ""
            out = self.out / "reference" / folder / f"{name}.json"
            settings = settings_for("evaluate", self.document, self.origin)
            own = {"problems": file, "out": out, "overwrite": True}
            configs[name] = build(EvaluateConfig, settings | own)
        return configs

    def evaluate_configs(self, variant: Variant, seed: int) -> dict[str, EvaluateConfig]:
        """Evaluations of a trained policy, by problem set; on `test` with its KL."""
        path = self.run_path(variant, seed)
        configs = {}
        for name, config in self.reference_configs(variant).items():
            update = {"model": str(path / "model"), "out": path / "scores" / f"{name}.json"}
            kl = measures_kl(config, config.model) if name == TEST else {}
            configs[name] = config.model_copy(update=update | kl)
        return configs

    def estimate_config(self, variant: Variant, seed: int) -> EstimateConfig:
        """Stage 1 of a variant. Variants without stage 1 take their sampling settings from it."""
        settings = settings_for("estimate", self.document, self.origin)
        if self.setting == "samples":  # Every variant uses the first samples of one table.
            settings["samples"] = max(each.train["values_samples"] for each in self.variants)
        own = {
            "problems": self._train_file(variant),
            "out": self.out / "values" / variant.data / f"seed-{seed}",
            "seed": seed,
        }
        config = build(EstimateConfig, settings | own)
        if self.setting == "samples" and config.in_rounds:
            raise UserError(
                f"{self.origin}: a sweep over samples gives each problem equally many: leave the "
                "budget or target_error out of [estimate]"
            )
        return config

    def train_config(self, variant: Variant, seed: int, cost: Cost = NO_COST) -> TrainConfig:
        """Training of a variant. What its stage 1 cost is subtracted from what all get."""
        stage1 = self.estimate_config(variant, seed)
        shared = settings_for("train", self.document, self.origin, variant.algorithm)
        shared = {k: v for k, v in shared.items() if reads(variant.algorithm, k)}
        steps = {} if self.steps is None else {"steps": self.steps}
        explicit = {**self.document.get(variant.algorithm, {}), **steps, **variant.train}
        # A value table fixes how its users sample; all other runs are to sample in the same way.
        settings = {
            "eval_problems": self.test_files(variant)[TEST],
            **{name: getattr(stage1, name) for name in TextSettings._fields},
            **shared,
            **explicit,
            "algorithm": variant.algorithm,
            "problems": stage1.problems,
            "values": None,
            "out": self.run_path(variant, seed),
            "seed": seed,
            "resume": has_run(self.run_path(variant, seed)),
        }
        if steps:
            settings.pop("epochs", None)
        algorithm = algorithm_of(build(TrainConfig, settings))
        if not algorithm.needs_values and "filter" not in explicit:
            settings["filter"] = "none"  # Filtering would cost it a stage 1.
        if needs_table(build(TrainConfig, settings), stage1.max_new_tokens):
            settings["values"] = stage1.out
        terms = self._equal_terms(build(TrainConfig, settings), algorithm, cost)
        if "steps" in terms:
            settings.pop("epochs", None)
        return build(TrainConfig, settings | terms)

    def _equal_terms(self, config: TrainConfig, algorithm: Algorithm, cost: Cost) -> dict[str, Any]:
        """The settings by which all algorithms get the same amount of what `equal` names."""
        if self.equal in ("samples", "total"):
            each = algorithm.samples_per_prompt
            if config.prompts_per_step % each:
                raise UserError(
                    f"equal samples: the {each} samples a prompt of {config.algorithm} do not "
                    f"divide {config.prompts_per_step}, the samples a step (prompts_per_step)"
                )
            terms = {"prompts_per_step": config.prompts_per_step // each}
            return terms | self._steps_of_total(config, cost)
        if self.equal == "seconds":
            assert self.seconds is not None
            if self.seconds <= cost.seconds:
                raise UserError(
                    f"equal seconds: stage 1 took {cost.seconds:.0f} s, which leaves nothing of "
                    f"--seconds {self.seconds:g} for training; give more, in another --out"
                )
            # A falling schedule would need to know the number of steps.
            return {
                "max_seconds": self.seconds - cost.seconds,
                "schedule": "constant",
                "steps": self.steps or _MANY_STEPS,
            }
        return {}

    def _steps_of_total(self, config: TrainConfig, cost: Cost) -> dict[str, int]:
        """As many steps as the samples allow that stage 1 left, if the total is what is equal."""
        if self.total_samples is None:
            return {}
        steps = (self.total_samples - cost.samples) // config.prompts_per_step
        if steps < 1:
            raise UserError(
                f"equal total: stage 1 has {cost.samples:,} samples, which leaves nothing of "
                f"--total-samples {self.total_samples} for training; give more, in another --out"
            )
        return {"steps": steps}

    def _train_file(self, variant: Variant) -> Path:
        return self.out / "data" / variant.data / "train.parquet"

    def _ood(self) -> dict[str, dict[str, Any]]:
        """The recipe's tables `[ood.NAME]`."""
        tables = {} if self.validation else self.document.get("ood", {})
        for name, table in tables.items():
            if not isinstance(table, dict) or not re.fullmatch(r"[\w-]+", name):
                raise UserError(f"{self.origin}: ood holds tables, each [ood.NAME] with a word")
            if name in ("train", TEST):
                raise UserError(f"{self.origin}: [ood.{name}]: the name is taken; choose another")
        return dict(tables)


def algorithm_of(config: TrainConfig) -> Algorithm:
    """The algorithm that a config asks for."""
    assert config.max_new_tokens is not None, "set from stage 1's settings"
    return make_algorithm(config, config.max_new_tokens)
