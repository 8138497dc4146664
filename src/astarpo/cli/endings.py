"""What a verb says at its end: where things are, and the command that comes next.

Words in capitals are for the user to fill in; everything else can be run as it stands.
"""

import shlex
from collections.abc import Callable
from typing import Any

from astarpo.config import Config
from astarpo.config.base import typed_model
from astarpo.config.documents import find_recipe, read_document
from astarpo.config.train import known_algorithms
from astarpo.runtime.files import read_json_object


def ending(verb: str, config: Config) -> list[str]:
    """Lines about a verb that has done its work; none for a verb after which nothing comes."""
    if verb not in ENDINGS:
        return []
    places, steps = ENDINGS[verb](config)
    width = max(map(len, [*places, "next"])) + 1
    lines = [f"{name + ':':<{width}} {place}" for name, place in places.items()]
    commands = [_command(*step) for step in steps]
    lines += [f"{'next:':<{width}} {command}" for command in commands[:1]]
    return ["", *lines, *(f"{'or:':<{width}} {command}" for command in commands[1:])]


_Ending = tuple[dict[str, Any], list[list[Any]]]


def _command(*words: Any) -> str:
    return shlex.join(["astarpo", *(typed_model(str(word)) for word in words)])


def _data(config: Any) -> _Ending:
    step = ["estimate", "--model", "MODEL", "--problems", config.out, "--out", "values"]
    if config.split != "train":
        step = ["evaluate", "--model", "MODEL", "--problems", config.out, "--out", "scores.json"]
    return {"problems": config.out}, [step + _trust(config.reward)]


def _warm_start(config: Any) -> _Ending:
    step = ["estimate", "--model", config.out, "--problems", config.problems, "--out", "values"]
    return {"policy": config.out}, [step]


def _estimate(config: Any) -> _Ending:
    manifest = config.out / "manifest.json"
    if config.part and "parts" in read_json_object(manifest):  # The log says what is missing.
        return {"value table": f"{config.out}, unfinished"}, []
    places = {"value table": config.out, "V*": config.out / "values.parquet"}
    step = ["train", "--model", config.model, "--problems", config.problems]
    step += ["--values", config.out, "--out", "runs/new", *_of_values(config)]
    return places | {"picture": config.out / "values.png"}, [step + _trust(config.trust_reward)]


def _import_values(config: Any) -> _Ending:
    step = ["train", "--model", config.model, "--problems", "PROBLEMS", "--values", config.out]
    step += ["--out", "runs/new", *_of_values(config), *_trust(config.trust_reward)]
    return {"value table": config.out, "V*": config.out / "values.parquet"}, [step]


def _train(config: Any) -> _Ending:
    places = {"model": config.out / "model", "curves": config.out / "curves.png"}
    return places, [["report", config.out], _chat(config.out, config)]


def _run(config: Any) -> _Ending:
    places = {"report": config.out / "report.html", "model": config.out / "train" / "model"}
    return places, [_chat(config.out, config), ["push", config.out, "NAME/REPO", "--dry-run"]]


def _evaluate(config: Any) -> _Ending:
    places = {"scores": config.out}
    if config.suite is None:
        places["answers"] = config.out.with_suffix(".parquet")
    reference = config.out.with_name(f"reference-{config.out.name}")
    step = ["evaluate", "--model", config.reference or "REFERENCE"]
    step += ["--suite", config.suite] if config.suite else ["--problems", config.problems]
    return places, [[*step, "--out", reference, *_trust(config.trust_reward)]]


def _experiment(config: Any) -> _Ending:
    out = config.out or f"runs/sweep-{config.setting}"
    places = {"results": f"{out}/results.json", "report": f"{out}/report.html"}
    return places, [["runs", out]]


def _export(config: Any) -> _Ending:
    return {config.format: config.out}, [["push", config.table, "NAME/REPO", "--dry-run"]]


def _report(config: Any) -> _Ending:
    first = config.runs[0]
    of_experiment = (first / "results.json").is_file()
    step = ["runs", first] if of_experiment else ["chat", first]
    return {"page": config.out or first / "report.html"}, [step]


def _runs(config: Any) -> _Ending:
    return {"below": config.dir}, [["report", config.dir / "RUN"], ["chat", config.dir / "RUN"]]


def _recipes(config: Any) -> _Ending:
    of_experiment = {"variants", *known_algorithms()}
    if config.name and of_experiment & read_document(find_recipe(config.name)).keys():
        return {}, [["compare", config.name, "--out", "runs/new", "--dry-run"]]
    return {}, [["run", config.name or "NAME", "--out", "runs/new", "--dry-run"]]


def _push(config: Any) -> _Ending:
    if (config.source / "manifest.json").is_file():
        get = ["hf", "download", config.repo, "--repo-type", "dataset", "--local-dir", "values"]
        return {"repository": config.repo, "get it by": shlex.join(get)}, []
    step = ["evaluate", "--model", config.repo, "--problems", "PROBLEMS", "--out", "scores.json"]
    return {"repository": config.repo}, [step]


def _chat(out: Any, config: Any) -> list[Any]:
    return ["chat", out, *_trust(getattr(config, "trust_reward", None))]


def _of_values(config: Any) -> list[Any]:
    """The flags by which the next verb takes V* as this one did, where that is not by default."""
    fields = type(config).model_fields
    chosen = {name: getattr(config, name) for name in ("beta1", "estimator")}
    changed = [name for name, value in chosen.items() if value != fields[name].default]
    return [word for name in changed for word in (f"--{name}", chosen[name])]


def _trust(reward: str | None) -> list[str]:
    """The flag that lets a user's function run in the next verb too."""
    return ["--trust-reward", reward] if reward and ":" in reward else []


ENDINGS: dict[str, Callable[[Any], _Ending]] = {
    "demo": _run,
    "run": _run,
    "data": _data,
    "warm-start": _warm_start,
    "estimate": _estimate,
    "import-values": _import_values,
    "train": _train,
    "evaluate": _evaluate,
    "compare": _experiment,
    "sweep": _experiment,
    "report": _report,
    "runs": _runs,
    "recipes": _recipes,
    "export": _export,
    "push": _push,
    "chat": lambda config: ({}, [["report", config.run]]),
}
"""What each verb's config says of where things are and of the next steps."""
