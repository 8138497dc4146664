import copy
import dataclasses
import json

import pytest
import torch

from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models.batch import collate
from astarpo.models.folder import fingerprint
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import load_policy, round_linears
from astarpo.models.vocabulary import load_vocabulary
from astarpo.types import Problem, UserError
from tests.conftest import digit_problems
from tests.support.models import small_model

CPU = torch.device("cpu")


def test_saved_policy_loads_the_same(policy, policy_path):
    loaded = load_policy(str(policy_path), CPU)
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.vocabulary.stop_ids == policy.vocabulary.stop_ids == {256}
    assert not any(p.requires_grad for p in loaded.model.parameters())


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
    for load in (lambda name: load_policy(name, CPU), load_vocabulary):
        with pytest.raises(UserError, match=r"no tokenizer|tokenizer does not load"):
            load(str(tmp_path))
    policy.vocabulary.tokenizer.save_pretrained(tmp_path)
    assert load_policy(str(tmp_path), CPU).vocabulary.stop_ids == {256}


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

    requests = [
        Request(tuple(policy.vocabulary.tokenizer(f"Item {i}")["input_ids"]), i) for i in range(8)
    ]
    done = [HFEngine(side, 8).generate(requests, Sampling(20)) for side in (computing, rounded)]
    assert done[0] == done[1]
    batch = collate([r.prompt_ids for r in requests], [c.token_ids for c in done[0]], 0, CPU)
    with torch.no_grad(), computing.autocast():
        sides = [token_logprobs(side.model, batch, 1.0) for side in (computing, rounded)]
    assert torch.equal(sides[0].logprobs_BT, sides[1].logprobs_BT)
