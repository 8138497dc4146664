"""Ways to send sequences through a model, and which is the fastest that gives the right results.

    packed   side by side, padded in attention alone (packing.py)
    padded   as rows of one length
    alone    one after the other, without padding: what the others are compared with

Models differ in more than can be foreseen: windows, states, positions, masks of their own. So each
model is tried out on the first sequences it meets, and again when they become twice as long.

Shapes: _B sequences, _R their response tokens, _X size of an output.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from astarpo.models.agreement import first_fitting, gap, reach, tolerance
from astarpo.models.batch import TokenBatch, collate
from astarpo.models.packing import run_packed
from astarpo.models.sharded import device_of, is_sharded
from astarpo.types import UserError

Way = Literal["packed", "padded", "alone"]
Sequences = list[tuple[Sequence[int], Sequence[int]]]

_INSTEAD: dict[Way, str] = {
    "packed": "sequences are padded to a common length",
    "padded": "sequences go through it one at a time",
}

_ways: WeakKeyDictionary[nn.Module, dict[int, Way]] = WeakKeyDictionary()
_latest: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


def before_responses(module: Any, batch: TokenBatch, way: Way) -> Tensor:
    """The first output of a transformers module at the token before each response token: [R, X]."""
    return _RUNS[way](module, batch)


def fitting_way(model: Any, batch: TokenBatch, outputs: Callable[[TokenBatch, Way], Tensor]) -> Way:
    """The fastest way that gives each sequence what it would get alone.

    Args:
        model: What is found is remembered for it, and for sequences as long as these.
        batch: The sequences.
        outputs: Computes what has to agree, [R] or [R, X], in a given way.

    Raises:
        UserError: What the model says of a token depends on tokens after it; or sequences have to
            go alone through a model that processes share.
    """
    found = _ways.setdefault(model, {})
    length = reach(model, max(map(len, batch.sequences)))
    if length not in found:
        with torch.no_grad():
            found[length] = _try_out(model, _pick(batch, length), outputs)
        torch.clear_autocast_cache()  # its casts were made without gradients
    if found[length] == "alone" and is_sharded(model):
        raise UserError(
            f"{type(model).__name__}: sequences go through it one at a time, which processes that "
            "share its weights cannot do; run it in one process, without torchrun"
        )
    _latest[model] = found[length]
    return found[length]


def assume_way(model: Any, way: Way, longest: int) -> None:
    """Has sequences of up to so many tokens go through a model in one way, without trying it out.

    For a model whose numbers mean nothing, such as one of fake tensors.
    """
    _ways.setdefault(model, {})[reach(model, longest)] = way


def latest_way(model: Any) -> Way | None:
    """How the last sequences went through a model; None before the first."""
    return _latest.get(model)


def _try_out(model: Any, sequences: Sequences, outputs: Callable[[TokenBatch, Way], Tensor]) -> Way:
    alone = [outputs(_collate([each], model), "alone") for each in sequences]
    _refuse_foresight(model, sequences[0], alone[0], outputs)

    def apart(way: Way) -> float:
        gaps = []
        for step in (1, -1):  # In another order each has other neighbours.
            ours = outputs(_collate(sequences[::step], model), way)
            lengths = [len(response) for _, response in sequences[::step]]
            gaps.append(gap(ours, torch.cat(alone[::step]), lengths))
        return max(gaps)

    misfit = "are {} nats a token from each alone"
    return first_fitting(model, _INSTEAD, apart, "{} sequences", misfit) or "alone"


def _refuse_foresight(
    model: Any,
    sequence: tuple[Sequence[int], Sequence[int]],
    alone_R: Tensor,
    outputs: Callable[[TokenBatch, Way], Tensor],
) -> None:
    """Refuses a model in which a token's output depends on those after it."""
    prompt, response = sequence
    half = response[: len(response) // 2]
    half_R = outputs(_collate([(prompt, half)], model), "alone")
    apart = gap(half_R, alone_R[: len(half)], [len(half)])
    if apart > tolerance(model):
        raise UserError(
            f"{type(model).__name__}: what it says of a token depends on the tokens after it "
            f"({apart:.2g} nats a token, in a sequence of {len(prompt) + len(response)}), so it "
            "is no distribution to sample from; take another model"
        )


def _pick(batch: TokenBatch, length: int) -> Sequences:
    """Sequences to try: the longest, repeated up to a length, the shortest, and a middle one."""
    order = sorted(range(len(batch.sequences)), key=lambda i: len(batch.sequences[i]))
    longest = batch.sequences[order[-1]]
    tokens = (longest * (length // len(longest) + 1))[:length]
    others = [
        (batch.sequences[i][: batch.starts[i]], batch.sequences[i][batch.starts[i] :])
        for i in (order[0], order[len(order) // 2])
    ]
    return [(tokens[: length // 2], tokens[length // 2 :]), *others]


def _collate(sequences: Sequences, model: Any) -> TokenBatch:
    prompts, responses = zip(*sequences, strict=True)
    return collate(prompts, responses, 0, device_of(model))


def _run_padded(module: Any, batch: TokenBatch) -> Tensor:
    width = batch.mask_BT.shape[1]
    out_BSX = module(
        input_ids=batch.input_ids_BS,
        attention_mask=batch.attention_mask_BS,
        position_ids=batch.position_ids_BS,
        use_cache=False,
    )[0]
    return out_BSX[:, -width - 1 : -1].flatten(0, 1).index_select(0, batch.cell_R)


def _run_alone(module: Any, batch: TokenBatch) -> Tensor:
    ids = batch.packed.ids_N.split([len(tokens) for tokens in batch.sequences])
    return torch.cat(
        [
            module(input_ids=ids_S[None], use_cache=False)[0][0, start - 1 : -1]
            for ids_S, start in zip(ids, batch.starts, strict=True)
        ]
    )


_RUNS: dict[Way, Callable[[Any, TokenBatch], Tensor]] = {
    "packed": run_packed,
    "padded": _run_padded,
    "alone": _run_alone,
}
