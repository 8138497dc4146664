"""What the verbs take by name is what their settings declare, in notebooks and in editors."""

import inspect
import re

import pytest

import astarpo
from astarpo.api.keywords import ON_OBJECTS, keywords_of
from astarpo.config import VERBS
from astarpo.types import UserError
from tests.support.stub import PATH, stub


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_an_argument_and_no_other(verb):
    function = getattr(astarpo, verb.replace("-", "_"))
    fields = VERBS[verb].model_fields
    wanted = set(fields)
    if function.__name__ in ON_OBJECTS:
        wanted = wanted - {"trust_reward"} | {"reward"}
    wanted |= {"on_step"} if verb == "train" else set()
    config, *others = inspect.signature(function).parameters.values()
    assert {each.name for each in others} == wanted
    assert config.kind is config.POSITIONAL_ONLY
    assert all(each.kind is each.KEYWORD_ONLY for each in others)
    for each in others:
        if each.name in fields and each.name != "out":
            field = fields[each.name]
            assert each.default == (each.empty if field.is_required() else field.default)
        assert re.search(rf"^    {each.name}: \S", function.__doc__, re.MULTILINE), each.name


def test_problems_are_asked_for_by_the_settings_of_data():
    names = set(inspect.signature(astarpo.load_problems).parameters)
    assert names == VERBS["data"].model_fields.keys() - {"out", "overwrite"}


def test_what_editors_show_is_up_to_date():
    assert PATH.read_text() == stub(), "settings have changed: run python -m tests.support.stub"


def test_what_has_to_be_given_comes_first():
    assert list(keywords_of("train"))[:3] == ["model", "problems", "values"]
    assert list(keywords_of("estimate"))[:3] == ["model", "problems", "out"]


@pytest.mark.parametrize(
    ("verb", "name", "meant"),
    [
        ("train", "learning_rate", "did you mean lr?"),
        ("train", "step", "did you mean steps"),
        ("estimate", "num_samples", "did you mean samples"),
        ("estimate", "trust_rewards", "did you mean reward?"),
        ("load_problems", "spilt", "did you mean split?"),
        ("report", "zzz", r"takes no 'zzz' \(help\(astarpo.report\) lists all\)"),
    ],
)
def test_a_wrong_name_is_told_with_the_right_one(verb, name, meant):
    arguments = ["arithmetic"] if verb == "load_problems" else []
    with pytest.raises(UserError, match=rf"^{verb}: takes no '{name}'.*{meant}|^{verb}: {meant}"):
        getattr(astarpo, verb)(*arguments, **{name: 1})


def test_a_wrong_value_is_told_in_one_line(tmp_path, problems_path):
    shared = {"model": "m", "problems": problems_path, "out": tmp_path / "out"}
    with pytest.raises(UserError, match=r"^lr: Input should be greater than 0 \(got -1\)$"):
        astarpo.train(**shared, lr=-1)
    with pytest.raises(UserError, match=r"steps: .*; lr: Input should be"):
        astarpo.train(**shared, lr=-1, steps="many")
    with pytest.raises(UserError, match=r"^(model: Field required|missing: model)"):
        astarpo.estimate(problems=problems_path)
    with pytest.raises(UserError, match="or as one EstimateConfig; a str came without a name"):
        astarpo.estimate("gsm8k")
    config = VERBS["runs"](dir=tmp_path)
    with pytest.raises(
        UserError, match=r"^runs: dir beside a RunsConfig: put all settings into it"
    ):
        astarpo.runs(config, dir=tmp_path)
    assert not (tmp_path / "out").exists()
