"""The verb `chat`: a problem, and the answers of a run's reference and of its trained policy.

    line typed or piped -> questions.py -> one prompt -> both policies -> verdicts -> side by side

What the run's value table says of a problem is told beside the answers.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from astarpo.config import ChatConfig, TrainConfig
from astarpo.config.documents import build
from astarpo.engines import open_engine
from astarpo.engines.base import Engine, Request, Sampling
from astarpo.grading.fingerprint import verifier_fingerprint
from astarpo.grading.grader import Grader
from astarpo.models.policy import load_policy
from astarpo.models.prompts import open_prompts
from astarpo.models.vocabulary import PromptFormat, Vocabulary, load_vocabulary
from astarpo.rundir.reader import RunDirectory, open_run
from astarpo.runtime.devices import pick_device
from astarpo.runtime.seeding import derive_seed
from astarpo.runtime.words import did_you_mean, shown
from astarpo.tasks.problem_set import read_problems
from astarpo.training.checkpoint import latest_checkpoint
from astarpo.training.inputs import text_settings
from astarpo.types import Problem, UserError
from astarpo.values.choice import estimator_of
from astarpo.values.table import ValueTable
from astarpo.verbs.questions import Questions
from astarpo.verbs.side_by_side import Exchange, Reply, show

HELP = """\
Type a problem, and both policies answer it. Or:
  PROBLEM => ANSWER    say what is right too, and the answers are judged
  /random              one of the run's problems, with verdicts and V*
  /id ID               the problem of that id
  /help                this text
  /quit                the end (so is Ctrl-D)"""

logger = logging.getLogger("astarpo")


@dataclass(frozen=True)
class Talk:
    """What a talk starts from.

    Attributes:
        reference: The model that training started from, a folder or a hub name.
        trained: The folder of the model that it made.
        trained_by: What the trained model is called: its steps, where training is unfinished.
        prompt_format: How a problem becomes a prompt.
        sampling: How answers are drawn.
        questions: The problems of the run.
        values: V* of problems and its standard error, by id.
        vocabulary: The reference's, which is the trained model's as well.
    """

    reference: str
    trained: Path
    trained_by: str
    prompt_format: PromptFormat
    sampling: Sampling
    questions: Questions
    values: dict[str, tuple[float, float]]
    vocabulary: Vocabulary


def chat(config: ChatConfig) -> None:
    """Answers problems by the reference and the trained policy of a run, side by side.

    They come from `config.problem`, else from standard input: typed, or a line each.

    Raises:
        UserError: The path is no run, it has no trained model, or the problem is not the run's.
    """
    talk = prepare(config)
    if config.engine == "auto":  # Two engines that start in minutes are too many for a few answers.
        config = config.model_copy(update={"engine": "hf"})
    device = pick_device(config.device)
    with ExitStack() as stack:
        engines = {}
        for name, model in (("reference", talk.reference), (talk.trained_by, str(talk.trained))):
            policy = load_policy(model, device, talk.vocabulary)
            engines[name] = stack.enter_context(open_engine(config, policy))
        grader = stack.enter_context(
            Grader(config.grade_workers, config.grade_timeout, config.trust_reward)
        )
        for number, (label, find) in enumerate(_asked(config, talk.questions)):
            try:
                show(_exchange(config, talk, find(), number, engines, grader))
            except UserError as error:
                if config.problem is not None:
                    raise
                logger.warning(f"{label}: {error}")


def prepare(config: ChatConfig) -> Talk:
    """Finds and checks what `chat` needs; loads no weights."""
    run = open_run(config.run)
    if not run.config:
        raise UserError(f"{config.run}: its training has not begun yet")
    pick_device(config.device)
    settings = build(TrainConfig, run.config)
    table = ValueTable(run.values) if run.values else None
    if settings.values and table is None:
        logger.warning(
            f"{settings.values}: not there any more: no V* is known, and limits that training took "
            "from it have their defaults"
        )
    text = text_settings(settings, table)
    trained, trained_by = _trained(run)
    problems = _problems(run)
    verifier_fingerprint(problems, config.trust_reward)
    temperature = text.temperature if config.temperature is None else config.temperature
    questions = Questions(problems, config.seed)
    if config.problem not in (None, "random"):
        questions.by_id(config.problem)
    reference = _reference(run)
    return Talk(
        reference=reference,
        trained=trained,
        trained_by=trained_by,
        prompt_format=text.prompt_format,
        sampling=Sampling(config.max_new_tokens or text.max_new_tokens, temperature),
        questions=questions,
        values=_values(table, problems, settings),
        vocabulary=load_vocabulary(reference),
    )


def preview(config: ChatConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    talk = prepare(config)
    frame = talk.questions.frame
    return [
        f"reference: {talk.reference}",
        f"{talk.trained_by}: {talk.trained}",
        f"{len(talk.questions.problems)} problems to pick from, {len(talk.values)} with V*",
        f"what is typed is put as {shown(frame.before + '...' + frame.after)!r}",
    ]


def _exchange(
    config: ChatConfig,
    talk: Talk,
    problem: Problem,
    number: int,
    engines: dict[str, Engine],
    grader: Grader,
) -> Exchange:
    """Both sides' answers to a problem; asked again later in a talk, it gets other samples."""
    (prompt,) = open_prompts(
        [problem], talk.vocabulary, talk.prompt_format, None, talk.sampling.max_new_tokens
    )
    # Alike for both sides, so that they draw by the same chances.
    seeds = [derive_seed(config.seed, "chat", str(number), k) for k in range(config.samples)]
    requests = [Request(prompt.token_ids, seed) for seed in seeds]
    is_judged = bool(problem.data_source)
    replies = {}
    for name, engine in engines.items():
        completions = engine.generate(requests, talk.sampling)
        texts = [talk.vocabulary.decode(completion.token_ids) for completion in completions]
        verdicts = grader.grade([problem] * len(texts), texts) if is_judged else [None] * len(texts)
        replies[name] = [
            Reply(text, completion.finish_reason == "length", verdict)
            for text, completion, verdict in zip(texts, completions, verdicts, strict=True)
        ]
    return Exchange(problem, talk.values.get(problem.id), replies)


_Find = Callable[[], Problem]


def _asked(config: ChatConfig, questions: Questions) -> Iterator[tuple[str, _Find]]:
    """What is asked, with a word for messages and the way to its problem."""
    if config.problem is not None:
        name = config.problem
        yield name, questions.pick if name == "random" else partial(questions.by_id, name)
        return
    if sys.stdin.isatty():
        logger.info(HELP)
    for line in _lines():
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/help":
            logger.info(HELP)
        elif command == "/random":
            yield command, questions.pick
        elif command == "/id":
            yield command, partial(questions.by_id, rest.strip())
        elif line.startswith("/"):
            commands = ("/random", "/id", "/help", "/quit")
            logger.warning(f"{command}: no such command{did_you_mean(command, commands)}")
        elif line:
            yield "what was typed", partial(questions.typed, line)


def _lines() -> Iterator[str]:
    """Lines of standard input, to their end; in a terminal they can be edited and called back."""
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    import readline  # noqa: F401  its import lets `input` edit lines

    while True:
        try:
            yield input("problem> ").strip()
        except (EOFError, KeyboardInterrupt):
            sys.stdout.write("\n")
            return


def _reference(run: RunDirectory) -> str:
    """The model that training started from; a small one of the recipe's own lies in the run."""
    name, own = str(run.config["model"]), run.path / "reference"
    return str(own) if not Path(name).is_dir() and own.is_dir() else name


def _trained(run: RunDirectory) -> tuple[Path, str]:
    """The trained model, or that of the last checkpoint, and what it is called."""
    model = run.training / "model"
    if (model / "config.json").is_file():
        return model, "trained"
    if found := latest_checkpoint(run.training):
        path, step = found
        if (path / "model").is_dir():
            return path / "model", f"trained, step {step} so far"
    raise UserError(
        f"{run.path}: has no trained model yet, nor a checkpoint that holds a whole one; let the "
        "run go on"
    )


def _problems(run: RunDirectory) -> list[Problem]:
    """The problems that the run was trained and tested on, as far as their files are there."""
    held_out = Path(str(run.config.get("eval_problems") or ""))
    paths = [run.problems("train"), run.problems("test"), held_out if held_out.is_file() else None]
    found: dict[str, Problem] = {}
    for path in paths:
        if path is not None and path.is_file():
            found = {problem.id: problem for problem in read_problems(path)} | found
    return list(found.values())


def _values(
    table: ValueTable | None, problems: list[Problem], config: TrainConfig
) -> dict[str, tuple[float, float]]:
    """V* of the problems that the run's value table holds, as the run used it."""
    sampled = table.sampled(problems) if table else []
    if table is None or not sampled:
        return {}
    found = table.values(sampled, estimator_of(dict(config)), config.values_samples)
    pairs = zip(found.v_star_P.tolist(), found.standard_error_P.tolist(), strict=True)
    return {problem.id: pair for problem, pair in zip(sampled, pairs, strict=True)}
