"""What runs in an actor of the cluster: an engine and a grader. Imports no Ray."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from astarpo.config import EstimateConfig
from astarpo.grading.grader import Grader
from astarpo.models.vocabulary import load_vocabulary
from astarpo.runtime.devices import pick_device
from astarpo.runtime.given import accept
from astarpo.stages.sampling import LocalSampler, Sampled
from astarpo.values.plan import Shard


class ShardWorker:
    """Opens an engine, and samples the shards that it is sent."""

    def __init__(
        self, config: EstimateConfig, context: int, given: Sequence[tuple[str, str, bytes]]
    ) -> None:
        self._config = config
        self._context = context
        self._given = given
        self._held = ExitStack()
        self._sampler: LocalSampler | None = None

    def open(self) -> dict[str, Any]:
        """Loads the engine; returns its facts."""
        for each in self._given:
            accept(*each)
        config = self._config
        grader = Grader(config.grade_workers, config.grade_timeout, config.trust_reward)
        sampler = LocalSampler(
            config,
            load_vocabulary(config.model),
            self._context,
            self._held.enter_context(grader),
            pick_device(config.device),
        )
        self._sampler = self._held.enter_context(sampler)
        return self._sampler.open()

    def sample(self, shard: Shard) -> Sampled:
        """Samples and judges a shard."""
        assert self._sampler is not None
        (sampled,) = self._sampler.sample([shard], lambda count: None)
        return sampled
