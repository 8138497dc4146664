"""Models without weights, and what fills them.

A process that keeps a part of a model alone must not read all of it first. So the model is made
with parameters that have a shape and no memory (PyTorch's `meta` device), shared out among the
processes, given memory for its parts, and filled from the model's files: each process takes its own
parts out of them.

Buffers, such as the frequencies of rotary positions, are made as ever: no file holds them.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from astarpo.models.folder import load_part, resolve_model
from astarpo.models.fp32_head import Float32Linear, take_float32_head
from astarpo.models.shards import TensorFiles, own_part, set_own_part
from astarpo.runtime.one_process import OneProcess


def empty_model(name: str, auto_class: Any, **changes: Any) -> Any:
    """A model in fp32 as `from_pretrained` would give it, except that its parameters are empty.

    Args:
        name: A model folder or a hub name.
        auto_class: One of transformers' `AutoModelFor...`.
        changes: Of its config.

    Raises:
        UserError: It cannot be found, or its config does not load.
    """
    from transformers import AutoConfig

    def make(path: Path, **_: Any) -> Any:
        config = AutoConfig.from_pretrained(path, **changes)
        with without_memory():
            return auto_class.from_config(config, dtype=torch.float32)

    return load_part(name, "model", make)


def empty_like(model: Any) -> Any:
    """An empty model of the same kind as another one, which may be sharded or have an adapter."""
    from transformers import AutoModelForCausalLM

    base = base_model(model)
    with without_memory():
        config = copy.deepcopy(base.config)
        made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    made.generation_config = copy.deepcopy(base.generation_config)
    if isinstance(base.get_output_embeddings(), Float32Linear):
        take_float32_head(made)
    return made


def materialize(model: Any, device: torch.device, *, offload: bool = False) -> None:
    """Gives the parameters of an empty model memory, of which nobody knows what it holds.

    Of a model that is shared out, each process gets memory for its own parts.

    Args:
        model: What it has besides its parameters is moved to the device.
        device: Where it computes.
        offload: Whether its parameters are in the host's memory instead.
    """
    place = torch.device("cpu") if offload else device
    groups: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups[id(parameter)].append(name)
    model._apply(
        lambda tensor: (
            torch.empty_like(tensor, device=place)
            if tensor.is_meta
            else tensor.to(place if isinstance(tensor, nn.Parameter) else device)
        )
    )
    for first, *others in groups.values():  # what was tied is tied again
        for other in others:
            module, _, attribute = other.rpartition(".")
            setattr(model.get_submodule(module), attribute, model.get_parameter(first))


def fill(
    model: Any,
    name: str,
    load: Callable[[], Any],
    where: OneProcess,
    new: Collection[str] = (),
) -> None:
    """Fills the parameters of a model from the folder that it was made from.

    Args:
        model: Its parameters have memory. What a LoRA adapter adds is left as it is.
        name: A model folder or a hub name.
        load: Loads the same model whole, for kinds whose weights transformers reshapes when it
            loads them: the first process does so then, and gives the others their parts.
        where: The processes, which all call this.
        new: Parameters that the folder does not have, which are left as they are.

    Raises:
        UserError: The weights are not there, or do not load.
    """
    wanted = {each: tensor for each, tensor in held_tensors(model).items() if each not in new}
    with ExitStack() as stack:
        files, keys = None, {}
        with suppress(OSError, SafetensorError):  # transformers says better what is wrong
            files = stack.enter_context(TensorFiles(resolve_model(name), "model"))
            keys = _keys(model, wanted, files)
        if where.any(files is None or len(keys) < len(wanted)):
            _fill_from_first(wanted, load, where)
            return
        assert files is not None
        for each, key in keys.items():
            set_own_part(wanted[each], files.read_like(key, wanted[each]))


def _fill_from_first(
    wanted: Mapping[str, Tensor], load: Callable[[], Any], where: OneProcess
) -> None:
    """Fills parameters from a model that the first process alone loads, one after the other."""
    loaded: dict[str, Tensor] = {}
    with where.together():
        if where.is_first:
            loaded = held_tensors(load())
    for name, tensor in wanted.items():
        values = torch.zeros(tensor.shape)
        if where.is_first:
            values.copy_(loaded[name].detach())
        set_own_part(tensor, own_part(where.sum(values), tensor))


@contextmanager
def without_memory() -> Iterator[None]:
    """Context in which parameters of new modules get no memory; buffers do."""
    register = nn.Module.register_parameter

    def register_empty(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:  # else it may be tied to another one
            param = nn.Parameter(param.to("meta"), param.requires_grad)
        register(self, name, param)

    nn.Module.register_parameter = register_empty
    try:
        yield
    finally:
        nn.Module.register_parameter = register


@contextmanager
def with_stand_ins(model: Any) -> Iterator[None]:
    """Context in which an empty model's parameters are on the CPU, each a single number repeated.

    What is added to the model then, such as an adapter, is made where its parameters seem to be.
    """
    stand_ins = {}
    for parameter in {id(p): p for p in model.parameters() if p.is_meta}.values():
        values = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
        stand_ins[parameter] = nn.Parameter(values, parameter.requires_grad)
    _replace(model, stand_ins)
    try:
        yield
    finally:
        _replace(model, {stand_in: parameter for parameter, stand_in in stand_ins.items()})


def _replace(model: Any, others: Mapping[nn.Parameter, nn.Parameter]) -> None:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter in others:
                module._parameters[name] = others[parameter]


def checkpoint_tensors(model: Any) -> dict[str, Tensor]:
    """What a checkpoint of a model holds, by its names there; parts where it is shared out."""
    from transformers.core_model_loading import revert_weight_conversion

    # transformers fuses the experts of some models and renames parts of others when it loads them.
    return revert_weight_conversion(base_model(model), held_tensors(model))


def base_model(model: Any) -> Any:
    """A model without the adapter around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def held_tensors(model: Any) -> dict[str, Tensor]:
    """What a checkpoint of the model holds, by its names there; tied tensors once."""
    wanted: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in base_model(model).state_dict(keep_vars=True).items():
        if id(tensor) not in seen and ".lora_" not in name:
            seen.add(id(tensor))
            wanted[name.replace(".base_layer.", ".")] = tensor
    return wanted


def _keys(model: Any, wanted: Mapping[str, Tensor], files: TensorFiles) -> dict[str, str]:
    """Under which name each tensor is in the files; not all where transformers reshapes some."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter

    base = base_model(model)
    if any(isinstance(each, WeightConverter) for each in get_model_conversion_mapping(base)):
        return {}
    sources = getattr(base, "all_tied_weights_keys", None) or {}
    keys: dict[str, str] = {}
    for name in wanted:
        for key in (name, sources.get(name, name)):
            if key in files:
                keys.setdefault(name, key)
    return keys
