"""Makes an `Experiment` of a request, and compares it with what its folder was made for."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from astarpo.config import CompareConfig, DataConfig, EstimateConfig, SweepConfig, TrainConfig
from astarpo.config.changes import read_recipe_file
from astarpo.config.documents import build, find_recipe, upgrade
from astarpo.config.setting import setting_of
from astarpo.config.train import TRAIN_SETTINGS, known_algorithms
from astarpo.experiments.files import problem_files
from astarpo.experiments.plan import Experiment, Variant
from astarpo.reports.collect import flatten
from astarpo.runtime.files import DamagedFileError, read_json_object, write_json
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.words import did_you_mean
from astarpo.stages.estimate import prepare as prepare_estimate
from astarpo.stages.evaluate import prepare as prepare_evaluate
from astarpo.training.opening import require_parts
from astarpo.types import UserError

_REQUEST = "experiment.json"


def read_recipe(config: CompareConfig | SweepConfig) -> tuple[dict[str, Any], str]:
    """The recipe with the config's model in it, as JSON can hold it, and where it came from."""
    path = find_recipe(config.recipe)
    document = read_recipe_file(path, config.set, config.trust_reward)
    if config.model:
        document["model"] = config.model
    elif "warm-start" in document:
        raise UserError(
            f"{path}: makes a policy of its own: make it with astarpo run, and give it as --model"
        )
    document.setdefault("model", "shipped:sums")
    return document, str(path)


def plan_experiment(
    config: CompareConfig | SweepConfig,
    vary: Callable[[list[Variant]], list[Variant]] = list,
    **own: Any,
) -> Experiment:
    """The experiment that a config asks for, with its settings checked.

    Args:
        config: The config.
        vary: Makes the experiment's variants of those that the config's `algorithms` names.
        own: Attributes of the experiment that are particular to the verb.
    """
    if (config.equal == "total") != (config.total_samples is not None):
        raise UserError("equal total: --equal total and --total-samples N go together")
    if config.equal == "total" and config.steps is not None:
        raise UserError("equal total: the total decides the steps: leave --steps out")
    document, origin = read_recipe(config)
    experiment = Experiment(
        origin=origin,
        document=document,
        variants=tuple(vary(parse_algorithms(config.algorithms, document, origin))),
        seeds=parse_seeds(config.seeds),
        equal=config.equal,
        steps=config.steps,
        target=config.target,
        total_samples=config.total_samples,
        validation=config.validation,
        **own,
    )
    for variant, seed in experiment.runs():
        experiment.data_configs(variant)
        experiment.estimate_config(variant, seed)
        experiment.train_config(variant, seed)
        experiment.evaluate_configs(variant, seed)
    return experiment


def parse_list(text: str, name: str) -> list[str]:
    """The items of a list with commas, of which there must be one at least."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    if not items:
        raise UserError(f"{name}: give one at least, several as a,b,c")
    return items


def parse_algorithms(text: str, document: Mapping[str, Any], origin: str) -> list[Variant]:
    """A variant for each name of an algorithm or of a table `[variants.NAME]` of the recipe."""
    names = parse_list(text, "algorithms")
    tables, algorithms = document.get("variants", {}), known_algorithms()
    known = (*algorithms, *tables)
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"algorithms: no such algorithm: {', '.join(unknown)}; there are {', '.join(known)}"
            f"{did_you_mean(unknown[0], known)}"
        )
    _refuse_repeated(names, "algorithms")
    variants = []
    for name in names:
        train = dict(tables.get(name, {"algorithm": name}))
        algorithm = train.pop("algorithm", None)
        if algorithm not in algorithms or not re.fullmatch(r"[\w-]+", name):
            raise UserError(
                f"{origin}: [variants.{name}]: a variant is a word, and its table has an algorithm "
                f"out of {', '.join(algorithms)}"
            )
        variants.append(Variant(name, algorithm, name, train=train))
    return variants


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a list with commas."""
    items = parse_list(text, "seeds")
    if wrong := [item for item in items if not (item.isascii() and item.isdigit())]:
        raise UserError(f"seeds: whole numbers from 0 are needed, not {', '.join(wrong)}")
    seeds = tuple(map(int, items))
    _refuse_repeated(seeds, "seeds")
    return seeds


def swept_variants(setting: str, over: str | None, variants: Sequence[Variant]) -> list[Variant]:
    """Every variant with every value of a setting.

    In a sweep over `samples` nothing is filtered, so that their number changes V* and nothing else.
    """
    key = "values_samples" if setting == "samples" else setting
    kind = DataConfig if setting == "size" else TrainConfig
    known = {name: each for name, each in TRAIN_SETTINGS.items() if each.in_experiment == "swept"}
    known |= {"samples": setting_of(EstimateConfig.model_fields["samples"])}
    known |= {"size": setting_of(DataConfig.model_fields["size"])}
    if setting not in known:
        hint = did_you_mean(setting, known)
        raise UserError(
            f"setting: cannot sweep {setting!r}; there are {', '.join(sorted(known))}{hint}"
        )
    text = over or known[setting].sweep_values
    if text is None:
        raise UserError(f"over: give the values of {setting} to go over, as a,b,c")
    algorithms = {each.algorithm for each in variants} if kind is TrainConfig else {None}
    values = [
        _value(kind, key, item, algorithm)
        for item in parse_list(text, "over")
        for algorithm in sorted(algorithms, key=str)
    ][:: len(algorithms)]
    _refuse_repeated(values, "over")
    swept = []
    for value, each in product(values, variants):
        shown = value if isinstance(value, str) else f"{value:.15g}"
        own: dict[str, Any] = {"size": int(value)} if setting == "size" else {}
        if setting != "size":
            no_filter = {"filter": "none"} if setting == "samples" else {}
            own["train"] = {**each.train, key: value, **no_filter}
        swept.append(replace(each, name=f"{each.name}-{setting}={shown}", value=value, **own))
    return swept


def claim(experiment: Experiment) -> Experiment:
    """As `check_claim`; writes down what the folder is for from now on."""
    whole = check_claim(experiment)
    asked = {"variants": list(map(asdict, whole.variants)), "seeds": list(whole.seeds)}
    write_json(experiment.out / _REQUEST, _request(experiment) | asked)
    return whole


def check_claim(experiment: Experiment) -> Experiment:
    """Checks that the experiment's folder is free, or holds an experiment of the same settings.

    Returns:
        The experiment with the variants and seeds of earlier calls as well.
    """
    check_folder(
        experiment.out, [experiment.origin], kind="an experiment of astarpo", marks=(_REQUEST,)
    )
    path = experiment.out / _REQUEST
    if not path.exists():
        return experiment
    try:
        before = read_json_object(path)
        before["recipe"] = upgrade(before["recipe"], str(path))
        earlier = {
            v["name"]: Variant(**v | {"train": upgrade(v["train"], str(path), "train")})
            for v in before["variants"]
        }
        _require_same(experiment.out, before, _request(experiment))
    except (DamagedFileError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}); give another --out") from error
    variants = earlier | {variant.name: variant for variant in experiment.variants}
    seeds = before["seeds"] + [seed for seed in experiment.seeds if seed not in before["seeds"]]
    return replace(experiment, variants=tuple(variants.values()), seeds=tuple(seeds))


def prepare_experiment(experiment: Experiment) -> Experiment:
    """Checks the folder, and what the stages of every run will need; nothing is written."""
    check_claim(experiment)
    problems = {config.out: held for config, held in problem_files(experiment)}
    seed = experiment.seeds[0]
    for variant in experiment.variants:
        require_parts(experiment.train_config(variant, seed))
        stage1 = experiment.estimate_config(variant, seed)
        if stage1.problems in problems:
            prepare_estimate(stage1, problems.pop(stage1.problems))
        for config in experiment.reference_configs(variant).values():
            if config.problems in problems:
                prepare_evaluate(config, problems.pop(config.problems))
    return experiment


def _request(experiment: Experiment) -> dict[str, Any]:
    names = ("kind", "setting", "equal", "seconds", "steps")
    asked = {name: getattr(experiment, name) for name in names}
    # Experiments of before there was a total have none.
    asked |= {"total_samples": experiment.total_samples} if experiment.total_samples else {}
    asked |= {"validation": True} if experiment.validation else {}
    return asked | {"recipe": dict(experiment.document)}


def _require_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    old, new = flatten({k: before.get(k) for k in now}), flatten(now)
    if differing := [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]:
        raise UserError(
            f"{out}: holds another experiment: {'; '.join(differing)}; give another --out"
        )


def _value(
    kind: type[DataConfig] | type[TrainConfig], key: str, text: str, algorithm: str | None
) -> float | str:
    """A setting's value, checked for an algorithm; text where JSON has no number for it."""
    needed = {name: "x" for name, field in kind.model_fields.items() if field.is_required()}
    needed |= {"algorithm": algorithm} if algorithm else {}
    value = getattr(build(kind, needed | {key: text}), key)
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, int | float) and math.isfinite(value) else str(value)


def _refuse_repeated(items: Sequence[Any], name: str) -> None:
    if repeated := sorted({str(item) for item in items if list(items).count(item) > 1}):
        raise UserError(f"{name}: {', '.join(repeated)} given more than once")
