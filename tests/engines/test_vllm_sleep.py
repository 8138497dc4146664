"""In which order vLLM is put to sleep and woken on a GPU, which no test machine has; a full GPU.

vLLM itself is stood in for by a list of what it was asked: on a CPU its own sleep does nothing.
"""

import pytest
import torch

from astarpo.engines.base import Sampling
from astarpo.engines.vllm.engine import VLLMEngine
from astarpo.engines.vllm.opening import start
from astarpo.runtime.one_process import OneProcess
from astarpo.types import UserError


class Asked:
    """Notes what is called, with its arguments; answers True."""

    def __init__(self, calls):
        self._calls = calls

    def __getattr__(self, name):
        def call(*given, **named):
            self._calls.append(" ".join([name, *map(str, given), *map(str, named.values())]))
            return True

        return call


class Agreeing:
    def check(self, policy):
        return {"sync_mean": 0.0, "sync_max": 0.0}


class Nothing:
    def has_unfinished_requests(self):
        return False


@pytest.fixture
def calls():
    return []


def on_a_gpu(calls, policy):
    engine = object.__new__(VLLMEngine)
    engine._device, engine._policy, engine._asleep = torch.device("cuda"), policy, False
    engine._llm, engine._probe = Asked(calls), Agreeing()
    engine._where = OneProcess(torch.device("cpu"))
    return engine


def short(calls):
    return [" ".join(call.split()[:2]) for call in calls]


def test_weights_are_woken_and_replaced_before_keys_and_values_get_memory(policy, calls):
    engine = on_a_gpu(calls, policy)
    with engine.resting():
        assert short(calls) == ["sleep 2"]  # the weights are dropped: a sync brings them
        calls.append("update")
    with pytest.raises(AssertionError, match="sync first"):
        engine.generate([], Sampling(8))
    engine.sync(policy)
    assert short(calls) == [
        "sleep 2", "update", "wake_up ['weights']", "collective_rpc reload_weights",
        f"apply_model {'<function'}", "wake_up ['kv_cache']",
    ]  # fmt: skip


def test_a_sync_without_rest_wakes_nothing(policy, calls):
    on_a_gpu(calls, policy).sync(policy)
    assert not any("wake_up" in call for call in calls)


def test_a_frozen_model_is_kept_and_awake_again_by_itself(calls):
    engine = on_a_gpu(calls, None)
    with engine.resting():
        calls.append("choices")
    assert short(calls) == ["sleep 1", "choices"]  # the memory may still be in use
    engine._vocabulary_size, engine.context = 258, 64
    engine._llm.llm_engine = Nothing()
    assert engine.generate([], Sampling(8)) == []
    woken = ["sleep 1", "choices", "wake_up ['weights']", "wake_up ['kv_cache']"]
    assert short(calls) == [*woken, "reset_prefix_cache"]
    engine.generate([], Sampling(8))
    assert short(calls) == [*woken, "reset_prefix_cache", "reset_prefix_cache"]


def test_on_a_cpu_it_is_not_asked_to_sleep(policy, calls):
    engine = on_a_gpu(calls, policy)
    engine._device = torch.device("cpu")
    with engine.resting():
        pass
    assert calls == []


class FullGpu:
    """Says what vLLM 0.32.0 says where others hold too much of a GPU."""

    def LLM(self, **settings):
        raise ValueError(
            "Free memory on device cuda:0 (21.3/79.6 GiB) on startup is less than desired GPU "
            f"memory utilization ({settings['gpu_memory_utilization']}, 39.8 GiB). Decrease GPU "
            "memory utilization or reduce GPU memory used by other processes."
        )


def test_a_gpu_that_others_fill_is_one_line():
    settings = {"max_model_len": 64, "gpu_memory_utilization": 0.5}
    with pytest.raises(UserError, match=r"50% of the GPU's memory.* lower --engine-memory.*21\.3"):
        start(FullGpu(), "model", settings)
