"""The verb `plan`: what a recipe would do, need and cost, and what to change where it does not fit.

Nothing is run and no weights are loaded: shapes come from the model's `config.json`, lengths from
its tokenizer and the problems.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astarpo.config import PlanConfig, ResourcesConfig, RunConfig
from astarpo.config.documents import resources_of
from astarpo.planning.hours import measured
from astarpo.planning.planned import Asked, make_plan
from astarpo.planning.records import Plan
from astarpo.planning.text import render
from astarpo.stages.foresight import foresee, place_of, shape_of
from astarpo.stages.pipeline import stage_configs
from astarpo.training.inputs import refuse_other_text, text_of_stages
from astarpo.types import UserError
from astarpo.verbs.run import read_recipe


def plan(config: PlanConfig) -> Plan:
    """Works out what a recipe would do, need and cost.

    Returns:
        The plan; `fits` says whether it fits.

    Raises:
        UserError: The recipe or an input is wrong.
    """
    return plan_document(*prepare(config), config)


def prepare(config: PlanConfig) -> tuple[dict[str, Any], str]:
    """The recipe, with the config's own settings over it, and where it came from."""
    document, origin = read_recipe(
        RunConfig(
            recipe=config.recipe,
            out=_nowhere(),
            model=config.model,
            source=config.source,
            test_source=config.test_source,
            set=config.set,
            trust_reward=config.trust_reward,
        )
    )
    if "problems" in document or "data" not in document:
        raise UserError(
            f"{origin}: has no table [data], so it is no recipe of all stages; settings of one "
            f"stage are planned by astarpo train --config {origin} --dry-run, say"
        )
    given = config.model_dump(include={*ResourcesConfig.model_fields}, exclude_unset=True)
    resources = dict(document.get("resources", {})) | given
    return document | ({"resources": resources} if resources else {}), origin


def preview(config: PlanConfig) -> list[str]:
    """The lines of a dry run, which are those of the plan itself."""
    return plan(config).text.splitlines()


def plan_document(document: Mapping[str, Any], origin: str, config: PlanConfig) -> Plan:
    """Plans a parsed recipe, whose origin is for messages."""
    stages = stage_configs(document, _nowhere(), origin)
    text, train = text_of_stages(stages), stages["train"]
    refuse_other_text(train, text, "[estimate]")
    place = place_of(resources_of(document, origin), train)
    shape, vocabulary = shape_of(stages)
    rates = None
    answers = (config.answer_tokens, "as given")
    if config.rates is not None:
        rates = measured(config.rates, prompt_mean=text.max_prompt_tokens / 2)
        if config.answer_tokens is None:
            answers = (rates.answer_mean, f"as in {config.rates}")
    foreseen = foresee(stages, shape, vocabulary, config.num_problems, answers)
    if config.rates is not None:
        rates = measured(config.rates, foreseen.lengths.prompt_mean)
    planned = make_plan(
        Asked(
            name=Path(config.recipe).stem,
            stages=stages,
            shape=shape,
            place=place,
            lengths=foreseen.lengths,
            num_train=foreseen.num_train,
            num_test=foreseen.num_test,
            checks=foreseen.checks,
            rates=rates,
            sample_rate=config.sample_rate,
            update_rate=config.update_rate,
            price=config.price,
        )
    )
    return render(planned)


def _nowhere() -> Path:
    """A folder that is not there: a plan writes nothing."""
    return Path(tempfile.gettempdir()) / "astarpo-plan" / "of" / "no" / "run"
