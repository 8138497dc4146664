import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from astarpo.models.shards import TensorFiles, write_tensors
from astarpo.training.optimizers import (
    make_optimizer,
    require_optimizer,
    restore_state,
    state_tensors,
)
from astarpo.types import UserError

SHAPES = {"wide": (64, 96), "odd": (300, 17), "small": (10,)}


def make_parameters() -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in SHAPES.items()
    }


def open_optimizer(name, parameters, lr=1e-3):
    if name == "adamw_8bit":
        pytest.importorskip("bitsandbytes")
    return make_optimizer(name, [{"params": list(parameters.values())}], lr, weight_decay=0.01)


def take_steps(optimizer, parameters, steps):
    """Steps along gradients that depend on the step alone, of very different sizes."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for parameter in parameters.values():
            size = 10 ** torch.empty(parameter.shape).uniform_(-4, 0, generator=generator)
            parameter.grad = size * torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_adamw_is_torchs_fused_one():
    parameters = make_parameters()
    optimizer = open_optimizer("adamw", parameters)
    assert type(optimizer) is torch.optim.AdamW
    chosen = {k: optimizer.defaults[k] for k in ("lr", "betas", "weight_decay", "fused")}
    assert chosen == {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01, "fused": True}


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_restored_it_goes_on_with_the_same_bits(name, tmp_path):
    whole = make_parameters()
    take_steps(open_optimizer(name, whole), whole, range(5))
    parts = make_parameters()
    first = open_optimizer(name, parts)
    take_steps(first, parts, range(3))
    write_tensors(tmp_path, "state", state_tensors(first, parts))
    second = open_optimizer(name, parts)
    with TensorFiles(tmp_path, "state") as files:
        restore_state(second, parts, files)
    take_steps(second, parts, range(3, 5))
    for key, parameter in whole.items():
        assert torch.equal(parameter, parts[key])


def test_layout_of_adamws_state_is_that_of_earlier_checkpoints():
    parameters = make_parameters()
    optimizer = open_optimizer("adamw", parameters)
    assert state_tensors(optimizer, parameters) == {}
    take_steps(optimizer, parameters, range(2))
    tensors = state_tensors(optimizer, parameters)
    entries = ("step", "exp_avg", "exp_avg_sq")
    assert tensors.keys() == {f"{name}:{entry}" for name in SHAPES for entry in entries}
    assert tensors["wide:step"].dtype == torch.float32
    assert tensors["wide:step"] == 2


def test_zeros_that_earlier_checkpoints_have_before_a_first_step_are_as_nothing(tmp_path):
    fresh, restored = make_parameters(), make_parameters()
    zeros = {}
    for name, shape in SHAPES.items():
        moments = {f"{name}:{entry}": torch.zeros(shape) for entry in ("exp_avg", "exp_avg_sq")}
        zeros |= {f"{name}:step": torch.zeros(())} | moments
    optimizer = open_optimizer("adamw", restored)
    save_file(zeros, tmp_path / "optimizer.safetensors")
    with TensorFiles(tmp_path, "optimizer") as files:
        restore_state(optimizer, restored, files)
    take_steps(optimizer, restored, range(2))
    take_steps(open_optimizer("adamw", fresh), fresh, range(2))
    assert all(torch.equal(fresh[name], restored[name]) for name in SHAPES)


def test_8_bits_begin_as_adamw_and_stay_near():
    exact, rounded = make_parameters(), make_parameters()
    start = make_parameters()
    optimizers = [open_optimizer("adamw", exact), open_optimizer("adamw_8bit", rounded)]
    for parameters, optimizer in zip((exact, rounded), optimizers, strict=True):
        take_steps(optimizer, parameters, range(1))
    for name in SHAPES:  # the moments are rounded after they are used
        assert (exact[name] - rounded[name]).abs().max() < 1e-6
    for parameters, optimizer in zip((exact, rounded), optimizers, strict=True):
        take_steps(optimizer, parameters, range(1, 20))
    for name in SHAPES:
        way = (exact[name] - start[name]).norm()
        assert (rounded[name] - exact[name]).norm() < 0.2 * way, name
    state = optimizers[1].state
    assert state[rounded["wide"]]["state1"].dtype == torch.uint8
    assert state[rounded["small"]]["state1"].dtype == torch.float32
    tensors = state_tensors(optimizers[1], rounded)
    held = sum(t.nbytes for key, t in tensors.items() if key.startswith("wide:"))
    assert held < 2.5 * 64 * 96


def test_a_missing_library_is_named_before_anything_begins(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    require_optimizer("adamw")
    with pytest.raises(UserError, match=r"pip install bitsandbytes"):
        require_optimizer("adamw_8bit")
