"""What is noted of each micro-batch while its gradient is computed, for the step's metrics.

Shapes: _B sequences, _T response tokens.
"""

from collections.abc import Sequence

from torch import Tensor

from astarpo.algorithms.base import LossOutput, Rollout
from astarpo.models.batch import masked_sum
from astarpo.runtime.one_process import OneProcess

Records = dict[str, Tensor]
"""By name, [B] each."""


def record(
    output: LossOutput, now_BT: Tensor, entropy_BT: Tensor, rows: Rollout, *, first: bool
) -> Records:
    """Records of a micro-batch; nothing of it waits for a GPU.

    Args:
        output: Its loss.
        now_BT: [B, T] the policy's log-probs, without gradients.
        entropy_BT: [B, T] its entropies.
        rows: The sequences as they were sampled.
        first: Whether they are of the first mini-batch, before any update.
    """
    mask_BT = rows.mask_BT
    found = {
        "loss": output.loss_B.detach(),
        "entropy": masked_sum(entropy_BT, mask_BT) / mask_BT.sum(dim=-1),
        **output.metrics,
    }
    moved_B = masked_sum(rows.sampled_logprobs_BT - now_BT, mask_BT)
    if rows.is_reference:
        found["stage1_drift"] = moved_B.abs()
        if first:
            # Unbiased under the reference, and like a KL never negative.
            ratio_B = (-moved_B).exp()
            found["kl"] = 1 - ratio_B - ratio_B * moved_B
            found["engine_kl"] = moved_B.new_zeros(len(moved_B))
    elif first:
        found["kl"] = masked_sum(now_BT - rows.ref_logprobs_BT, mask_BT)
        reported_BT = rows.engine_logprobs_BT
        if reported_BT is None:
            reported_BT = rows.sampled_logprobs_BT
        found["engine_kl"] = masked_sum(reported_BT - now_BT, mask_BT)
    else:
        found["drift"] = moved_B.abs()
    return found


def add_records(
    records: dict[str, list[Tensor]], found: Sequence[tuple[int, Records]], where: OneProcess
) -> None:
    """Adds what all processes recorded of a mini-batch, in the order of its micro-batches.

    Args:
        records: By name, micro-batch after micro-batch; on the CPU.
        found: This process's, each with the number of its micro-batch.
        where: All processes call this at the same point.
    """
    mine = [(number, {k: v.cpu() for k, v in each.items()}) for number, each in found]
    for _, each in sorted(where.gather(mine), key=lambda item: item[0]):
        for name, value_B in each.items():
            records[name].append(value_B)
