"""Decoding from recorded steps, as a CUDA graph has them, without a GPU.

A graph holds kernels, the memory they read and write, and the numbers that Python gave them. Here
the operators of a step are recorded in place of its kernels, and called again on the same tensors:
what was computed in Python is not computed again, so that a step that changes in another way than
through its tensors goes wrong here as it would there.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from astarpo.engines import hf
from astarpo.engines.base import Request, Sampling
from astarpo.engines.decoding import Plan
from astarpo.models.policy import make_policy
from tests.support.models import small_model

WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
INDEXING = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class Recording(TorchDispatchMode):
    """Keeps every operator's call and result; refuses those that a GPU has to be waited for."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operator in INDEXING:
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        else:
            waits = (
                bool(WAITS & set(operator.tags)) or operator == torch.ops.aten.lift_fresh.default
            )
        if waits:
            raise RuntimeError(f"{operator} waits for the device")
        result = operator(*args, **kwargs)
        self.calls.append((operator, args, kwargs, result))
        return result

    def play(self):
        """Calls all again, results going to where they went before."""
        for operator, args, kwargs, result in self.calls:
            if operator.is_view:
                continue  # of memory that has been written by now
            again = operator(*args, **kwargs)
            if not operator._schema.is_mutable:
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor):
                        old.copy_(new)


class RecordedReplay:
    """`Replay` with a `Recording` for a graph."""

    played = 0

    def __init__(self, function, *, record):
        assert record
        self._function = function
        self._recording = None

    def __call__(self):
        if self._recording is None:
            self._recording = Recording()
            with self._recording:
                self._function()
        else:
            self._recording.play()
            RecordedReplay.played += 1

    def renew(self):
        self._recording = None


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "granite"])
def test_recorded_steps_sample_the_same(policy, monkeypatch, kind, samples):
    other = make_policy(small_model(kind), policy.tokenizer)
    other = replace(other, stop_ids=frozenset(range(0, 258, 12)))  # many, so that rows end
    texts = [f"Item {i // samples}" + " more" * (i // samples % 2) for i in range(24)]
    requests = [Request(tuple(policy.tokenizer(t)["input_ids"]), i) for i, t in enumerate(texts)]
    samplings = (Sampling(100), Sampling(30, 0.7, 0.9), Sampling(30, 0.0))
    expected = [hf.HFEngine(other, 16).generate(requests, sampling) for sampling in samplings]

    monkeypatch.setattr(hf, "Replay", RecordedReplay)
    monkeypatch.setattr(hf, "make_plan", lambda *_, **__: Plan("recorded", ["recorded"]))
    monkeypatch.setitem(hf._LOOK_EVERY, "cpu", 8)
    monkeypatch.setattr(RecordedReplay, "played", 0)
    for sampling, done in zip(samplings, expected, strict=True):
        replayed = hf.HFEngine(other, 16).generate(requests, sampling)
        assert [c.token_ids for c in replayed] == [c.token_ids for c in done]
        for ours, theirs in zip(replayed, done, strict=True):
            assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)
    assert RecordedReplay.played > 30


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 1).copy_(torch.tensor([1.0])),
    ],
)
def test_waiting_for_the_device_is_noticed(wait):
    with pytest.raises(RuntimeError, match="waits"), Recording():
        wait(torch.ones(3))


def test_a_step_that_counts_in_python_goes_wrong():
    counted, total = [0], torch.zeros(1)

    def step():
        counted[0] += 1
        total.add_(counted[0])

    replay = RecordedReplay(step, record=True)
    for _ in range(3):
        replay()
    assert total.item() == 3  # and not 1 + 2 + 3
