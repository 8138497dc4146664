"""How a model can be decoded: found out by trying."""

import logging
from contextlib import nullcontext
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from astarpo.attention import agree, attending
from astarpo.engines.branch_attention import NAME
from astarpo.engines.branch_cache import BranchingCache
from astarpo.engines.replay import Replay

logger = logging.getLogger("astarpo")

# Tokens decoded to try a model out: one to warm up, one to record, two to replay.
_TRIED = 4

Way = Literal["recorded", "stepwise"]

_fits: WeakKeyDictionary[nn.Module, Way | None] = WeakKeyDictionary()


@torch.no_grad()
def branches_fit(model: Any, dtype: torch.dtype | None) -> Way | None:
    """How a model decodes with `BranchingCache` as it does with transformers' own cache.

    It can where all layers attend to all tokens through transformers' attention interface, with
    neither caps nor biases. Two short prompts of two branches each tell, once for each model.

    Args:
        model: A transformers causal language model.
        dtype: Of cached keys and values, see `BranchingCache`.

    Returns:
        `recorded` where a step of it can be replayed as a CUDA graph, `stepwise` where it cannot,
        None where another cache is needed.
    """
    if model not in _fits:
        _fits[model] = None
        theirs = _try_out(model, dtype, None)
        ways: list[Way] = ["recorded", "stepwise"] if model.device.type == "cuda" else ["stepwise"]
        for way in ways:
            try:
                fits = agree(_try_out(model, dtype, way), theirs)
            except Exception:  # Models differ in too many ways to foresee how one does not fit.
                fits = False
            torch.clear_autocast_cache()  # of casts that carry no gradient
            if fits:
                _fits[model] = way
                break
            logger.info(f"{type(model).__name__}: {_WITHOUT[way]}")
    return _fits[model]


_WITHOUT: dict[Way, str] = {
    "recorded": "decoding steps are not recorded as CUDA graphs",
    "stepwise": "a prompt is held once for each of its samples",
}


def read(
    model: Any, ids_BL: Tensor, mask_BL: Tensor | None, position_BL: Tensor, cache: Any
) -> Tensor:
    """Reads tokens into a cache; returns the logits after the last of them, [B, V].

    Args:
        model: A transformers causal language model.
        ids_BL: [B, L] the tokens.
        mask_BL: [B, L of cache and tokens] 1 on what is not padding; None if the cache knows.
        position_BL: [B, L].
        cache: What came before; grows.
    """
    return model(
        input_ids=ids_BL,
        attention_mask=mask_BL,
        position_ids=position_BL,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]


def _try_out(model: Any, dtype: torch.dtype | None, way: Way | None) -> Tensor:
    """Logits of the last of some tokens after two prompts of unlike length, each continued twice.

    Args:
        model: The model.
        dtype: Of cached keys and values.
        way: How to decode; None takes transformers' own cache.
    """
    mask_PL = torch.tensor([[1, 1, 1], [0, 1, 1]], device=model.device)
    ids_PL = torch.tensor([[1, 2, 3], [0, 4, 5]], device=model.device)
    prompt_B = torch.tensor([0, 0, 1, 1], device=model.device)
    ids_B1 = torch.tensor([[6], [7], [8], [9]], device=model.device)
    cache: Any = DynamicCache(config=model.config)
    positions_PL = (mask_PL.cumsum(dim=-1) - 1).clamp(min=0)
    logits_BV = read(model, ids_PL, mask_PL, positions_PL, cache)[prompt_B]
    mask_BL = nn.functional.pad(mask_PL[prompt_B], (0, _TRIED), value=1)
    position_B1 = mask_PL.sum(dim=-1, keepdim=True)[prompt_B]
    if way is None:
        cache.batch_select_indices(prompt_B)
    elif any(type(layer) is not DynamicLayer for layer in cache.layers):
        raise ValueError("a layer does not keep all keys and values")
    else:
        cache = BranchingCache(cache, mask_PL, prompt_B, dtype, fixed=way == "recorded")

    def step() -> None:
        seen_BL = None if way else mask_BL[:, : cache.get_seq_length() + 1]
        logits_BV.copy_(read(model, ids_B1, seen_BL, position_B1, cache))
        position_B1.add_(1)

    advance = Replay(step, record=way == "recorded")
    with attending(model, NAME) if way else nullcontext():
        for _ in range(_TRIED):
            if way and cache.open_column():
                advance.renew()
            advance()
    return logits_BV.float()
