"""Cards: the `README.md` by which a model or a value table explains itself on the hub.

They are made from the files of a run or a table alone, and hold no path, no time and no text that a
model wrote. So the card of a run that was killed and resumed has the same bytes as another's.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from astarpo.config.train import TRAIN_SETTINGS, readers
from astarpo.rundir.reader import RunDirectory, open_run, read_json, whole_rows
from astarpo.runtime.files import write_atomic
from astarpo.runtime.parquet import open_parquet
from astarpo.runtime.tables import escape_markdown
from astarpo.values.summary import count_words, summarize_samples
from astarpo.values.table import ValueTable

CARD = "README.md"

_PAPERS = {
    "astar_po": ("A*-PO", "https://arxiv.org/abs/2505.20686"),
    "grpo": ("GRPO", "https://arxiv.org/abs/2402.03300"),
    "ppo": ("PPO", "https://arxiv.org/abs/1707.06347"),
    "rebel": ("REBEL", "https://arxiv.org/abs/2404.16767"),
    "rloo": ("RLOO", "https://arxiv.org/abs/2402.14740"),
    "spo": ("SPO", "https://arxiv.org/abs/2509.13232"),
}
_COUNTS = ("samples", "max_samples")
"""The fewest and the most samples of a problem, in the manifest of a finished value table."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def write_model_card(path: Path) -> None:
    """Writes the card into the `model/` of a run that is there."""
    run = open_run(path)
    text = model_card(run)
    write_atomic(run.training / "model" / CARD, lambda file: file.write_text(text, "utf-8"))


def model_card(run: RunDirectory, name: str | None = None) -> str:
    """The card of a run's trained model.

    Args:
        run: The run; that of `astarpo run` has scores of both policies, which the card tells.
        name: What the model is called, such as its name on the hub; None for no name.
    """
    config = run.config
    rows = run.metrics()
    algorithm = str(config.get("algorithm"))
    title, paper = _PAPERS.get(algorithm, (algorithm, None))
    base = str(config.get("model"))
    stage1 = read_json(run.values / "manifest.json") if run.values else {}
    where = run.environment
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base if is_hub_name(base) else None,
        "tags": ["astarpo", algorithm.replace("_", "-"), "reinforcement-learning"],
    }
    return _ENVIRONMENT.get_template("model-card.md").render(
        header=_header(header),
        name=name,
        title=title,
        paper=paper,
        base=public_name(base),
        algorithm=algorithm,
        from_stage1=config.get("first_rollouts") == "stage1",
        settings=_settings(config, stage1.get("fingerprint", {})),
        first=rows[0] if rows else None,
        last=rows[-1] if rows else None,
        held_out=whole_rows(run.training / "evaluations.jsonl"),
        scores=_scores(run),
        problems=_problems(run.problems("train")),
        stage1=stage1,
        counts=count_words(sorted({stage1[name] for name in _COUNTS if name in stage1})),
        versions={n: where[n] for n in ("astarpo", "torch", "transformers") if where.get(n)},
        load_from=name or "MODEL",
    )


def table_card(table: ValueTable, name: str) -> str:
    """The card of a finished value table.

    Args:
        table: It.
        name: What it is called on the hub.
    """
    with open_parquet(table.path / "values.parquet") as file:
        values = file.read(["n", "mean_reward", "v_star", "v_star_se", "estimator"])
    samples = table.samples(["num_tokens", "finish_reason", "status"])
    fingerprint = table.manifest["fingerprint"]
    header = {
        "tags": ["astarpo", "value-table", "reinforcement-learning"],
        "configs": [
            {"config_name": "values", "data_files": "values.parquet", "default": True},
            {"config_name": "samples", "data_files": "samples-*.parquet"},
        ],
    }
    return _ENVIRONMENT.get_template("table-card.md").render(
        header=_header(header),
        name=name,
        base=public_name(str(table.manifest.get("model"))),
        facts={k: v for k, v in sorted(fingerprint.items()) if isinstance(v, str | int | float)},
        num_problems=len(values),
        counts=count_words(values["n"].unique().sort().to_pylist()),
        estimator=values["estimator"][0].as_py(),
        means={name: _mean(values[name]) for name in ("mean_reward", "v_star", "v_star_se")},
        samples=summarize_samples(samples),
        version=table.manifest.get("package_version"),
    )


def public_name(model: str) -> str:
    """A model's name on the hub; of a folder its last part, since where it lies is nobody's."""
    return model if is_hub_name(model) else f"a local model, {Path(model).name}"


def is_hub_name(model: str) -> bool:
    """Whether a model's name is one of the hub and not a folder here."""
    return bool(_HUB_NAME.fullmatch(model)) and not Path(model).exists()


def _header(values: Mapping[str, Any]) -> str:
    """The YAML between the lines of dashes that the hub reads."""
    import yaml

    known = {name: value for name, value in values.items() if value is not None}
    return yaml.safe_dump(known, sort_keys=False).strip()


def _settings(config: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, str]:
    """The settings that the result depends on, those that the value table gave among them."""
    ignored = {"algorithm", "epochs" if config.get("steps") else "steps"}
    ignored |= set() if config.get("eval_problems") else {"eval_every", "eval_samples"}
    chosen = {}
    for name, setting in TRAIN_SETTINGS.items():
        value = table.get(name) if config.get(name) is None else config[name]
        concerns = config.get("algorithm") in readers(name) and setting.on_resume != "free"
        if value is not None and concerns and name not in ignored:
            chosen[name] = str(value)
    return chosen


def _mean(column: pa.ChunkedArray) -> str:
    """The mean of a column as the card tells it; controls such as `zero` know no error of V*."""
    mean = float(column.to_numpy().mean())
    return f"{mean:.3f}" if math.isfinite(mean) else "not known"


def _scores(run: RunDirectory) -> list[list[str]]:
    """Rows of scores of the reference and of the trained policy, with 95% intervals."""
    found = [read_json(path).get("scores", {}) for path in run.evaluations.values()]
    if len(found) != 2 or not all(found):
        return []
    base, trained = found
    form = "{value:.3f} [{low:.3f}, {high:.3f}]"
    return [
        [name, form.format(**base[name]), form.format(**trained[name])]
        for name in base
        if name in trained
    ]


def _problems(path: Path | None) -> dict[str, int]:
    """How many problems of each data source a file holds; empty where there is none."""
    if path is None:
        return {}
    with open_parquet(path) as file:
        counts = file.read(["data_source"])["data_source"].value_counts().to_pylist()
    return {pair["values"]: pair["counts"] for pair in counts}


_ENVIRONMENT = Environment(
    loader=PackageLoader("astarpo.reports", "assets"),
    autoescape=False,  # It is Markdown: `md` escapes what could mean something there.
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["md"] = lambda text: escape_markdown(str(text))
