"""A suite of benchmarks over one loaded policy, by one protocol: `astarpo evaluate --suite paper`.

Everything is loaded and checked before anything is generated. Each benchmark's result goes into the
JSON file as soon as it is there, so the same command goes on after the last finished one.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from astarpo.config import EvaluateConfig
from astarpo.engines import choose_engine, load_engine, require_engine
from astarpo.engines.base import Engine
from astarpo.evaluation.measure import measure, write_answers
from astarpo.grading.grader import Grader
from astarpo.grading.verdicts import tell_verdicts
from astarpo.models.folder import fingerprint
from astarpo.models.policy import Policy, load_policy
from astarpo.models.prompts import open_prompts
from astarpo.models.vocabulary import Vocabulary, load_vocabulary
from astarpo.runtime.devices import pick_device
from astarpo.runtime.distributed import OneProcess, open_ranks
from astarpo.runtime.files import write_json
from astarpo.runtime.outputs import check_file
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.runtime.tables import text_table
from astarpo.runtime.version import package_version
from astarpo.tasks import get_task
from astarpo.tasks.benchmarks import SPLIT
from astarpo.types import Problem, Prompt, UserError

logger = logging.getLogger("astarpo")


class Protocol(NamedTuple):
    """How a benchmark is run, and which of its scores the table shows.

    Attributes:
        score: The name of that score.
        samples: Samples of each problem at temperature 1, beside the greedy answer.
        says: The same in words, for the table.
    """

    score: str
    samples: int
    says: str


_GREEDY = Protocol("pass_at_1", 0, "greedy")

SUITES: Mapping[str, Mapping[str, Protocol]] = {
    "paper": {
        "math500": _GREEDY,
        "minerva_math": _GREEDY,
        "olympiadbench": _GREEDY,
        "amc23": Protocol("avg_at_32", 32, "avg@32, temperature 1"),
        "aime24": _GREEDY,
        "aime25": _GREEDY,
        "hmmt": _GREEDY,
        "hellaswag": Protocol("acc_norm", 0, "likeliest ending"),
    }
}


def evaluate_suite(config: EvaluateConfig) -> dict[str, Any]:
    """Runs the benchmarks of a suite that have no result yet, and shows all results as a table.

    Returns:
        What the JSON file says: `settings` that all share, and `benchmarks` by name, each with its
        scores. Every answer is in a Parquet file that its entry names.

    Raises:
        UserError: Benchmarks cannot be loaded, or the file holds results of other settings. Nothing
            has been generated then.
    """
    with open_ranks(config.device) as where:
        with where.together():
            prepared = prepare(config)
        every = {name: _identity(name, rows) for name, rows in prepared.problems.items()}
        where.require_alike(prepared.result["settings"] | every)
        if prepared.prompts:
            _run_all(choose_engine(config), prepared, where)
    logger.info(table(prepared.result))
    return prepared.result


def _run_all(config: EvaluateConfig, prepared: "Prepared", where: OneProcess) -> None:
    """Runs the benchmarks without a result; each one's is written as soon as it is there."""
    assert config.suite is not None, "the caller's to check"
    result, vocabulary = prepared.result, prepared.vocabulary
    # Marks the folder of the answers as this suite's, should the first benchmark be cut short.
    where.first(lambda: write_json(config.out, result))
    load = cache(partial(load_policy, config.model, where.device, vocabulary))
    every = [prompt for of_benchmark in prepared.prompts.values() for prompt in of_benchmark]
    context = max(len(prompt.token_ids) for prompt in every) + config.max_new_tokens
    with where.together():
        engine = load_engine(config, vocabulary, load, context)
    with engine, Grader(config.grade_workers, config.grade_timeout) as grader:
        result["engine"] = dict(engine.facts)
        for name, prompts in prepared.prompts.items():
            protocol = SUITES[config.suite][name]
            logger.info(f"{name}: {len(prompts)} problems, {protocol.says}")
            entry = _run(name, protocol, prompts, vocabulary, load, engine, config, grader, where)
            result["benchmarks"][name] = _identity(name, prepared.problems[name]) | entry
            where.first(lambda: write_json(config.out, result))
            tell_verdicts(name, entry["statuses"], entry["truncated_share"])


class Prepared(NamedTuple):
    """What a suite starts from; `prompts` are those of the benchmarks without a result yet."""

    problems: dict[str, list[Problem]]
    prompts: dict[str, list[Prompt]]
    result: dict[str, Any]
    vocabulary: Vocabulary
    device: torch.device


def prepare(config: EvaluateConfig) -> Prepared:
    """Reads and checks what a suite needs; loads no weights and writes nothing.

    Raises:
        UserError: As `evaluate_suite` says.
    """
    assert config.suite is not None, "the caller's to check"
    if config.problems is not None or config.reference is not None:
        raise UserError("--suite brings its own problems and takes no --problems or --reference")
    names = _chosen(config.benchmarks, SUITES[config.suite])
    check_file(config.out, overwrite=True, suffix=".json")
    require_engine(config)
    if config.overwrite or not config.out.exists():
        sources = list(config.suite_sources.glob("*")) if config.suite_sources else []
        for name in names:
            check_file(_answers_file(config, name), sources, overwrite=config.overwrite)
    device = pick_device(config.device)
    problems = {name: rows[: config.limit] for name, rows in _load(names, config).items()}
    result = _open_result(config, problems)
    vocabulary = load_vocabulary(config.model)
    prompts = {
        name: _all_prompts(name, problems[name], vocabulary, config)
        for name in names
        if name not in result["benchmarks"]
    }
    return Prepared(problems, prompts, result, vocabulary, device)


def preview_suite(config: EvaluateConfig) -> list[str]:
    """The line of a dry run: which benchmarks have no result yet; raises what `prepare` raises."""
    prompts = prepare(config).prompts
    left = [f"{name} ({len(of_benchmark)} problems)" for name, of_benchmark in prompts.items()]
    return [f"suite {config.suite}: {', '.join(left) or 'done'}"]


def _answers_file(config: EvaluateConfig, name: str) -> Path:
    return config.out.with_suffix("") / f"{name}.parquet"


def table(result: Mapping[str, Any]) -> str:
    """The results of a suite in percent with 95% intervals over problems, as plain text."""
    protocols = SUITES[result["settings"]["suite"]]
    rows = [("benchmark", "problems", "protocol", "score", "95% interval")]
    for name, protocol in protocols.items():
        if entry := result["benchmarks"].get(name):
            value, low, high = (100 * x for x in entry["scores"][protocol.score].values())
            interval = f"{low:.2f} to {high:.2f}"
            problems = str(entry["num_problems"])
            rows.append((name, problems, protocol.says, f"{value:.2f}", interval))
    return "\n".join(text_table(rows, right={1, 3}))


def _chosen(benchmarks: str | None, protocols: Mapping[str, Protocol]) -> list[str]:
    if benchmarks is None:
        return list(protocols)
    chosen = [name.strip() for name in benchmarks.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in protocols] or (not chosen and ["none"]):
        raise UserError(
            f"benchmarks: {', '.join(unknown)} not in this suite, which has {', '.join(protocols)}"
        )
    return [name for name in protocols if name in chosen]


def _load(names: Sequence[str], config: EvaluateConfig) -> dict[str, list[Problem]]:
    """Reads every benchmark, or says of all of them which cannot be read."""
    problems: dict[str, list[Problem]] = {}
    errors: dict[str, UserError] = {}
    for name in names:
        try:
            source = _local_copy(name, config.suite_sources) if config.suite_sources else None
            rows = get_task(name).problems(source=source, split=SPLIT, size=None, seed=0)
            problems[name] = list(rows)
            if not problems[name]:
                raise UserError(f"{source}: holds no problems")
        except UserError as error:
            errors[name] = error
    if errors:
        raise UserError(
            f"cannot load {', '.join(errors)}; the first because: {next(iter(errors.values()))}; "
            "give local copies with --suite-sources DIR, or run others alone with --benchmarks"
        )
    return problems


def _local_copy(name: str, folder: Path) -> str:
    candidates = [folder / f"{name}{ending}" for ending in (".jsonl", ".parquet")]
    found = [path for path in candidates if path.is_file()]
    if len(found) != 1:
        how_many = "both" if found else "neither"
        raise UserError(f"{folder} has {how_many} of {' and '.join(p.name for p in candidates)}")
    return str(found[0])


def _open_result(
    config: EvaluateConfig, problems: Mapping[str, Sequence[Problem]]
) -> dict[str, Any]:
    """The result so far, or an empty one; a file that holds something else is refused."""
    settings = {
        "suite": config.suite,
        **fingerprint(config.model),
        "prompt_format": config.prompt_format,
        "max_new_tokens": config.max_new_tokens,
        "limit": config.limit,
        "seed": config.seed,
    }
    if config.overwrite or not config.out.exists():
        return {
            "model": config.model,
            "settings": settings,
            "package_version": package_version(),
            "benchmarks": {},
        }
    try:
        result = json.loads(config.out.read_text(encoding="utf-8"))
        stored = result["settings"]
        entries = result["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{config.out}: exists and is no suite's result; give another") from error
    differing = [key for key, value in settings.items() if stored.get(key) != value]
    for name in problems.keys() & entries.keys():
        identity = _identity(name, problems[name])
        differing += [f"{key} of {name}" for key in identity if entries[name][key] != identity[key]]
    if differing:
        raise UserError(
            f"{config.out}: holds results of other settings ({', '.join(differing)} differ); "
            "give another --out"
        )
    return result


def _identity(name: str, problems: Sequence[Problem]) -> dict[str, str]:
    """What a result depends on beside the settings: the problems, and how they are judged."""
    digest = hashlib.blake2b(digest_size=12)
    for problem in problems:
        digest.update(f"{problem.id} {problem.digest}\n".encode())
    return {"problems": digest.hexdigest(), "verifier": get_task(name).version}


def _all_prompts(
    name: str, problems: Sequence[Problem], vocabulary: Vocabulary, config: EvaluateConfig
) -> list[Prompt]:
    """Renders every problem: a benchmark is scored on all of it, whatever max_prompt_tokens is."""
    try:
        prompts = open_prompts(
            problems, vocabulary, config.prompt_format, None, config.max_new_tokens
        )
        return list(prompts)
    except UserError as error:
        raise UserError(f"{name}: {error}; or leave it out with --benchmarks") from error


def _run(
    name: str,
    protocol: Protocol,
    prompts: Sequence[Prompt],
    vocabulary: Vocabulary,
    load: Callable[[], Policy],
    engine: Engine,
    config: EvaluateConfig,
    grader: Grader,
    where: OneProcess,
) -> dict[str, Any]:
    """Measures one benchmark; the first process writes its answers."""
    stopwatch = Stopwatch()
    sampling = {"samples": protocol.samples, "temperature": 1.0, "top_p": 1.0}
    config = config.model_copy(update=sampling)
    measured = measure(vocabulary, load, engine, prompts, config, grader, stopwatch, where)
    answers = _answers_file(config, name)
    where.first(lambda: write_answers(answers, measured.answers))
    return {
        "num_problems": len(prompts),
        "protocol": protocol._asdict(),
        **measured.summary(),
        "seconds": stopwatch.seconds,
        "answers": str(answers.relative_to(config.out.parent)),
    }
