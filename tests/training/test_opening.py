import pytest

from astarpo.training.opening import require_processes
from astarpo.types import UserError
from tests.training.test_learner import make_config


@pytest.mark.parametrize(
    ("count", "settings", "message"),
    [
        (1, {"policy_offload": True}, "policy_offload: .* start several with torchrun"),
        (4, {"optimizer": "adamw_8bit"}, "take --optimizer adamw, of whose state each of the 4"),
        (4, {"shard_size": 3}, "shard_size 3: .* choose from 1, 2, 4, or leave it out"),
        (1, {"shard_size": 2}, "shard_size: a single process .* start several with torchrun"),
    ],
)
def test_models_that_cannot_be_shared_out_as_asked_are_refused(count, settings, message):
    with pytest.raises(UserError, match=message):
        require_processes(make_config(**settings), count)


def test_what_the_refusals_say_to_do_is_taken():
    require_processes(make_config(), 1)
    require_processes(make_config(optimizer="adamw_8bit", shard_size=1), 1)
    require_processes(make_config(policy_offload=True, optimizer="adamw"), 4)
    for size in (1, 2, 4):
        require_processes(make_config(shard_size=size), 4)
