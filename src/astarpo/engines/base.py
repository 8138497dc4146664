"""What an engine is: token ids in, completions out. The only place that samples."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from astarpo.models.policy import Policy
from astarpo.types import Completion, UserError


@dataclass(frozen=True, slots=True)
class Sampling:
    """The distribution to sample from, and how far.

    Attributes:
        max_new_tokens: Limit of a response, its stop id included.
        temperature: 0 is greedy.
        top_p: Nucleus mass; below 1 in evaluation only, since training needs the log-probs of the
            whole distribution.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One completion asked for.

    Attributes:
        prompt_ids: Token ids of the prompt, at least one.
        seed: 64-bit seed of this completion alone: whatever it is batched with, it comes out the
            same (up to floating-point noise).
    """

    prompt_ids: tuple[int, ...]
    seed: int


class Engine(Protocol):
    """Samples completions from a policy.

    An engine is opened once and closed at the end: `with open_engine(config, policy) as engine`.
    It samples from the policy as that was when it was opened, or at the last `sync`.

    Example:
        An engine that has a server sample. `tests/engines/test_contract.py` says what an engine
        has to keep to; add yours to its list.

            class ServerEngine:

                def __init__(self, policy: Policy, url: str) -> None:
                    self._policy = policy
                    self._server = connect(url, stop_ids=policy.vocabulary.stop_ids)
                    version = self._server.version
                    self.facts = {"name": "server", "version": version, "dtype": "bfloat16"}
                    self._probe = Probe(self, policy)
                    self.sync(policy)

                def generate(self, requests, sampling, on_progress=None):
                    refuse_unfit(requests, sampling, self._server.vocabulary_size)
                    found = self._server.complete(requests, sampling)
                    if on_progress:
                        on_progress(len(requests))
                    return [Completion(x.ids, x.logprobs, x.finish_reason) for x in found]

                def sync(self, policy: Policy) -> dict[str, float]:
                    self._server.load(policy.model.state_dict())
                    return self._probe.check(policy)  # did the weights arrive?

                def resting(self):
                    return nullcontext()  # it holds no memory here

                def __enter__(self):
                    return self

                def __exit__(self, *error):
                    self._server.close()
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the record of a run or a table says of it: `name`, `version`, `dtype` and more.

        They do not change while it is open, except for `decoding`: how an engine that has several
        ways decodes, which is known from the first completion on.
        """
        ...

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order.

        Requests for several completions of one prompt should stand together: their prompt is then
        read once.

        Args:
            requests: What to complete; none is allowed.
            sampling: The distribution.
            on_progress: Called with how many more completions are done, now and then.

        Raises:
            ValueError: A prompt is empty, holds an id that the model does not have, or leaves no
                room for its response: none is ever cut.
            EngineStopped: The engine failed; what it had completed in this call is lost.
            StopRequested: A signal asks to stop.
        """
        ...

    def sync(self, policy: Policy) -> Mapping[str, float]:
        """Goes on with the policy's weights as they are now; to be called after each update.

        Args:
            policy: The one that the engine was opened with.

        Returns:
            For the metrics, where weights are copied: `sync_seconds` that it took, and how far the
            engine's log-probs of a few tokens are from the policy's then, in nats a token, as
            `sync_mean` and `sync_max`. Nothing where the engine samples from the policy's module.

        Raises:
            EngineStopped: The engine failed, or does not sample from these weights.
        """
        ...

    def resting(self) -> AbstractContextManager[None]:
        """Context in which the engine gives back the memory that it can do without.

        Nothing is asked of it inside. An engine that was opened with a policy is to be synced after
        it: what it had copied may be gone.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None:
        """Closes the engine and gives back what it holds. Its facts can still be read."""
        ...


def refuse_unfit(
    requests: Sequence[Request],
    sampling: Sampling,
    vocabulary_size: int,
    context: int | None = None,
) -> None:
    """Refuses requests that no engine can complete as they are.

    Args:
        requests: What is asked for.
        sampling: Gives the limit of a response.
        vocabulary_size: How many token ids the model has.
        context: The most tokens of a prompt and its response, where the engine has such a limit.

    Raises:
        ValueError: One is empty, holds an unknown id, or is too long.
    """
    for prompt_ids in {request.prompt_ids for request in requests}:
        if not prompt_ids:
            raise ValueError("a prompt is empty: there is no token to predict the first one from")
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < vocabulary_size:
            raise UserError(
                f"a prompt holds the token id {max(prompt_ids)}, and the model has "
                f"{vocabulary_size}: give the model that the tokenizer belongs to"
            )
        if context is not None and len(prompt_ids) + sampling.max_new_tokens > context:
            raise UserError(
                f"a prompt of {len(prompt_ids)} tokens and max_new_tokens="
                f"{sampling.max_new_tokens} do not fit the {context} tokens that the engine was "
                "opened for"
            )
