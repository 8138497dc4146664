"""The verbs as functions that take their settings by name, or their config as one object.

Editors show `verbs.pyi` in the place of this file.
"""

from typing import Any

from astarpo.api.calls import Call, call_of
from astarpo.api.keywords import described, refuse_unknown
from astarpo.api.problems import ProblemSet, gathered
from astarpo.api.results import Run, Scores
from astarpo.config import VERBS
from astarpo.runtime.log import shown_log
from astarpo.values.table import ValueTable
from astarpo.verbs import verb_home


def _done(verb: str, call: Call, *more: Any) -> Any:
    """Calls a verb's own function, which takes its config."""
    return getattr(verb_home(verb), verb)(call.config, *more)


@described
def load_problems(task: Any, /, **settings: Any) -> ProblemSet:
    """The problems of a task, or of rows of your own, for every verb's `problems`.

    Returns:
        The problems; with them goes what judges them.

    Raises:
        UserError: The task, source, split or reward is unknown, or a row cannot be read or judged.

    Example:
        >>> problems = astarpo.load_problems("gsm8k", limit=512)
        >>> rows = [{"question": "What is half of 8?", "answer": "4"}]
        >>> astarpo.load_problems(rows, prompt_column="question", reward="math")
        <1 problems judged by math; the first: 'What is half of 8?'>
    """
    refuse_unknown("load_problems", settings)
    with shown_log():
        return gathered(task, settings)


@described
def estimate(config: Any = None, /, **settings: Any) -> ValueTable:
    """Stage 1: samples the reference policy and writes the value table.

    The same call again finishes what is missing; more `samples` or problems are added to what is
    there.

    Returns:
        The table; `to_pandas()` shows V* of each problem.

    Raises:
        UserError: A setting or an input is wrong, or the table there does not fit.

    Example:
        >>> table = astarpo.estimate(model="Qwen/Qwen2.5-1.5B", problems=problems, samples=8)
        >>> table.to_pandas()
    """
    with call_of("estimate", config, settings) as call:
        return _done("estimate", call, call.problems.get("problems"))


@described
def train(config: Any = None, /, **settings: Any) -> Run:
    """Stage 2: trains the policy, by A*-PO from a value table or by another algorithm.

    Ctrl-C, or a notebook's stop button, ends it with its state saved: the same call with
    `resume=True` goes on as if it had never stopped.

    Returns:
        The run: its metrics, its model and its report.

    Raises:
        UserError: A setting or an input is wrong, or does not fit the value table.
        TrainingStopped: Training went wrong; the message says what to do.

    Example:
        >>> run = astarpo.train(model=model, problems=problems, values=table, steps=100)
        >>> run.metrics.to_pandas(), run.model_path
    """
    with call_of("train", config, settings) as call:
        _done("train", call, verb_home("train").Given(**call.problems, on_step=call.on_step))
        return Run(call.config.out)


@described
def evaluate(config: Any = None, /, **settings: Any) -> Scores:
    """Scores a policy on problems, greedily and with k samples, or on a suite of benchmarks.

    Returns:
        Scores by name, each with its 95% interval: `pass_at_1` (greedy), `avg_at_K`, `maj_at_K`,
        `pass_at_J` for powers of two up to K; `kl` and `kl_per_token` where a reference is given.

    Raises:
        UserError: A setting or an input is wrong.

    Example:
        >>> scores = astarpo.evaluate(model=run, problems=test_problems, samples=4)
        >>> scores["avg_at_4"].value
    """
    with call_of("evaluate", config, settings) as call:
        return Scores(call.config.out, _done("evaluate", call, call.problems.get("problems")))


def _by_name(verb: str) -> Any:
    """A verb of which nothing but its settings is to be said here."""

    def function(config: Any = None, /, **settings: Any) -> Any:
        with call_of(verb, config, settings) as call:
            return _done(verb, call)

    function.__name__ = function.__qualname__ = verb
    function.__doc__ = VERBS[verb.replace("_", "-")].__doc__
    return described(function)


chat = _by_name("chat")
compare = _by_name("compare")
data = _by_name("data")
demo = _by_name("demo")
env = _by_name("env")
export = _by_name("export")
import_values = _by_name("import_values")
plan = _by_name("plan")
push = _by_name("push")
recipes = _by_name("recipes")
report = _by_name("report")
run = _by_name("run")
runs = _by_name("runs")
sweep = _by_name("sweep")
warm_start = _by_name("warm_start")
