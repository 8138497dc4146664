"""What a plan is made of, from the stages' configs: shape, devices, problems, lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from astarpo.config import ComputeConfig, EstimateConfig, ResourcesConfig, TrainConfig
from astarpo.models.prompts import Prompts, open_prompts
from astarpo.models.vocabulary import Vocabulary, load_vocabulary, make_vocabulary
from astarpo.planning.cards import find_card
from astarpo.planning.checks import Checks, check_problems
from astarpo.planning.fitting import Trial
from astarpo.planning.memory import GIB, Place
from astarpo.planning.planned import Asked, make_plan
from astarpo.planning.remedies import find_remedies
from astarpo.planning.shape import ModelShape, read_shape
from astarpo.planning.text import render
from astarpo.planning.work import Lengths
from astarpo.stages.data import gather_problems, keep_apart
from astarpo.stages.warm_start import byte_tokenizer, policy_config
from astarpo.training.inputs import TextSettings, text_of_stages
from astarpo.types import UserError

_MOST_READ = 20_000
"""Prompts that are turned into tokens for their lengths; the others are taken to be like them."""

_EXPECTED_SHARE = 4
"""Nobody knows yet how long answers will be: a fourth of the limit is taken for granted."""


@dataclass(frozen=True)
class Foreseen:
    """The problems of a recipe, as far as they were read.

    Attributes:
        num_train: To train on.
        num_test: Held out.
        lengths: Of prompts and answers.
        checks: What was found in them; None where they were not read.
    """

    num_train: int
    num_test: int
    lengths: Lengths
    checks: Checks | None


def place_of(resources: ResourcesConfig, config: ComputeConfig) -> Place:
    """The devices that a recipe asks for; raises UserError where there is no such card."""
    card = find_card(resources.card, config.device)
    devices = resources.nodes * resources.devices
    if resources.tensor_parallel > devices:
        raise UserError(
            f"tensor_parallel {resources.tensor_parallel}: an engine cannot be spread over more "
            f"than the {devices} devices of [resources]; raise devices or nodes there"
        )
    if not card.is_gpu and devices > 1:
        raise UserError(
            f"{devices} devices of {card.name}: say which GPUs they are: --card H100, or their "
            "memory in GiB, such as --card 80"
        )
    shard_size = getattr(config, "shard_size", None)  # of training
    nodes, each, spread = resources.nodes, resources.devices, resources.tensor_parallel
    return Place(card, nodes, each, spread, shard_size)


def shape_of(stages: Mapping[str, Any]) -> tuple[ModelShape, Vocabulary | None]:
    """The model of a recipe and its vocabulary; None where its folder has no tokenizer.

    Raises:
        UserError: There is no such model, or it is no language model.
    """
    if "warm_start" in stages:
        warm, tokenizer = stages["warm_start"], byte_tokenizer()
        config = policy_config(warm.hidden_size, warm.layers, warm.heads, tokenizer)
        vocabulary = make_vocabulary(tokenizer, config, config)
        return ModelShape("a small policy of its own", config), vocabulary
    name = stages["train"].model
    shape = read_shape(name)
    try:
        return shape, load_vocabulary(name)
    except UserError:  # lengths are then taken for granted, which the plan says
        return shape, None


def foresee(
    stages: Mapping[str, Any],
    shape: ModelShape,
    vocabulary: Vocabulary | None,
    num_problems: int | None,
    answer_tokens: tuple[float | None, str],
) -> Foreseen:
    """Reads the problems of a recipe, or takes their number for granted.

    Args:
        stages: The config of each.
        shape: The model.
        vocabulary: The model's, where it has one.
        num_problems: Training problems, in the place of reading any; held out are as many as
            `[test]` has a limit, or none.
        answer_tokens: Of an answer in the mean, and how that is known; None to assume it.

    Raises:
        UserError: A source cannot be read, or its problems cannot be judged or do not fit.
    """
    text = text_of_stages(stages)
    if num_problems is not None:
        lengths = _lengths(None, text, answer_tokens, "each as long as max_prompt_tokens")
        require_context(shape, lengths)
        return Foreseen(num_problems, stages["test_data"].limit or 0, lengths, None)
    train, test = stages["train_data"], stages["test_data"]
    if train.without == test.out:  # The stages are prepared, and that file is not written yet.
        train = train.model_copy(update={"without": None})
    apart = keep_apart(train, test)
    raw = gather_problems(apart.train.model_copy(update={"without": None}))
    if vocabulary is None:
        lengths = _lengths(None, text, answer_tokens, "the model has no tokenizer here: each as "
                           "long as max_prompt_tokens")  # fmt: skip
        require_context(shape, lengths)
        used, too_long = len(apart.problems), 0
    else:
        read = apart.problems[:_MOST_READ]
        prompts = open_prompts(
            read, vocabulary, text.prompt_format, text.max_prompt_tokens, text.max_new_tokens
        )
        sizes = prompts.lengths_P.tolist()
        said = "as read" if len(read) == len(apart.problems) else f"of the first {len(read):,}"
        lengths = _lengths(sizes, text, answer_tokens, said)
        too_long = round((len(read) - len(prompts)) / len(read) * len(apart.problems))
        used = len(apart.problems) - too_long
    checks = check_problems(raw, apart.held_out, too_long)
    return Foreseen(used, len(apart.held_out), lengths, checks)


def _lengths(
    sizes: Sequence[int] | None,
    text: TextSettings,
    answer_tokens: tuple[float | None, str],
    said: str,
) -> Lengths:
    """Lengths of prompts of known sizes; without any, all are as long as the limit."""
    mean, source = answer_tokens
    if mean is None:
        mean, source = text.max_new_tokens / _EXPECTED_SHARE, "a quarter of max_new_tokens"
    sizes = sizes or [text.max_prompt_tokens]
    return Lengths(
        prompt_mean=sum(sizes) / len(sizes),
        prompt_longest=max(sizes),
        answer_mean=min(mean, text.max_new_tokens),
        answer_limit=text.max_new_tokens,
        prompts_from=said,
        answers_from=source,
    )


def require_context(shape: ModelShape, lengths: Lengths) -> None:
    """Refuses prompts and answers that a model has no positions for; see `open_prompts`."""
    if shape.context is not None and lengths.longest > shape.context:
        raise UserError(
            f"a prompt of {lengths.prompt_longest} tokens and max_new_tokens="
            f"{lengths.answer_limit} do not fit the context of {shape.name}, {shape.context} "
            "tokens; set one of them lower"
        )


def refuse_unfit(stages: Mapping[str, Any], resources: ResourcesConfig) -> None:
    """Refuses a recipe whose weights, gradients and moments alone are too much for what is here.

    Raises:
        UserError: They are; the message says what to change.
    """
    shape, _ = shape_of(stages)
    card = find_card(None, stages["train"].device)
    place = Place(card, resources.nodes, resources.devices, resources.tensor_parallel)
    lengths = _lengths(None, text_of_stages(stages), (None, ""), "")
    trial = Trial(stages, shape, lengths, place)
    if trial.may_fit:
        return
    remedies = find_remedies(trial)
    change = " or ".join(" ".join(remedy.flags) for remedy in remedies)
    raise UserError(
        f"{shape.name}: {shape.num_parameters / 1e9:.1f} billion parameters do not fit into "
        f"{place.devices} x {card.memory / GIB:.1f} GiB ({card.name}): "
        f"{f'give {change}' if change else 'take a smaller model'} (astarpo plan says more)"
    )


def plan_stages(name: str, stages: Mapping[str, Any], resources: ResourcesConfig) -> str:
    """The plan of a recipe's stages as a dry run shows it.

    Args:
        name: Of the recipe.
        stages: The config of each; problems are read.
        resources: The machines it is for.
    """
    shape, vocabulary = shape_of(stages)
    foreseen = foresee(stages, shape, vocabulary, None, (None, ""))
    asked = Asked(
        name=name,
        stages=stages,
        shape=shape,
        place=place_of(resources, stages["train"]),
        lengths=foreseen.lengths,
        num_train=foreseen.num_train,
        num_test=foreseen.num_test,
        checks=foreseen.checks,
    )
    return render(make_plan(asked)).text


def plan_stage(
    name: str, config: EstimateConfig | TrainConfig, prompts: Prompts, **more: int
) -> list[str]:
    """The plan of one stage whose prompts are at hand, in lines; see `plan_stages`.

    Args:
        name: Of the stage.
        config: Its settings.
        prompts: That it goes over.
        more: `max_new_tokens` and `num_test`, where the config does not say them.
    """
    limit = more.get("max_new_tokens") or config.max_new_tokens
    assert limit is not None
    text = TextSettings("raw", 0, limit, 1.0)
    lengths = _lengths(prompts.lengths_P.tolist(), text, (None, ""), "as read")
    asked = Asked(
        name=name,
        stages={name: config},
        shape=read_shape(config.model),
        place=place_of(ResourcesConfig(), config),
        lengths=lengths,
        num_train=len(prompts),
        num_test=more.get("num_test", 0),
    )
    return ["", *render(make_plan(asked), brief=True).text.splitlines()]
