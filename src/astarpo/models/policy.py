"""A policy: a causal language model, its tokenizer, and how a problem becomes a prompt for it."""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from astarpo.types import Problem, Prompt, UserError

logger = logging.getLogger("astarpo")

PromptFormat = Literal["raw", "chat"]

_TEXT_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]


@dataclass(frozen=True)
class Policy:
    """A model ready to sample from and to train.

    Attributes:
        model: In eval mode for good: dropout would make log-probs noisy and KL too large.
        tokenizer: A transformers tokenizer.
        stop_ids: Every id that ends a response: the tokenizer's and all of the generation config's.
        pad_id: Fills tensors. Masks come from lengths, so it may equal a stop id.
        autocast_dtype: Compute dtype over fp32 weights, None to compute in the weights' own.
        adapter: Whether the model's LoRA adapter takes part, None where it has none (`lora.py`).
    """

    model: Any
    tokenizer: Any
    stop_ids: frozenset[int]
    pad_id: int
    autocast_dtype: torch.dtype | None = None
    adapter: Literal["on", "off"] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context in which the model computes, the same for sampling, reference and update."""
        enabled = self.autocast_dtype is not None
        without = self.model.disable_adapter() if self.adapter == "off" else nullcontext()
        with without, torch.autocast(self.device.type, self.autocast_dtype, enabled):
            yield

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)


def resolve_model(name: str, *, weights: bool = True) -> Path:
    """The local folder that holds a model, fetched from the hub unless it is a folder already.

    Args:
        name: A model folder or a hub name.
        weights: Whether they are wanted too, or only config and tokenizer.

    Raises:
        UserError: No such folder, or the hub cannot be reached or does not have it.
    """
    if (path := Path(name)).is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"{name}: no config.json in this folder; is it a Hugging Face model?")
        return path
    if path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise UserError(f"{name}: no such model folder (a hub name looks like Qwen/Qwen2.5-1.5B)")
    from huggingface_hub import snapshot_download

    wanted = [*_TEXT_FILES, "*.safetensors"] if weights else _TEXT_FILES
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # The hub client raises many unrelated types; all mean "not there".
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name}: neither a local folder nor available from the hub ({reason}); "
            "check the name and the network, or give a folder"
        ) from error


def load_policy(name: str, device: torch.device, *, trainable: bool = False) -> Policy:
    """Loads a policy with fp32 weights; on CUDA it computes in bf16 (see `round_linears`).

    Args:
        name: A model folder or a hub name. Safetensors only, no remote code.
        device: Where to put it.
        trainable: Whether its parameters take gradients.

    Raises:
        UserError: It cannot be found or does not load.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(name)
    model = load_part(
        name, "model", AutoModelForCausalLM, dtype=torch.float32, use_safetensors=True
    )
    return make_policy(model.to(device), tokenizer, trainable=trainable)


def load_tokenizer(name: str) -> Any:
    """Loads a policy's tokenizer alone.

    Raises:
        UserError: It cannot be found, does not load or knows no text.
    """
    from transformers import AutoTokenizer

    tokenizer = load_part(name, "tokenizer", AutoTokenizer)
    # For some kinds of model transformers makes an empty one where the folder has none.
    if not tokenizer.decode(tokenizer("12")["input_ids"], skip_special_tokens=True).strip():
        raise UserError(
            f"{name}: has no tokenizer (what transformers makes of the folder knows no text); "
            "save the model's tokenizer there: tokenizer.save_pretrained(folder)"
        )
    return tokenizer


def load_part(name: str, part: str, loader: Any, **settings: Any) -> Any:
    """Loads what a model folder holds by one of transformers' auto classes, never running its code.

    Args:
        name: A model folder or a hub name.
        part: What is loaded, for messages.
        loader: Has `from_pretrained`.
        settings: For it.

    Raises:
        UserError: It cannot be found or does not load.
    """
    path = resolve_model(name, weights=part == "model")
    try:
        with quiet_transformers():
            return loader.from_pretrained(path, trust_remote_code=False, **settings)
    except Exception as error:  # A broken folder fails in as many ways as there are files in it.
        reason = str(error).strip().splitlines()[0]
        if "trust_remote_code" in str(error):
            reason = "it is made by Python code of its own, which is never run here"
        raise UserError(f"{name}: the {part} does not load ({reason})") from error


def make_policy(model: nn.Module, tokenizer: Any, *, trainable: bool = False) -> Policy:
    """Wraps a model and its tokenizer.

    Raises:
        UserError: Neither names a stop id: every response would run to the limit.
    """
    model.eval().requires_grad_(trainable)
    stop_ids = _stop_ids(model, tokenizer)
    if not stop_ids:
        raise UserError("the model has no end-of-text id: set eos_token_id in generation_config")
    pad_id = tokenizer.pad_token_id
    on_cuda = next(model.parameters()).device.type == "cuda"
    if on_cuda and not trainable:
        round_linears(model, torch.bfloat16)
    return Policy(
        model=model,
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        pad_id=min(stop_ids) if pad_id is None else pad_id,
        autocast_dtype=torch.bfloat16 if on_cuda else None,
    )


def round_linears(model: nn.Module, dtype: torch.dtype) -> None:
    """Stores the weights of linear layers in the dtype that autocast computes them in.

    The results are the same to the bit, in half the memory. Autocast keeps the weights that it cast
    only where they take gradients: those of a frozen model it would cast anew for every token. All
    else, such as norms and embeddings, stays as it is, since autocast leaves it so.

    Args:
        model: Frozen. A head tied to its embedding gets weights of its own.
        dtype: Autocast's.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            for name, weight in list(layer.named_parameters(recurse=False)):
                setattr(layer, name, nn.Parameter(weight.to(dtype), requires_grad=False))


def save_model(path: Path, policy: Policy) -> None:
    """Saves weights and tokenizer so that `from_pretrained` loads them."""
    with quiet_transformers():
        policy.model.save_pretrained(path)
    policy.tokenizer.save_pretrained(path)


def pick_device(name: str) -> torch.device:
    """The named device; `auto` is CUDA where there is one.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: PyTorch sees no GPU here; use --device cpu")
    return torch.device(name)


def render_prompt(problem: Problem, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """The token ids of a problem's prompt.

    Args:
        problem: Its messages are the text.
        tokenizer: The policy's.
        prompt_format: `raw` joins the messages' texts, as the published runs do; `chat` applies
            the tokenizer's chat template with the generation prompt.

    Raises:
        UserError: `chat` is asked for and the tokenizer has no template.
    """
    if prompt_format == "raw":
        return tokenizer("\n\n".join(m["content"] for m in problem.prompt))["input_ids"]
    if not tokenizer.chat_template:
        raise UserError("prompt_format chat: this tokenizer has no chat template; use raw")
    return tokenizer.apply_chat_template(
        list(problem.prompt), add_generation_prompt=True, tokenize=True, return_dict=False
    )


def fit_prompts(
    problems: Sequence[Problem], tokenizer: Any, prompt_format: PromptFormat, max_tokens: int
) -> list[Prompt]:
    """Renders problems, setting aside those whose prompt is too long. None is ever cut.

    Returns:
        The prompts that fit, in order; the log says how many did not.

    Raises:
        UserError: None fits.
    """
    prompts = [Prompt(p, tuple(render_prompt(p, tokenizer, prompt_format))) for p in problems]
    fitting = [prompt for prompt in prompts if len(prompt.token_ids) <= max_tokens]
    if not fitting:
        shortest = min(len(prompt.token_ids) for prompt in prompts)
        raise UserError(
            f"every prompt is longer than max_prompt_tokens={max_tokens} (shortest: {shortest})"
        )
    if num_set_aside := len(prompts) - len(fitting):
        logger.warning(f"set aside: {num_set_aside} prompts of more than {max_tokens} tokens")
    return fitting


def fingerprint(name: str) -> dict[str, str]:
    """Digests of a model's weights and of its tokenizer, independent of where it lies."""
    path = resolve_model(name)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{name}: no *.safetensors file (other weight formats are not loaded)")
    text_files = ["tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"]
    text_files += ["tokenizer.model", "chat_template.jinja", "generation_config.json"]
    return {
        "weights": _digest([path / "config.json", *weights]),
        "tokenizer": _digest([path / f for f in text_files if (path / f).is_file()]),
    }


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers' own bars and remarks on reading and writing weights out of the way."""
    from transformers.utils import logging as transformers_logging

    bars, level = (
        transformers_logging.is_progress_bar_enabled(),
        transformers_logging.get_verbosity(),
    )
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(json.dumps([path.name, path.stat().st_size]).encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 24):
                digest.update(chunk)
    return digest.hexdigest()


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)
