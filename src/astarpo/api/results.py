"""What the verbs give back: a training run, and scores."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astarpo.config import ReportConfig
from astarpo.config.documents import build
from astarpo.evaluation.scores import Score
from astarpo.rundir.reader import RunDirectory, open_run, read_json, state_of, whole_rows
from astarpo.types import UserError
from astarpo.verbs.report import prepare as prepare_report
from astarpo.verbs.report import report

if TYPE_CHECKING:
    import pandas


class Rows(list[dict[str, Any]]):
    """Rows with named columns, such as the metrics of each step.

    Example:
        >>> run.metrics[-1]["reward"]
        >>> run.metrics.to_pandas().plot(x="step", y="reward")
    """

    def to_pandas(self) -> "pandas.DataFrame":
        """The rows as a data frame; a column that some rows lack is empty there."""
        import pandas

        return pandas.DataFrame(list(self))

    def __repr__(self) -> str:
        names = list(dict.fromkeys(name for row in self for name in row))
        return f"<{len(self)} rows of {', '.join(names) or 'nothing'}; to_pandas() for a frame>"


class Run:
    """A training run, finished or not; everything is read from its folder when it is asked for.

    Attributes:
        path: Its folder: that of `astarpo.train`, or of `astarpo.run` with all stages.

    Example:
        >>> run = astarpo.Run("runs/train-20260101-120000")
        >>> run.metrics[-1]["reward"], run.model_path
    """

    def __init__(self, path: Path | str) -> None:
        """Opens a run.

        Raises:
            UserError: There is none.
        """
        self.path = Path(path)
        self._directory: RunDirectory = open_run(self.path)

    @property
    def config(self) -> dict[str, Any]:
        """All settings, as `config.json` has them."""
        return self._directory.config

    @property
    def metrics(self) -> Rows:
        """The metrics of each step so far: reward, KL, loss, lengths, seconds and others."""
        return Rows(self._directory.metrics())

    @property
    def evaluations(self) -> Rows:
        """The scores on held-out problems so far, where the run has any."""
        path = self._directory.training / "evaluations.jsonl"
        return Rows(whole_rows(path) if path.exists() else [])

    @property
    def summary(self) -> dict[str, Any]:
        """The run in a few numbers; `completed` is False where it was stopped before its end."""
        return read_json(self._directory.path / "summary.json")

    @property
    def model_path(self) -> Path:
        """The trained policy, which `from_pretrained` and every verb's `model` take.

        Raises:
            UserError: The run is not finished.
        """
        path = self._directory.training / "model"
        if not path.is_dir():
            raise UserError(
                f"{self.path}: has no trained model yet ({self._state()}): give the same call "
                f'again with out="{self.path}" and resume=True'
            )
        return path

    def report(self, out: Path | str | None = None, **settings: Any) -> Path:
        """Writes the page with curves and answers.

        Args:
            out: HTML file to write; else report.html in the run's folder.
            settings: Others of `astarpo.report`, such as `markdown` and `overwrite`.

        Returns:
            The file written.
        """
        config = build(ReportConfig, {"runs": [self.path], "out": out} | settings)
        path = prepare_report(config)
        report(config)
        return path

    def _state(self) -> str:
        return str(state_of(self._directory, self._directory.metrics()))

    def __repr__(self) -> str:
        rows = self._directory.metrics()
        said = f"{len(rows)} steps"
        if rows:
            said += f", reward {rows[-1]['reward']:.3f}, KL {rows[-1]['kl']:.3f} nats"
        return f"<run {self.path}: {self._state()}, {said}>"


class Scores(Mapping[str, Score]):
    """Scores of a policy by name, each with its 95% interval over problems.

    Of a suite the names are `BENCHMARK/SCORE`.

    Attributes:
        path: The JSON file that they were written to; the answers are beside it, as Parquet.
        details: All that this file says: the settings, counts of verdicts, seconds.

    Example:
        >>> scores = astarpo.evaluate(model=run, problems=problems, samples=4)
        >>> scores["avg_at_4"].value, scores["avg_at_4"].low, scores["avg_at_4"].high
    """

    def __init__(self, path: Path, details: Mapping[str, Any]) -> None:
        self.path = path
        self.details = dict(details)
        self._scores = dict(_scores(self.details))

    def __getitem__(self, name: str) -> Score:
        """One score.

        Raises:
            UserError: There is none of this name; those that there are, are named.
        """
        if name not in self._scores:
            raise _NoScore(f"no score {name!r}; there are {', '.join(self._scores)}")
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a score: its value and the ends of its interval."""
        import pandas

        return pandas.DataFrame({name: each._asdict() for name, each in self._scores.items()}).T

    def __repr__(self) -> str:
        lines = [
            f"{name} {each.value:.4f} [{each.low:.4f}, {each.high:.4f}]"
            for name, each in self._scores.items()
        ]
        return f"<scores {self.path}: {', '.join(lines)}>"


class _NoScore(UserError, KeyError):
    """A KeyError too, by which a mapping's `get` and `in` know that something is not there."""

    __str__ = UserError.__str__


def _scores(details: Mapping[str, Any]) -> Iterable[tuple[str, Score]]:
    for name, score in details.get("scores", {}).items():
        yield name, Score(**score)
    for benchmark, entry in details.get("benchmarks", {}).items():
        for name, score in entry["scores"].items():
            yield f"{benchmark}/{name}", Score(**score)
