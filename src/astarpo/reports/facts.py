"""What ran: state, model, costs, seed, device and versions, as far as its files say."""

from collections.abc import Mapping, Sequence
from typing import Any

from astarpo.rundir.reader import RunDirectory, read_json, state_of

Document = Mapping[str, Any]
"""A JSON object."""

_LIBRARIES = ("astarpo", "torch", "transformers")


def facts_of(
    run: RunDirectory, rows: Sequence[Document], manifest: Document, scores: Mapping[str, Document]
) -> list[tuple[str, Any]]:
    """Labels and values in the order shown; None where a value is not known."""
    config, environment = run.config, environment_of(run)
    seed, total_steps = config.get("seed"), config.get("steps")
    last = rows[-1] if rows else {}
    memory = [row["peak_memory_gib"] for row in rows if "peak_memory_gib" in row]
    tested = next((s for s in scores.values() if s), {}).get("num_problems")
    phases = manifest.get("seconds", {}).values()
    return [
        ("State", str(state_of(run, rows))),
        ("Model", config.get("model") or manifest.get("model")),
        ("Algorithm", config.get("algorithm")),
        ("Steps", f"{last.get('step', 0)} of {total_steps}" if total_steps else last.get("step")),
        ("Seed", None if seed is None else str(seed)),  # which is not grouped by thousands
        ("Device", _device(config.get("device"), environment)),
        ("Versions", _versions(run, manifest, environment)),
        ("Problems, train", manifest.get("num_problems")),
        ("Problems, test", tested),
        ("Last reward", last.get("reward")),
        ("Last KL (nats)", last.get("kl")),
        ("Tokens, stage 1", manifest.get("tokens")),
        ("Tokens, training", sum(row.get("tokens", 0) for row in rows)),
        ("Seconds, stage 1", round(sum(phases), 1) if phases else None),
        ("Seconds, training", round(sum(row.get("seconds", 0.0) for row in rows), 1)),
        ("Peak memory (GiB)", max(memory, default=None)),
    ]


def environment_of(run: RunDirectory) -> dict[str, Any]:
    """What a run recorded of the machine and the libraries; runs of version 0.1.0 did not."""
    found = read_json(run.training / "config.json").get("environment")
    return dict(found) if isinstance(found, Mapping) else {}


def _device(asked: Any, environment: Document) -> str | None:
    """The device that was recorded, else the one that was asked for."""
    if environment.get("device"):
        return str(environment["device"])
    return f"{asked} (as asked for)" if asked else None


def _versions(run: RunDirectory, manifest: Document, environment: Document) -> str | None:
    """Versions of the package and of what it stands on: `astarpo 0.1.0, torch 2.13.0`."""
    versions = {"astarpo": manifest.get("package_version")}
    versions |= {n: environment[n] for n in ("python", *_LIBRARIES) if environment.get(n)}
    words = [f"{name} {version}" for name, version in versions.items() if version]
    # Such as `transformers 5.17.0`, or `vllm 0.11`, which no environment names.
    for found in (manifest, read_json(run.training / "summary.json")):
        engine = found.get("engine")
        version = engine.get("version") if isinstance(engine, Mapping) else None
        if version and str(version) not in words:
            words.append(str(version))
    commit = environment.get("commit")
    return ", ".join([*words, f"commit {str(commit)[:12]}"] if commit else words) or None
