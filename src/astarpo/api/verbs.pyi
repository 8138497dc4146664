"""What editors show of the verbs. Written by `python -m tests.support.stub` from `config/`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from astarpo.algorithms.base import Algorithm
from astarpo.api.problems import ProblemSet, ProblemsLike, Reward, Rows
from astarpo.api.results import Run, Scores
from astarpo.config import (
    ChatConfig,
    CompareConfig,
    DataConfig,
    DemoConfig,
    EnvConfig,
    EstimateConfig,
    EvaluateConfig,
    ExportConfig,
    ImportValuesConfig,
    PlanConfig,
    PushConfig,
    RecipesConfig,
    ReportConfig,
    RunConfig,
    RunsConfig,
    SweepConfig,
    TrainConfig,
    WarmStartConfig,
)
from astarpo.tasks.base import Task
from astarpo.values.table import ValueTable

@overload
def chat(config: ChatConfig, /) -> Any: ...
@overload
def chat(
    *,
    run: Path | str,
    problem: str | None = None,
    samples: int = 1,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "vllm", "hf", "generate"] = "auto",
    engine_memory: float | None = None,
    max_sequences: int = 256,
    grade_workers: int = 2,
    grade_timeout: float = 5.0,
    trust_reward: str | None = None,
) -> Any:
    """Ask the reference and the trained policy of a run, and see both answer, judged.

    Args:
        run: Run directory of astarpo train or folder of astarpo run.
        problem: Ask one problem of the run's by its id, or random, and end; else what is typed, or
            comes line by line from standard input.
        samples: Answers of each policy to a problem.
        temperature: Sampling temperature, 0 for greedy answers; else as in training.
        max_new_tokens: Longest answer, in tokens; it is cut there; else as in training.
        seed: Seed of the sampled answers and of what random picks.
        device: Where models run; auto takes the GPU where there is one.
        engine: What samples responses: vllm is the fastest on a GPU; hf is this package's own loop;
            generate is that of transformers, slower, for any model; auto takes vllm on a GPU where
            it is installed, else hf.
        engine_memory: Share of a GPU's memory that vllm takes; else .9, and .5 in training.
        max_sequences: Responses that are sampled at the same time.
        grade_workers: Processes that judge responses.
        grade_timeout: Seconds of CPU time to judge one response; after them its verdict is timeout.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the problem
            file names as its judge: it runs only if you name it here.
    """
    ...

@overload
def compare(config: CompareConfig, /) -> Any: ...
@overload
def compare(
    *,
    out: Path | str = Path("runs/compare"),
    recipe: str = "compare",
    model: str | Path | Run | None = None,
    set: tuple[str, ...] = (),
    algorithms: str = "astar_po,grpo,ppo,rebel,rloo",
    equal: Literal["prompts", "samples", "total", "seconds"] = "prompts",
    seconds: float | None = None,
    trust_reward: str | None = None,
    seeds: str = "0,1,2",
    steps: int | None = None,
    target: float | None = None,
    total_samples: int | None = None,
    validation: bool = False,
) -> Any:
    """Compare algorithms over seeds, on equal terms; run again, it goes on where it stopped.

    Args:
        out: Folder for everything.
        recipe: A TOML file, or the name of a shipped recipe.
        model: Policy to train, a folder or a hub name; else the recipe's, or the demo's.
        set: Change a setting of the recipe, as TABLE.SETTING=VALUE (data.task=countdown,
            variants.NAME.lr=2e-6); may be given several times.
        algorithms: Algorithms, or variants of the recipe, in the order of the table.
        equal: What every algorithm gets the same amount of: prompts in a step; samples in a step;
            samples in a step and in total, stage 1 included; or seconds, stage 1 included.
        seconds: Length of each run with equal seconds, stage 1 included.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe
            names as its judge: it runs only if you name it here.
        seeds: Seeds of stage 1, data order and samples; each variant is trained once with each.
        steps: Steps of every run; else the recipe's.
        target: Held-out reward up to which seconds and tokens are counted; else the largest
            multiple of 0.05 that every run reached which did not collapse.
        total_samples: Samples of each run with equal total, stage 1 included.
        validation: Score on a share of the training problems that is held out, and not on the test
            problems: for choosing settings.
    """
    ...

@overload
def data(config: DataConfig, /) -> Any: ...
@overload
def data(
    *,
    task: str,
    out: Path | str,
    source: str | None = None,
    reward: str | None = None,
    overwrite: bool = False,
    prompt_column: str | None = None,
    prompt_template: str | None = None,
    answer_column: str | None = None,
    instruction: str | None = None,
    skip_unreadable: bool = False,
    split: str = "train",
    test_share: float | None = None,
    without: ProblemsLike | None = None,
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Any:
    """Write a task's problems as a Parquet file in verl's schema.

    Args:
        task: A task: arithmetic, multiply, countdown, gsm8k, math, the name of a benchmark,
            reasoning_gym:NAME, or own for the problems in your own source.
        out: Parquet file to write.
        source: Where published or own problems come from: a file (JSON lines, a JSON array, CSV or
            Parquet), or a data set's name on the Hugging Face hub.
        reward: What judges the responses to these problems: a task's name, or a function of yours
            as FILE.py:NAME or MODULE:NAME; else the task itself.
        overwrite: Replace the file at out if there is one.
        prompt_column: Column that holds the prompt, as text or as a list of messages; else the
            column prompt.
        prompt_template: The prompt, made of several columns: '{Body} {Question}'; instead of
            prompt_column.
        answer_column: Column that holds the reference answer; else the column answer.
        instruction: Text to put after each question.
        skip_unreadable: Leave out rows that cannot be read or judged, and say how many and why,
            instead of refusing the source.
        split: Which part of the problems: train or test.
        test_share: Share of the training problems, between 0 and 1, that is split off as test; a
            hash of the question decides. For sources without a test split, and to choose settings
            on.
        without: Parquet file of held-out problems: problems that ask the same are left out.
        limit: At most this many problems; else all, or 1000 of a task that makes its own.
        size: Difficulty of made problems: how many digits, terms or numbers they have.
        seed: Decides which made problems come, and the order.
    """
    ...

@overload
def demo(config: DemoConfig, /) -> Any: ...
@overload
def demo(
    *,
    out: Path | str = Path("runs/demo"),
    seed: int = 0,
) -> Any:
    """Run both stages on a small model that is shipped, in minutes on a laptop.

    Args:
        out: Folder for everything.
        seed: Seed of the problems, the samples and the data order.
    """
    ...

@overload
def env(config: EnvConfig, /) -> Any: ...
@overload
def env() -> Any:
    """Say what a bug report needs: versions, devices, disk, installed packages."""
    ...

@overload
def estimate(config: EstimateConfig, /) -> ValueTable: ...
@overload
def estimate(
    *,
    model: str | Path | Run,
    problems: ProblemsLike,
    out: Path | str | None = None,
    limit: int | None = None,
    reward: Reward | None = None,
    samples: int = 8,
    budget_samples: int | None = None,
    budget_tokens: int | None = None,
    target_error: float | None = None,
    temperature: float = 1.0,
    shard_problems: int = 256,
    allow_truncated: bool = False,
    rejudge: bool = False,
    part: str | None = None,
    ray: str | None = None,
    ray_actors: int | None = None,
    profile: bool = False,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "vllm", "hf", "generate"] = "auto",
    engine_memory: float | None = None,
    max_sequences: int = 256,
    grade_workers: int = 2,
    grade_timeout: float = 5.0,
    prompt_format: Literal["raw", "chat"] = "raw",
    max_prompt_tokens: int = 256,
    max_new_tokens: int = 1024,
    beta1: float = 0.5,
    estimator: Literal["plugin", "shrunk", "zero", "constant"] = "plugin",
) -> ValueTable:
    """Stage 1: samples the reference policy and writes the value table.

    The same call again finishes what is missing; more `samples` or problems are added to what is
    there.

    Args:
        model: Reference policy: a folder or a hub name.
        problems: Problems: of `load_problems`, a list of dicts, a `datasets.Dataset`, or the
            Parquet file that `astarpo data` wrote.
        out: Folder for the value table; what is there is continued. Else a new one in runs/, which
            the log names.
        limit: Use this many problems, the first of the file; else all.
        reward: What judges: a function of yours, `score(prompts, completions, **columns)`, which
            returns one number a completion, also one of a notebook or inside another function; or a
            task's name, or 'FILE.py:NAME'. Else what the problems say. Completions are text where
            the prompts came as text, else lists of one message. It runs in processes that can be
            killed.
        samples: Number N of responses sampled for each problem; with a budget or a target error,
            those of the first round, 2 unless given.
        budget_samples: Sample this many responses in all, in rounds, each given to the problems
            whose V* it tells most of; needs estimator shrunk.
        budget_tokens: As budget_samples, with about this many generated tokens in all.
        target_error: As budget_samples, until the root mean square error of V* is this, in units of
            reward.
        temperature: Sampling temperature.
        shard_problems: Problems whose samples are written at a time, so that a kill loses no more.
        allow_truncated: Go on though over half of the responses are cut at max_new_tokens.
        rejudge: Judge the responses in the table again, as after a change of the reward function.
        part: Sample only this part of the table, as I/N: 3/8 is the third of eight. The parts may
            run at the same time, on any machines that see out; the last to finish completes the
            table.
        ray: Sample on a Ray cluster: its HOST:PORT; auto for the one that RAY_ADDRESS names or that
            runs on this machine; local to start one on this machine, for as long as the call lasts.
        ray_actors: Engines on the Ray cluster, each with a GPU; else as many as there are GPUs, or
            CPUs where there are none, also as machines come.
        profile: Measure where the time of two shards goes: profile/trace.json.gz and
            profile/table.txt in out.
        seed: Seed of the sampled responses.
        device: Where models run; auto takes the GPU where there is one.
        engine: What samples responses: vllm is the fastest on a GPU; hf is this package's own loop;
            generate is that of transformers, slower, for any model; auto takes vllm on a GPU where
            it is installed, else hf.
        engine_memory: Share of a GPU's memory that vllm takes; else .9, and .5 in training.
        max_sequences: Responses that are sampled at the same time.
        grade_workers: Processes that judge responses.
        grade_timeout: Seconds of CPU time to judge one response; after them its verdict is timeout.
        prompt_format: What is put to the model: plain text, or its tokenizer's chat template.
        max_prompt_tokens: Longest prompt, in tokens; problems with longer ones are left out and
            counted.
        max_new_tokens: Longest response, in tokens; it is cut there.
        beta1: Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's
            samples, 0 the largest.
        estimator: How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk
            draws each problem towards the others, as far as its samples leave open, and does with
            fewer of them. zero and constant, one value for all problems, are controls: they show
            what an estimate is worth.

    Returns:
        The table; `to_pandas()` shows V* of each problem.

    Raises:
        UserError: A setting or an input is wrong, or the table there does not fit.

    Example:
        >>> table = astarpo.estimate(model="Qwen/Qwen2.5-1.5B", problems=problems, samples=8)
        >>> table.to_pandas()
    """
    ...

@overload
def evaluate(config: EvaluateConfig, /) -> Scores: ...
@overload
def evaluate(
    *,
    model: str | Path | Run,
    problems: ProblemsLike | None = None,
    out: Path | str | None = None,
    reference: str | Path | Run | None = None,
    overwrite: bool = False,
    limit: int | None = None,
    reward: Reward | None = None,
    suite: Literal["paper"] | None = None,
    benchmarks: str | None = None,
    suite_sources: Path | str | None = None,
    samples: int = 4,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "vllm", "hf", "generate"] = "auto",
    engine_memory: float | None = None,
    max_sequences: int = 256,
    grade_workers: int = 2,
    grade_timeout: float = 5.0,
    prompt_format: Literal["raw", "chat"] = "raw",
    max_prompt_tokens: int = 256,
    max_new_tokens: int = 1024,
) -> Scores:
    """Scores a policy on problems, greedily and with k samples, or on a suite of benchmarks.

    Args:
        model: Policy to score: a folder or a hub name.
        problems: Problems: of `load_problems`, a list of dicts, a `datasets.Dataset`, or the
            Parquet file that `astarpo data` wrote.
        out: JSON file to write; the answers go beside it as Parquet. Else a new one in runs/, which
            the log names.
        reference: Policy to measure the KL divergence to: a folder or a hub name.
        overwrite: Replace the file at out if there is one.
        limit: Use this many problems, the first of the file; else all.
        reward: What judges: a function of yours, `score(prompts, completions, **columns)`, which
            returns one number a completion, also one of a notebook or inside another function; or a
            task's name, or 'FILE.py:NAME'. Else what the problems say. Completions are text where
            the prompts came as text, else lists of one message. It runs in processes that can be
            killed.
        suite: Score on a suite of benchmarks instead of problems, each by its own protocol.
        benchmarks: Only these benchmarks of the suite, such as math500,aime24.
        suite_sources: Folder with the benchmarks' files, named after them (aime24.jsonl); else the
            hub's.
        samples: Number k of responses sampled for each problem, beside the greedy one; 0 samples
            none.
        temperature: Temperature of the k samples.
        top_p: The k samples are drawn from the likeliest tokens of this total probability.
        seed: Seed of the sampled responses.
        device: Where models run; auto takes the GPU where there is one.
        engine: What samples responses: vllm is the fastest on a GPU; hf is this package's own loop;
            generate is that of transformers, slower, for any model; auto takes vllm on a GPU where
            it is installed, else hf.
        engine_memory: Share of a GPU's memory that vllm takes; else .9, and .5 in training.
        max_sequences: Responses that are sampled at the same time.
        grade_workers: Processes that judge responses.
        grade_timeout: Seconds of CPU time to judge one response; after them its verdict is timeout.
        prompt_format: What is put to the model: plain text, or its tokenizer's chat template.
        max_prompt_tokens: Longest prompt, in tokens; problems with longer ones are left out and
            counted.
        max_new_tokens: Longest response, in tokens; it is cut there.

    Returns:
        Scores by name, each with its 95% interval: `pass_at_1` (greedy), `avg_at_K`, `maj_at_K`,
        `pass_at_J` for powers of two up to K; `kl` and `kl_per_token` where a reference is given.

    Raises:
        UserError: A setting or an input is wrong.

    Example:
        >>> scores = astarpo.evaluate(model=run, problems=test_problems, samples=4)
        >>> scores["avg_at_4"].value
    """
    ...

@overload
def export(config: ExportConfig, /) -> Any: ...
@overload
def export(
    *,
    table: ValueTable | Path | str,
    problems: ProblemsLike,
    out: Path | str,
    format: Literal["verl", "trl", "compose-rl", "apo"] = "verl",
    overwrite: bool = False,
    beta1: float = 0.5,
    estimator: Literal["plugin", "shrunk", "zero", "constant"] = "plugin",
) -> Any:
    """Write a value table's V* (and samples) as one Parquet file for another trainer.

    Args:
        table: Value table (made by astarpo estimate).
        problems: Parquet file of the problems that the table was made from.
        out: Parquet file to write.
        format: The trainer whose columns are written.
        overwrite: Replace the file at out if there is one.
        beta1: Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's
            samples, 0 the largest.
        estimator: How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk
            draws each problem towards the others, as far as its samples leave open, and does with
            fewer of them. zero and constant, one value for all problems, are controls: they show
            what an estimate is worth.
    """
    ...

@overload
def import_values(config: ImportValuesConfig, /) -> Any: ...
@overload
def import_values(
    *,
    source: str,
    model: str | Path | Run,
    out: Path | str,
    split: str = "train",
    limit: int | None = None,
    temperature: float = 1.0,
    grade_workers: int = 2,
    grade_timeout: float = 5.0,
    trust_reward: str | None = None,
    prompt_format: Literal["raw", "chat"] = "raw",
    max_prompt_tokens: int = 256,
    max_new_tokens: int = 1024,
    beta1: float = 0.5,
    estimator: Literal["plugin", "shrunk", "zero", "constant"] = "plugin",
) -> Any:
    """Make a value table of published stage-1 samples (A-PO's layout), judged again.

    Args:
        source: Parquet file or hub data set with the columns response_0, response_1 and so on.
        model: The model that wrote the responses: a folder or a hub name.
        out: Folder for the value table; what is there is continued.
        split: Split of a hub data set.
        limit: Use this many problems, the first of the file; else all.
        temperature: Temperature at which the responses were sampled.
        grade_workers: Processes that judge responses.
        grade_timeout: Seconds of CPU time to judge one response; after them its verdict is timeout.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the problem
            file names as its judge: it runs only if you name it here.
        prompt_format: What is put to the model: plain text, or its tokenizer's chat template.
        max_prompt_tokens: Longest prompt, in tokens; problems with longer ones are left out and
            counted.
        max_new_tokens: Longest response, in tokens; it is cut there.
        beta1: Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's
            samples, 0 the largest.
        estimator: How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk
            draws each problem towards the others, as far as its samples leave open, and does with
            fewer of them. zero and constant, one value for all problems, are controls: they show
            what an estimate is worth.
    """
    ...

def load_problems(
    task: str | Task | type[Task] | Rows,
    /,
    *,
    source: str | None = None,
    reward: Reward | None = None,
    prompt_column: str | None = None,
    prompt_template: str | None = None,
    answer_column: str | None = None,
    instruction: str | None = None,
    skip_unreadable: bool = False,
    split: str = "train",
    test_share: float | None = None,
    without: ProblemsLike | None = None,
    limit: int | None = None,
    size: int | None = None,
    seed: int = 0,
) -> ProblemSet:
    """The problems of a task, or of rows of your own, for every verb's `problems`.

    Args:
        task: A task's name, such as `gsm8k`, or `own` for rows in a file; a task of your own; or
            rows: a list of dicts or a `datasets.Dataset`.
        source: Where published or own problems come from: a file (JSON lines, a JSON array, CSV or
            Parquet), or a data set's name on the Hugging Face hub.
        reward: What judges: a function of yours, `score(prompts, completions, **columns)`, which
            returns one number a completion, also one of a notebook or inside another function; or a
            task's name, or 'FILE.py:NAME'. Else what the problems say. Completions are text where
            the prompts came as text, else lists of one message. It runs in processes that can be
            killed.
        prompt_column: Column that holds the prompt, as text or as a list of messages; else the
            column prompt.
        prompt_template: The prompt, made of several columns: '{Body} {Question}'; instead of
            prompt_column.
        answer_column: Column that holds the reference answer; else the column answer.
        instruction: Text to put after each question.
        skip_unreadable: Leave out rows that cannot be read or judged, and say how many and why,
            instead of refusing the source.
        split: Which part of the problems: train or test.
        test_share: Share of the training problems, between 0 and 1, that is split off as test; a
            hash of the question decides. For sources without a test split, and to choose settings
            on.
        without: Held-out problems, given like those of `estimate`: problems that ask the same are
            left out.
        limit: At most this many problems; else all, or 1000 of a task that makes its own.
        size: Difficulty of made problems: how many digits, terms or numbers they have.
        seed: Decides which made problems come, and the order.

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
    ...

@overload
def plan(config: PlanConfig, /) -> Any: ...
@overload
def plan(
    *,
    recipe: str,
    model: str | Path | Run | None = None,
    source: str | None = None,
    test_source: str | None = None,
    set: tuple[str, ...] = (),
    json: bool = False,
    trust_reward: str | None = None,
    num_problems: int | None = None,
    answer_tokens: float | None = None,
    rates: Path | str | None = None,
    sample_rate: float | None = None,
    update_rate: float | None = None,
    price: float | None = None,
    nodes: int = 1,
    devices: int = 1,
    card: str | None = None,
    engine: Literal["auto", "vllm", "hf", "generate"] | None = None,
    tensor_parallel: int = 1,
    engine_memory: float | None = None,
) -> Any:
    """Work out what a recipe would do, need and cost, and what does not fit; runs nothing.

    Args:
        recipe: A TOML file, or the name of a shipped recipe.
        model: Policy to train, a folder (config.json is enough) or a hub name; else the recipe's.
        source: Training problems, a file or a hub name; else the recipe's.
        test_source: Test problems, a file or a hub name; else the recipe's.
        set: Change a setting of the recipe, as TABLE.SETTING=VALUE (train.lr=2e-6, data.limit=64);
            may be given several times.
        json: Print the plan as JSON, for programs.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe
            names as its judge: it is imported only if you name it here.
        num_problems: Take so many training problems for granted instead of reading them; every
            prompt then counts as one of max_prompt_tokens.
        answer_tokens: Tokens of an answer in the mean, for samples, hours and storage; else as in
            rates, or a quarter of max_new_tokens. Memory is always planned for the longest.
        rates: Measured speed: a run of astarpo run or astarpo train, or the JSON file of
            benchmarks/gpu.py; else what the card could do is estimated.
        sample_rate: Tokens a second that one device samples; else from rates, or estimated.
        update_rate: Tokens a second, prompts included, that one device learns from; else from
            rates, or estimated.
        price: Price of one device for an hour, for the costs.
        nodes: Machines that train together; else the recipe's, or 1.
        devices: GPUs of each machine; else the recipe's, or 1.
        card: The GPU: a name, such as H100, or its memory in GiB, such as 80; cpu for none; else
            the recipe's, or what this machine has.
        engine: What samples responses; else the recipe's, or auto.
        tensor_parallel: GPUs that one engine is spread over; else the recipe's, or 1.
        engine_memory: Share of a GPU's memory that vllm takes; else the recipe's, or .9, and .5 in
            training.
    """
    ...

@overload
def push(config: PushConfig, /) -> Any: ...
@overload
def push(
    *,
    source: Path | str,
    repo: str,
    private: bool = False,
) -> Any:
    """Put a run's model or a value table on the Hugging Face hub, with a card.

    Args:
        source: A run (its trained model is sent), or a value table.
        repo: Where to, such as my-name/my-model; it is made if it is not there.
        private: Make the repository one that only its owner sees.
    """
    ...

@overload
def recipes(config: RecipesConfig, /) -> Any: ...
@overload
def recipes(
    *,
    name: str | None = None,
) -> Any:
    """List the shipped recipes, or print one.

    Args:
        name: A recipe to print, by its name or as a TOML file; else all are listed.
    """
    ...

@overload
def report(config: ReportConfig, /) -> Any: ...
@overload
def report(
    *,
    runs: Sequence[Run | Path | str],
    out: Path | str | None = None,
    max_answers: int = 50000,
    overwrite: bool = False,
    markdown: bool = False,
    watch: bool = False,
) -> Any:
    """Write a page about runs that works offline: scores, curves, stage 1, sampled answers.

    Args:
        runs: Run directories of astarpo train or folders of astarpo run, one or several; or one
            folder of astarpo compare or astarpo sweep.
        out: HTML file to write; else report.html in the first run.
        max_answers: Most answers in the page; where there are more, whole problems are left out.
        overwrite: Replace the file at out if there is one.
        markdown: Write report.md with PNG pictures beside the page too.
        watch: Make the page anew as its runs go on, until the last one ends; the page reloads
            itself.
    """
    ...

@overload
def run(config: RunConfig, /) -> Any: ...
@overload
def run(
    *,
    recipe: str,
    out: Path | str,
    model: str | Path | Run | None = None,
    source: str | None = None,
    test_source: str | None = None,
    seed: int | None = None,
    set: tuple[str, ...] = (),
    device: Literal["auto", "cpu", "cuda"] | None = None,
    trust_reward: str | None = None,
) -> Any:
    """Run all stages of a recipe: data, estimate, train, evaluate before and after.

    Args:
        recipe: A TOML file, or the name of a shipped recipe.
        out: Folder for everything; run again to go on where it stopped.
        model: Policy to train, a folder or a hub name; else the recipe's.
        source: Training problems, a file or a hub name; else the recipe's.
        test_source: Test problems, a file or a hub name; else the recipe's.
        seed: Seed of the problems, the samples and the data order; else the recipe's, or 0.
        set: Change a setting of the recipe, as TABLE.SETTING=VALUE (train.lr=2e-6, data.limit=64);
            may be given several times.
        device: Where models run; auto takes the GPU where there is one; else the recipe's, or auto.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe
            names as its judge: it runs only if you name it here.
    """
    ...

@overload
def runs(config: RunsConfig, /) -> Any: ...
@overload
def runs(
    *,
    dir: Path | str = Path("runs"),
) -> Any:
    """List the runs below a folder: state, step, reward, time.

    Args:
        dir: Folder to look through.
    """
    ...

@overload
def sweep(config: SweepConfig, /) -> Any: ...
@overload
def sweep(
    *,
    setting: str,
    out: Path | str | None = None,
    recipe: str = "compare",
    model: str | Path | Run | None = None,
    set: tuple[str, ...] = (),
    over: str | None = None,
    algorithms: str = "astar_po",
    equal: Literal["prompts", "samples", "total"] = "prompts",
    trust_reward: str | None = None,
    seeds: str = "0,1,2",
    steps: int | None = None,
    target: float | None = None,
    total_samples: int | None = None,
    validation: bool = False,
) -> Any:
    """Vary one setting, over seeds; run again, it goes on where it stopped.

    Args:
        setting: What is varied: samples (N, all from one value table), beta1, beta2, filter,
            another setting of train, or size (difficulty of made problems).
        out: Folder for everything; else runs/sweep-SETTING.
        recipe: A TOML file, or the name of a shipped recipe.
        model: Policy to train, a folder or a hub name; else the recipe's, or the demo's.
        set: Change a setting of the recipe, as TABLE.SETTING=VALUE (data.task=countdown,
            variants.NAME.lr=2e-6); may be given several times.
        over: Its values, such as 1,2,4; samples, beta1, beta2 and filter have values of their own.
        algorithms: Algorithms, or variants of the recipe, one or several.
        equal: What several algorithms get the same number of: prompts in a step; samples in a step;
            or samples in a step and in total, stage 1 included.
        trust_reward: Reward function of yours, as FILE.py:NAME or MODULE:NAME, that the recipe
            names as its judge: it runs only if you name it here.
        seeds: Seeds of stage 1, data order and samples; each variant is trained once with each.
        steps: Steps of every run; else the recipe's.
        target: Held-out reward up to which seconds and tokens are counted; else the largest
            multiple of 0.05 that every run reached which did not collapse.
        total_samples: Samples of each run with equal total, stage 1 included.
        validation: Score on a share of the training problems that is held out, and not on the test
            problems: for choosing settings.
    """
    ...

@overload
def train(
    config: TrainConfig, /, *, on_step: Callable[[dict[str, Any]], object] | None = None
) -> Run: ...
@overload
def train(
    *,
    model: str | Path | Run,
    problems: ProblemsLike,
    values: ValueTable | Path | str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    limit: int | None = None,
    reward: Reward | None = None,
    algorithm: type[Algorithm] | Algorithm | str = "astar_po",
    values_samples: int | None = None,
    filter: Literal["none", "all_wrong", "all_wrong_and_right"] = "none",
    prompt_format: Literal["raw", "chat"] | None = None,
    max_prompt_tokens: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    seed: int = 0,
    steps: int | None = None,
    epochs: float = 25,
    max_seconds: float | None = None,
    lr: float = 1e-06,
    schedule: Literal["constant", "linear", "cosine"] = "constant",
    warmup_steps: int = 0,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    weight_decay: float = 0.01,
    grad_clip: float = 1.0,
    prompts_per_step: int = 256,
    minibatches: int = 2,
    micro_batch_tokens: int = 8192,
    gradient_checkpointing: bool = False,
    reference_offload: bool = False,
    fp32_head: bool = False,
    lora_rank: int | None = None,
    lora_alpha: int | None = None,
    shard_size: int | None = None,
    policy_offload: bool = False,
    eval_problems: ProblemsLike | None = None,
    eval_every: int = 10,
    eval_samples: int = 1,
    health: Literal["stop", "warn", "off"] = "stop",
    checkpoint_every: int = 50,
    checkpoint_minutes: float = 5.0,
    keep_checkpoints: int = 2,
    log_to: Literal["none", "tensorboard", "wandb", "trackio"] = "none",
    profile: bool = False,
    beta1: float = 0.5,
    estimator: Literal["plugin", "shrunk", "zero", "constant"] = "plugin",
    beta2: float = 0.001,
    baseline_from: Literal["v_star", "rollout"] = "v_star",
    first_rollouts: Literal["policy", "stage1"] = "policy",
    stage1_drift: float = 0.5,
    group_size: int = 8,
    kl_coef: float = 0.001,
    clip: float = 0.2,
    clip_high: float = 0.28,
    std_normalize: bool = True,
    length_normalize: bool = True,
    eta: float = 1.0,
    gae_gamma: float = 1.0,
    gae_lambda: float = 1.0,
    value_clip: float = 0.5,
    critic_lr: float = 1e-05,
    critic_warmup_steps: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    engine: Literal["auto", "vllm", "hf", "generate"] = "auto",
    engine_memory: float | None = None,
    max_sequences: int = 256,
    grade_workers: int = 2,
    grade_timeout: float = 5.0,
    on_step: Callable[[dict[str, Any]], object] | None = None,
) -> Run:
    """Stage 2: trains the policy, by A*-PO from a value table or by another algorithm.

    Ctrl-C, or a notebook's stop button, ends it with its state saved: the same call with
    `resume=True` goes on as if it had never stopped.

    Args:
        model: Policy to train, and its reference: a folder or a hub name.
        problems: Problems: of `load_problems`, a list of dicts, a `datasets.Dataset`, or the
            Parquet file that `astarpo data` wrote.
        values: Value table of the same model (made by astarpo estimate); astar_po, spo and filter
            need one.
        out: Folder for the run: metrics, samples, checkpoints and the trained model. Else a new one
            in runs/, which the log names.
        resume: Go on with the run in out, from its last checkpoint.
        limit: Use this many problems, the first of the file; else all.
        reward: What judges: a function of yours, `score(prompts, completions, **columns)`, which
            returns one number a completion, also one of a notebook or inside another function; or a
            task's name, or 'FILE.py:NAME'. Else what the problems say. Completions are text where
            the prompts came as text, else lists of one message. It runs in processes that can be
            killed.
        algorithm: The loss to train by; installed packages may add others. Or a class or instance
            of yours, derived from `astarpo.algorithms.base.Algorithm`.
        values_samples: Use the first so many samples of each problem in the value table; else all.
        filter: Leave out problems whose samples in the value table are all wrong, or all right too.
        prompt_format: What is put to the model: plain text, or its tokenizer's chat template; else
            as in the value table, or raw.
        max_prompt_tokens: Longest prompt, in tokens; problems with longer ones are left out and
            counted; else as in the value table, or 256.
        max_new_tokens: Longest response, in tokens; it is cut there; else as in the value table, or
            1024.
        temperature: Sampling temperature; else as in the value table, or 1.
        seed: Seed of the data order and of the sampled responses.
        steps: Steps of training, each on prompts_per_step prompts; instead of epochs.
        epochs: Passes over the problems.
        max_seconds: End after the step in which training has taken so many seconds; else no limit.
        lr: Peak learning rate.
        schedule: Course of the learning rate after the warm-up; linear and cosine end at 0.
        warmup_steps: Steps in which the learning rate rises from 0 to its peak.
        optimizer: The optimiser; adamw_8bit (of bitsandbytes) keeps 2 bytes of state a weight
            instead of 8.
        weight_decay: Weight decay of AdamW.
        grad_clip: Gradients of a larger norm are scaled down to it.
        prompts_per_step: Prompts that are answered in one step.
        minibatches: Updates of the weights in a step, each from its share of the step's responses.
        micro_batch_tokens: Tokens in one forward pass, padding included; fewer need less memory.
        gradient_checkpointing: Compute activations a second time instead of keeping them: less
            memory, more time.
        reference_offload: Keep the reference's weights in the host's memory while the GPU does not
            need them.
        fp32_head: Compute the logits in float32 where all else is computed in bfloat16, in the
            trainer and in the engine alike: their log-probs then differ less, at some time and
            memory.
        lora_rank: Train a LoRA adapter of this rank; else all weights.
        lora_alpha: The adapter is multiplied by lora_alpha / lora_rank; else by 2.
        shard_size: How many of the processes that torchrun has started hold one copy of the
            weights, gradients and optimiser together; else all of them. 1 gives each a whole copy:
            more memory, less to send.
        policy_offload: Keep the policy's weights, gradients and optimiser in the host's memory, but
            for the layer that the GPU works on; it needs torchrun.
        eval_problems: Held-out problems to answer while training, outside the measured time, given
            like `problems`.
        eval_every: Steps between evaluations.
        eval_samples: Responses sampled for each held-out problem.
        health: What is done where the reward collapses: the run is stopped, a warning is logged, or
            nothing.
        checkpoint_every: Steps between checkpoints.
        checkpoint_minutes: Save a checkpoint at least every so many minutes, unless saving takes
            too long.
        keep_checkpoints: Checkpoints that are kept, the latest ones.
        log_to: Send metrics and samples to this tracker as well.
        profile: Measure where the time of two steps goes: profile/trace.json.gz and
            profile/table.txt in out.
        beta1: Temperature of V*, in units of reward: inf makes V* the mean reward of a problem's
            samples, 0 the largest.
        estimator: How V* is estimated: plugin is the paper's, from a problem's own samples; shrunk
            draws each problem towards the others, as far as its samples leave open, and does with
            fewer of them. zero and constant, one value for all problems, are controls: they show
            what an estimate is worth.
        beta2: Weight of ln(pi / pi_ref) of a response, in units of reward a nat: the larger, the
            nearer the policy stays to the reference.
        baseline_from: What is taken from a reward: the prompt's V*; or the mean reward of the
            step's other answers, where those that the policy was less sure of count for more, which
            needs no value table.
        first_rollouts: What the first steps learn from: new answers of the policy, or the value
            table's samples, for as long as the policy is near the reference that drew them.
        stage1_drift: How far from the reference, in nats of a response, the policy may be when it
            learns from the value table's samples.
        group_size: Responses sampled for each prompt in a step.
        kl_coef: Weight of the KL divergence to the reference, in units of reward a nat; grpo adds
            it to the loss, the others take it off the reward.
        clip: How far from 1 a token's ratio of new to old probability is still rewarded for going.
        clip_high: How far above 1 that ratio is still rewarded for going; clip is here how far
            below.
        std_normalize: Divide advantages by the standard deviation of the group's rewards; off in
            Dr. GRPO.
        length_normalize: Divide a response's loss by its own length in tokens; off, as in Dr. GRPO,
            by max_new_tokens.
        eta: Nats of log-ratio that a difference in reward of 1 is to make.
        gae_gamma: Discount from one token to the next; 1 is none.
        gae_lambda: Lambda of generalised advantage estimation: 1 goes by the rewards alone, 0 by
            the critic.
        value_clip: How far the critic's value of a token may move in a step, in units of reward.
        critic_lr: Peak learning rate of the critic.
        critic_warmup_steps: First steps, in which the critic alone is trained.
        device: Where models run; auto takes the GPU where there is one.
        engine: What samples responses: vllm is the fastest on a GPU; hf is this package's own loop;
            generate is that of transformers, slower, for any model; auto takes vllm on a GPU where
            it is installed, else hf.
        engine_memory: Share of a GPU's memory that vllm takes; else .9, and .5 in training.
        max_sequences: Responses that are sampled at the same time.
        grade_workers: Processes that judge responses.
        grade_timeout: Seconds of CPU time to judge one response; after them its verdict is timeout.
        on_step: Called with each step's metrics, once they are on disk. It may raise
            `astarpo.StopTraining` to end training after that step; what else it raises passes
            through, and the same call with resume=True goes on from the last checkpoint.

    Returns:
        The run: its metrics, its model and its report.

    Raises:
        UserError: A setting or an input is wrong, or does not fit the value table.
        TrainingStopped: Training went wrong; the message says what to do.

    Example:
        >>> run = astarpo.train(model=model, problems=problems, values=table, steps=100)
        >>> run.metrics.to_pandas(), run.model_path
    """
    ...

@overload
def warm_start(config: WarmStartConfig, /) -> Any: ...
@overload
def warm_start(
    *,
    problems: ProblemsLike,
    out: Path | str,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
    steps: int = 1000,
    batch_size: int = 64,
    max_tokens: int = 512,
    lr: float = 0.002,
    seed: int = 0,
) -> Any:
    """Train a small policy from scratch on the worked solutions of problems.

    Args:
        problems: Parquet file of problems that have worked solutions.
        out: Folder for the policy (Hugging Face layout).
        hidden_size: Width of the hidden states.
        layers: Layers of the model.
        heads: Attention heads of a layer.
        steps: Updates of the weights.
        batch_size: Solutions in one update.
        max_tokens: Longest problem with its solution, in tokens; longer ones are left out and
            counted.
        lr: Peak learning rate of AdamW.
        seed: Seed of the first weights and of the data order.
    """
    ...
