"""vLLM beside a trainer: weights that do not arrive are noticed, and failures are one line each."""

import copy
import dataclasses
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from astarpo.config import TrainConfig
from astarpo.engines import load_engine, open_engine
from astarpo.engines.base import Request, Sampling
from astarpo.engines.vllm import opening
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.engines.vllm.weights import checkpoint_weights, retie_head
from astarpo.models.fp32_head import take_float32_head
from astarpo.models.lora import adapt
from astarpo.models.policy import make_policy, save_model
from astarpo.models.vocabulary import load_vocabulary
from astarpo.stages.warm_start import build_policy
from astarpo.types import EngineStopped, UserError
from tests.support.vllm import NEEDS_VLLM

pytestmark = [*NEEDS_VLLM]

CONTEXT = 400


@pytest.fixture(scope="module")
def policy():
    return build_policy(hidden_size=64, layers=2, heads=2, seed=0)


@pytest.fixture(scope="module")
def folder(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "model"
    save_model(path, policy)
    return path


def trained(policy):
    return make_policy(copy.deepcopy(policy.model), policy.vocabulary, trainable=True)


def with_adapter(policy):
    config = TrainConfig(model="m", problems="p", values="v", out="o", lora_rank=4)
    adapted, _ = adapt(make_policy(copy.deepcopy(policy.model), policy.vocabulary), config)
    return adapted


def update(policy, size=0.02):
    """An update of what is trained, each time the same and in no direction of its own."""
    generator = torch.Generator().manual_seed(3)
    for parameter in policy.model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += size * noise


# Each way to go on with old weights, as one step of a sync that is left out or done wrongly.


class Skipped(VLLMEngine):
    def _load_weights(self, policy):
        if not hasattr(self, "_first"):
            self._first = super()._load_weights(policy)


class BaseModelAgain(VLLMEngine):
    """What a reload without weights does where vLLM was started with a model's folder."""

    def _load_weights(self, policy):
        if hasattr(self, "_first"):
            weights = load_file(self.folder / "model.safetensors")
            arguments = {"weights_iterator": iter(weights.items())}
            self._llm.collective_rpc("reload_weights", kwargs=arguments)
            self._llm.apply_model(retie_head)
        else:
            self._first = super()._load_weights(policy)


class BareReload(VLLMEngine):
    """The same call here, where there is no folder."""

    def _load_weights(self, policy):
        if hasattr(self, "_first"):
            self._llm.collective_rpc("reload_weights")
        else:
            self._first = super()._load_weights(policy)


class KeptPrefixCache(VLLMEngine):
    def _forget_prompts(self):
        pass


class OldHead(VLLMEngine):
    """On a CPU the output layer is a copy of the embedding that it is tied to."""

    def _load_weights(self, policy):
        if hasattr(self, "_first"):
            weights = {"weights_iterator": checkpoint_weights(policy)}
            self._llm.collective_rpc("reload_weights", kwargs=weights)
        else:
            self._first = super()._load_weights(policy)


class OldAdapter(VLLMEngine):
    def _load_adapter(self, policy):
        if self._lora is None:
            super()._load_adapter(policy)


@pytest.mark.parametrize(
    "kind",
    [Skipped, BaseModelAgain, BareReload, KeptPrefixCache, OldHead],
    ids=lambda k: k.__name__,
)
def test_weights_that_did_not_arrive_are_noticed(policy, folder, kind):
    kind.folder = folder
    moving = trained(policy)
    with kind(moving, 16, context=CONTEXT) as engine:
        update(moving)
        found = "did not arrive|does not sample from what|failed while it took new weights"
        with pytest.raises(EngineStopped, match=found):
            engine.sync(moving)


def test_a_skipped_sync_is_noticed_of_an_update_below_the_bound(policy):
    moving = trained(policy)
    with Skipped(moving, 16, context=CONTEXT) as engine:
        update(moving, 1e-5)
        with pytest.raises(EngineStopped, match="did not arrive"):
            engine.sync(moving)


def test_an_adapter_under_its_old_number_is_noticed(policy):
    moving = with_adapter(policy)
    with OldAdapter(moving, 16, context=CONTEXT) as engine:
        update(moving)
        with pytest.raises(EngineStopped, match=r"did not arrive|does not sample from what"):
            engine.sync(moving)


@pytest.mark.parametrize("make", [trained, with_adapter])
def test_a_sync_after_each_of_many_updates_is_exact(policy, make):
    moving = make(policy)
    with VLLMEngine(moving, 16, context=CONTEXT) as engine:
        for _ in range(3):
            with engine.resting():
                update(moving)
            metrics = engine.sync(moving)
            assert metrics["sync_mean"] <= 1e-5
            assert metrics["sync_mean"] <= metrics["sync_max"] < 1e-4
            assert 0 < metrics["sync_seconds"] < 60
        assert engine.sync(moving)["sync_mean"] <= 1e-5  # nothing has moved, on either side


def test_a_folder_is_sampled_from_as_its_policy_is(policy, folder):
    requests = [Request((65, 66, 67 + i), i) for i in range(8)]
    with VLLMEngine(policy, 16, context=CONTEXT) as engine:
        expected = engine.generate(requests, Sampling(20))
    vocabulary = load_vocabulary(str(folder))
    with VLLMEngine(vocabulary, 16, context=CONTEXT) as engine:
        assert engine.generate(requests, Sampling(20)) == expected
        with engine.resting():
            pass
        assert engine.generate(requests, Sampling(20)) == expected
        with pytest.raises(ValueError, match="opened with"):
            engine.sync(policy)


def test_what_it_fails_at_is_one_line(tmp_path):
    # vLLM finds out that its attention on CPU has no heads of size 16 when it first samples.
    path = tmp_path / "model"
    save_model(path, build_policy(hidden_size=32, layers=1, heads=2, seed=0))
    with VLLMEngine(load_vocabulary(str(path)), 4, context=64) as engine:
        with pytest.raises(EngineStopped, match=r"failed while it sampled .*head_dim=16") as caught:
            engine.generate([Request((65,), 0)], Sampling(4))
        assert "\n" not in str(caught.value)
        assert "--engine hf" in str(caught.value)


def test_too_little_memory_is_one_line(policy, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "long")
    settings = json.loads((folder / "config.json").read_text())
    settings["max_position_embeddings"] = 1 << 22  # 4 GiB of keys and values; it has 1
    (tmp_path / "long" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="no memory for one sequence of 4194304 tokens; lower"):
        VLLMEngine(load_vocabulary(str(tmp_path / "long")), 4)
    with VLLMEngine(load_vocabulary(str(tmp_path / "long")), 4, context=64) as engine:  # as said
        assert engine.generate([Request((65,), 0)], Sampling(1))


def test_a_longer_context_than_the_models_is_refused(folder):
    with pytest.raises(UserError, match="does not start with this model"):
        VLLMEngine(load_vocabulary(str(folder)), 4, context=1 << 20)


def test_an_unknown_version_is_told(caplog, monkeypatch):
    monkeypatch.setattr(opening, "TESTED", "0.31.0")
    opening.import_vllm()
    assert "0.32.0 has not been tested with this package, 0.31.0 has" in caplog.text


def test_settings_open_it(policy, folder):
    config = TrainConfig(
        model=str(folder), problems="p", values="v", out="o", engine="vllm", max_sequences=4
    )
    with open_engine(config, policy, 64) as engine:
        assert (engine.facts["name"], engine.context) == ("vllm", 64)
    vocabulary = load_vocabulary(str(folder))

    def load():
        raise AssertionError("vLLM reads the weights itself")

    with load_engine(config, vocabulary, load, 64) as engine:
        assert engine.generate([Request((65,), 0)], Sampling(1))


def test_every_seed_fits_into_vllms(policy):
    seeds = [0, 2**63 - 1, 2**63 + 1, 2**64 - 1]  # its runner for GPUs has 63 bits
    with VLLMEngine(policy, 4, context=64) as engine:
        done = engine.generate([Request((65,), seed) for seed in seeds], Sampling(20))
    assert len({completion.token_ids for completion in done}) == 3  # the second is the fourth


@pytest.mark.skipif(
    os.environ.get("VLLM_USE_V2_MODEL_RUNNER") != "1", reason="needs -p tests.support.gpu_runner"
)
def test_it_samples_as_on_a_gpu(policy):
    with VLLMEngine(policy, 4, context=64) as engine:
        config = engine._llm.llm_engine.vllm_config
    assert config.use_v2_model_runner
    assert config.scheduler_config.async_scheduling


def test_a_rank_that_it_has_no_room_for_is_refused(policy):
    adapted = with_adapter(policy)
    adapted.model.peft_config["default"].r = 600
    with pytest.raises(UserError, match="lora_rank 600: vLLM takes adapters up to rank 512"):
        VLLMEngine(adapted, 4, context=64)


def test_names_are_those_of_the_checkpoint(policy, folder):
    saved = load_file(folder / "model.safetensors")
    for each in (trained(policy), with_adapter(policy)):
        weights = dict(checkpoint_weights(each))
        assert weights.keys() == saved.keys()
        assert all(torch.equal(weights[name], saved[name]) for name in saved)


def test_stop_ids_are_the_vocabularys_alone(policy):
    # Without them the model's own end of text would still end responses.
    others = dataclasses.replace(policy.vocabulary, stop_ids=frozenset({300}))
    with VLLMEngine(dataclasses.replace(policy, vocabulary=others), 16, context=400) as engine:
        done = engine.generate([Request((65,), i) for i in range(64)], Sampling(40))
    assert {len(c.token_ids) for c in done} == {40}
    assert any(256 in c.token_ids for c in done)


@pytest.mark.parametrize("fp32_head", [False, True])
def test_in_bf16_it_is_held_to_the_wider_bound(policy, fp32_head):
    moving = dataclasses.replace(trained(policy), autocast_dtype=torch.bfloat16)
    if fp32_head:
        take_float32_head(moving.model)
    with VLLMEngine(moving, 16, context=CONTEXT, fp32_head=fp32_head) as engine:
        assert engine.facts["dtype"] == "bfloat16"
        update(moving)
        assert 0 < engine.sync(moving)["sync_mean"] < 0.05


def test_more_prompt_tokens_than_a_step_takes_are_read(policy):
    requests = [Request((65 + i, *range(66, 165)), i) for i in range(128)]  # 12,800 tokens
    with VLLMEngine(policy, 128, context=128) as engine:
        done = engine.generate(requests, Sampling(4))
        assert done[-3:] == engine.generate(requests[-3:], Sampling(4))
