"""The verb `warm-start`: a small policy from scratch, for where no pretrained model can be had.

A Qwen2-architecture model of about a million parameters over bytes, trained on worked solutions:
any text is in its vocabulary, and its folder loads with `from_pretrained` like any other.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from astarpo.config import WarmStartConfig
from astarpo.models.batch import masked_sum
from astarpo.models.logprobs import token_logprobs
from astarpo.models.policy import Policy, make_policy, save_model
from astarpo.models.vocabulary import Vocabulary, make_vocabulary
from astarpo.runtime.distributed import open_ranks
from astarpo.runtime.files import atomic_directory
from astarpo.runtime.outputs import check_folder
from astarpo.runtime.progress import Progress
from astarpo.runtime.seeding import derive_seed, epoch_stream
from astarpo.tasks.problem_set import read_problems
from astarpo.types import Problem, UserError

logger = logging.getLogger("astarpo")

_WARMUP_SHARE = 0.05
_END, _PAD = "<|endoftext|>", "<|pad|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)

Example = tuple[list[int], list[int]]
"""Token ids of a prompt and of its worked solution, stop id included."""


def warm_start(config: WarmStartConfig) -> Path:
    """Trains a small policy on the worked solutions of problems; of several ranks the first does.

    Returns:
        The folder with the policy.

    Raises:
        UserError: The folder is in use, or no problem has a solution that fits.
    """
    with open_ranks() as where:
        return where.first(lambda: _train(config))


def _train(config: WarmStartConfig) -> Path:
    policy, examples = prepare(config)
    steps, batch_size = config.steps, config.batch_size
    fit(policy, examples, steps=steps, batch_size=batch_size, lr=config.lr, seed=config.seed)
    with atomic_directory(config.out) as path:
        save_model(path, policy)
    return config.out


def prepare(
    config: WarmStartConfig, problems: Sequence[Problem] | None = None
) -> tuple[Policy, list[Example]]:
    """The untrained policy and its examples; `problems` are those of a file not written yet."""
    check_folder(config.out, [config.problems])
    if problems is None:
        problems = read_problems(config.problems)
    policy = build_policy(config.hidden_size, config.layers, config.heads, config.seed)
    solved = [p for p in problems if p.extra.get("solution")]
    examples = [make_example(policy.vocabulary, p, p.extra["solution"]) for p in solved]
    examples = [e for e in examples if len(e[0]) + len(e[1]) <= config.max_tokens]
    if not examples:
        raise UserError(
            f"{config.problems}: no worked solution (extra_info.solution) of at most "
            f"{config.max_tokens} tokens with its prompt"
        )
    if len(examples) < len(problems):
        logger.warning(
            f"left out: {len(problems) - len(examples)} problems without such a solution"
        )
    return policy, examples


def preview(config: WarmStartConfig) -> list[str]:
    """The lines of a dry run; raises what `prepare` raises."""
    _, examples = prepare(config)
    return [f"{config.steps} updates on {len(examples)} worked solutions"]


def make_example(vocabulary: Vocabulary, problem: Problem, solution: str) -> Example:
    """A problem's raw prompt and a solution to it, as token ids."""
    tokenizer = vocabulary.tokenizer
    solution_ids = [*tokenizer(solution)["input_ids"], tokenizer.eos_token_id]
    return vocabulary.render(problem, "raw"), solution_ids


def fit(
    policy: Policy,
    examples: Sequence[Example],
    *,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
) -> None:
    """Maximises the likelihood of the solutions, in place, over shuffled epochs of the examples.

    By AdamW, whose learning rate rises to `lr` in the first steps and falls to 0 as a cosine.
    """
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps + 1, pct_start=_WARMUP_SHARE, cycle_momentum=False
    )
    order_seed = derive_seed(seed, "warm_start")
    with Progress("warm start: steps", steps) as progress:
        for step in range(steps):
            chosen = epoch_stream(order_seed, step, len(examples), batch_size)
            batch = policy.collate([examples[i] for i in chosen])
            logprobs_BT, _ = token_logprobs(policy.model, batch, temperature=1.0)
            loss = -masked_sum(logprobs_BT, batch.mask_BT).sum() / batch.mask_BT.sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            progress.advance(1, f"{loss.item():.3f} nats a token")


def build_policy(hidden_size: int, layers: int, heads: int, seed: int) -> Policy:
    """An untrained policy over bytes, its feed-forward layers three times as wide as the others.

    Raises:
        UserError: The hidden size does not divide into heads of even size.
    """
    from transformers import Qwen2ForCausalLM

    tokenizer = byte_tokenizer()
    config = policy_config(hidden_size, layers, heads, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        model = Qwen2ForCausalLM(config)
    vocabulary = make_vocabulary(tokenizer, model.config, model.generation_config)
    return make_policy(model, vocabulary, trainable=True)


def policy_config(hidden_size: int, layers: int, heads: int, tokenizer: Any) -> Any:
    """The config of such a policy; raises what `build_policy` raises."""
    from transformers import Qwen2Config

    if hidden_size % (2 * heads):
        raise UserError(
            f"hidden_size {hidden_size} must be a multiple of twice the heads ({heads})"
        )
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def byte_tokenizer() -> Any:
    """A tokenizer whose tokens are the 256 bytes, an end and a pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=_END,
        pad_token=_PAD,
        chat_template=_CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
