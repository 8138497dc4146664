import copy
import dataclasses
import json

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import (
    fingerprint,
    fit_prompts,
    load_policy,
    load_tokenizer,
    make_policy,
    render_prompt,
    round_linears,
)
from astarpo.stages.warm_start import byte_tokenizer
from astarpo.types import Problem, UserError
from tests.conftest import digit_problems
from tests.support.models import small_model

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "text", ["plain", " spaces  ", "∑ ünïcode 漢字 🙂", "\x00\n\t\\boxed{}", "line\r\nline", ""]
)
def test_byte_tokenizer_keeps_every_text(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_saved_policy_loads_the_same(policy, policy_path):
    loaded = load_policy(str(policy_path), CPU)
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.stop_ids == policy.stop_ids == {256}
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_stop_ids_are_the_union_of_all_that_are_named(policy):
    configured = policy.model.generation_config.eos_token_id
    try:
        policy.model.generation_config.eos_token_id = [7, 9]
        both = make_policy(policy.model, policy.tokenizer, trainable=True)
        assert both.stop_ids == {7, 9, 256}
    finally:
        policy.model.generation_config.eos_token_id = configured


def test_raw_prompts_are_the_text_itself(policy):
    problem = digit_problems(1)[0]
    text = problem.prompt[0]["content"]
    assert render_prompt(problem, policy.tokenizer, "raw") == policy.tokenizer(text)["input_ids"]


def test_chat_prompts_end_with_the_assistants_turn(policy):
    ids = render_prompt(digit_problems(1)[0], policy.tokenizer, "chat")
    assert policy.tokenizer.decode(ids) == "user: Item 0:\nassistant: "


def test_long_prompts_are_set_aside_and_none_is_cut(policy, caplog):
    problems = digit_problems(9)
    prompts = fit_prompts(problems, policy.tokenizer, "raw", 10)
    assert [p.problem.id for p in prompts] == [problems[i].id for i in (0, 3, 6)]
    assert all(len(p.token_ids) == 7 for p in prompts)
    with pytest.raises(UserError, match=r"every prompt is longer than .*shortest: 7"):
        fit_prompts(problems, policy.tokenizer, "raw", 3)


def test_fingerprint_follows_content_not_place(policy_path, tmp_path):
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(policy_path, copy)
    assert fingerprint(str(copy)) == fingerprint(str(policy_path))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert fingerprint(str(copy))["weights"] != fingerprint(str(policy_path))["weights"]
    assert fingerprint(str(copy))["tokenizer"] == fingerprint(str(policy_path))["tokenizer"]


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "justaname", "a/b/c"])
def test_missing_models_are_named(name):
    with pytest.raises(UserError, match="no such model folder"):
        load_policy(name, CPU)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_policy(str(tmp_path), CPU)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="does not load"):
        load_policy(str(tmp_path), CPU)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "bloom"])
def test_a_folder_without_tokenizer_is_refused_until_it_has_one(policy, tmp_path, kind):
    small_model(kind).save_pretrained(tmp_path)
    for load in (lambda name: load_policy(name, CPU), load_tokenizer):
        with pytest.raises(UserError, match=r"no tokenizer|tokenizer does not load"):
            load(str(tmp_path))
    policy.tokenizer.save_pretrained(tmp_path)
    assert load_policy(str(tmp_path), CPU).stop_ids == {256}


def test_a_hub_name_without_network_says_so(monkeypatch):
    import huggingface_hub

    def refuse(*_, **__):
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"nor available from the hub \(no route to host\)"):
        load_policy("Qwen/Qwen2.5-1.5B", CPU)


def test_problem_digest_covers_what_matters():
    base = digit_problems(1)[0]
    same = Problem(base.id, base.data_source, base.prompt, base.ground_truth)
    other = Problem(base.id, base.data_source, base.prompt, "5")
    assert base.digest == same.digest != other.digest


def test_rounded_linears_compute_what_autocast_would_to_the_bit(policy):
    computing = dataclasses.replace(policy, autocast_dtype=torch.bfloat16)
    model = copy.deepcopy(policy.model).requires_grad_(False)
    round_linears(model, torch.bfloat16)
    rounded = dataclasses.replace(computing, model=model)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert (embedding.dtype, head.dtype) == (torch.float32, torch.bfloat16)
    assert not any(p.requires_grad for p in model.parameters())

    requests = [Request(tuple(policy.tokenizer(f"Item {i}")["input_ids"]), i) for i in range(8)]
    done = [HFEngine(side, 8).generate(requests, Sampling(20)) for side in (computing, rounded)]
    assert done[0] == done[1]
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done[0]], 0, CPU)
    with torch.no_grad(), computing.autocast():
        sides = [token_logprobs(side.model, batch, 1.0) for side in (computing, rounded)]
    assert torch.equal(sides[0].logprobs_BT, sides[1].logprobs_BT)
