"""Values of prompts that run along with the policy, for algorithms that ask for them (SPO).

They are state beside weights and optimiser, so checkpoints hold them: without them a resumed run
would neither draw the same prompts nor have the same baselines.

    running_values.safetensors    a and b of each prompt, and its last answer with its log-probs

Shapes: _P prompts, _B answers of one step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file, save_file
from torch import Tensor

from astarpo.algorithms.running_value import RunningValue
from astarpo.training.scoring import Sequences
from astarpo.types import Answer, Prompt, TrainingStopped, UserError


class Past(NamedTuple):
    """A prompt's last answer: its token ids, and their log-probs when it was sampled, in nats."""

    token_ids: tuple[int, ...]
    logprobs: Tensor


class Sighting(NamedTuple):
    """What the policy was seen to be, before an update, by the answers of a step.

    Attributes:
        drift_B: [B] nats a token since the prompt's last answer, 0 where this is its first.
        logprobs: Of each answer's tokens.
    """

    drift_B: list[float]
    logprobs: list[Tensor]


class RunningValues:
    """The running values of a run's prompts."""

    def __init__(self, rule: RunningValue, ids: Sequence[str], first_P: ArrayLike) -> None:
        """Starts from the values of prompts, by the ids of their problems: v_0."""
        self._rule = rule
        self._place = {name: i for i, name in enumerate(ids)}
        self._counts_P2 = rule.start(first_P)
        self._past: dict[int, Past] = {}

    @property
    def weights_P(self) -> np.ndarray:
        """[P]: how often each prompt is to be drawn, up to a factor."""
        return self._rule.weights(self._counts_P2)

    def valued(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts with their values as they are now."""
        value_P = self._rule.values(self._counts_P2)
        return [replace(p, value=float(value_P[self._place[p.problem.id]])) for p in prompts]

    def look(
        self, answers: Sequence[Answer], score: Callable[[Sequences], list[Tensor]]
    ) -> Sighting:
        """Measures how far the policy has moved since each prompt's last answer.

        Args:
            answers: Of this step.
            score: Gives the policy's log-probs of the tokens of each response.

        Raises:
            TrainingStopped: A reward is not from 0 to 1.
        """
        rewards = [answer.verdict.reward for answer in answers]
        if refusal := self._rule.refusal(min(rewards), max(rewards)):
            raise TrainingStopped(refusal)
        places = [self._place[answer.prompt.problem.id] for answer in answers]
        known = {i: past for i, place in enumerate(places) if (past := self._past.get(place))}
        before = [(answers[i].prompt.token_ids, past.token_ids) for i, past in known.items()]
        scored = score([*before, *(answer.sequence for answer in answers)])
        drift_B = [0.0] * len(answers)
        for (i, past), now in zip(known.items(), scored, strict=False):
            drift_B[i] = (now - past.logprobs).abs().mean().item()
        return Sighting(drift_B, scored[len(before) :])

    def take(self, answers: Sequence[Answer], sighting: Sighting) -> dict[str, float]:
        """Learns from the answers of a step; returns metrics, means over them."""
        memories, seen = [], set()
        rows = zip(answers, sighting.drift_B, sighting.logprobs, strict=True)
        for answer, drift, logprobs in rows:
            place = self._place[answer.prompt.problem.id]
            memory = 1.0 if place in seen else self._rule.memory(drift)
            counts_2 = self._counts_P2[place]
            self._counts_P2[place] = self._rule.updated(counts_2, answer.verdict.reward, memory)
            self._past[place] = Past(answer.completion.token_ids, logprobs)
            memories.append(memory)
            seen.add(place)
        values = [answer.prompt.value or 0.0 for answer in answers]
        return {
            "running_value": sum(values) / len(values),
            "running_drift": sum(sighting.drift_B) / len(answers),
            "running_memory": sum(memories) / len(memories),
        }

    def save(self, path: Path) -> None:
        """Writes all of it to a file."""
        places = sorted(self._past)
        past = [self._past[place] for place in places]
        tensors = {
            "counts": torch.from_numpy(self._counts_P2),
            "places": torch.tensor(places, dtype=torch.long),
            "lengths": torch.tensor([len(each.token_ids) for each in past], dtype=torch.long),
            "token_ids": torch.tensor([t for each in past for t in each.token_ids]),
            "logprobs": torch.cat([torch.zeros(0), *(each.logprobs for each in past)]),
        }
        save_file(tensors, path)

    def restore(self, path: Path) -> None:
        """Takes up what `save` wrote.

        Raises:
            UserError: It is of other prompts.
        """
        tensors = load_file(path)
        if tensors["counts"].shape != self._counts_P2.shape:
            raise UserError(
                f"{path}: has values of {len(tensors['counts'])} prompts, and there are "
                f"{len(self._counts_P2)} now; give the problems and the filter of that run"
            )
        self._counts_P2 = tensors["counts"].numpy().copy()
        lengths = tensors["lengths"].tolist()
        ids, logprobs = tensors["token_ids"].split(lengths), tensors["logprobs"].split(lengths)
        self._past = {
            place: Past(tuple(each.tolist()), logprob)
            for place, each, logprob in zip(tensors["places"].tolist(), ids, logprobs, strict=True)
        }
