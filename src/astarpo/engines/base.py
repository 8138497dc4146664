"""What an engine is: token ids in, completions out. The only place that samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from astarpo.models.policy import Policy
from astarpo.types import Completion


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
                    self._server = connect(url, stop_ids=policy.vocabulary.stop_ids)
                    version = self._server.version
                    self.facts = {"name": "server", "version": version, "dtype": "bfloat16"}
                    self.sync(policy)

                def generate(self, requests, sampling, on_progress=None):
                    found = self._server.complete(requests, sampling)
                    if on_progress:
                        on_progress(len(requests))
                    return [Completion(x.ids, x.logprobs, x.finish_reason) for x in found]

                def sync(self, policy: Policy) -> None:
                    self._server.load(policy.model.state_dict())

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
            ValueError: A prompt is empty.
        """
        ...

    def sync(self, policy: Policy) -> None:
        """Goes on with the policy's weights as they are now; to be called after each update.

        Args:
            policy: The one that the engine was opened with.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None:
        """Closes the engine and gives back what it holds. Its facts can still be read."""
        ...
