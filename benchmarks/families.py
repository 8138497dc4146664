"""How tiny models of many families are scored and sampled from: the table of docs/models.md.

    python -m benchmarks.families

Each has random weights, two to four layers and windows shorter than the sequences, on CPU in fp32.
"""

import logging
import re
from importlib.metadata import version

import torch

from astarpo.engines import decoding
from astarpo.engines.base import Request, Sampling
from astarpo.engines.hf import HFEngine
from astarpo.models import ways
from astarpo.models.batch import collate
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.types import UserError
from tests.engines.test_families import PROMPTS, RESPONSES
from tests.support.families import FAMILIES, WINDOW, family_model

_UPDATE = {"packed": "packed", "padded": "padded", "alone": "one at a time"}
_SAMPLING = {
    "stepwise": "own loop, shared prompts",
    "cached": "own loop, library's cache",
    "generate": "`generate`",
    "generate_alike": "`generate`, one prompt length at a time",
}


def row(name: str) -> list[str]:
    """Family, model type, how it is scored, how it is sampled from."""
    model = family_model(name)
    policy = Policy(model, Vocabulary(None, frozenset({257}), pad_id=0))
    cells = [name, f"`{FAMILIES[name][0]}`"]
    try:
        with torch.no_grad():
            token_logprobs(model, collate(PROMPTS, RESPONSES, 0, policy.device), 1.0)
        requests = [Request(prompt, seed) for prompt in PROMPTS for seed in range(2)]
        HFEngine(policy, 8).generate(requests, Sampling(2 * WINDOW))
    except UserError as error:
        reason = str(error).removeprefix(f"{type(model).__name__}: ")
        reason = re.split(r" \(|: ", reason)[0]
        return [*cells, f"refused: {reason}", "refused"]
    [way] = ways._ways[model].values()
    [plan] = decoding._plans[model].values()
    return [*cells, _UPDATE[way], _SAMPLING[plan.ways[0]]]


def main() -> None:
    """Prints the table."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(f"transformers {version('transformers')}, torch {version('torch')}\n")
    print("| family | model type | reference and update | sampling (`--engine hf`) |")
    print("|---|---|---|---|")
    for name in FAMILIES:
        print(f"| {' | '.join(row(name))} |", flush=True)


if __name__ == "__main__":
    main()
