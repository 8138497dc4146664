"""A vocabulary: how text becomes token ids and back, without the weights that predict them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from astarpo.models.folder import load_part
from astarpo.types import Problem, UserError

PromptFormat = Literal["raw", "chat"]


@dataclass(frozen=True)
class Vocabulary:
    """What prompts, engines and graders need to know of a model.

    Attributes:
        tokenizer: A transformers tokenizer.
        stop_ids: Every id that ends a response: the tokenizer's and all of the generation config's.
        pad_id: Fills tensors. Masks come from lengths, so it may equal a stop id.
        name: The folder or hub name that it was loaded from, for messages.
        context: The most tokens that the model was made for; None where its config does not say.

    Example:
        vocabulary = load_vocabulary("Qwen/Qwen2.5-1.5B")
        prompt_ids = vocabulary.render(problem, "raw")
        text = vocabulary.decode(completion.token_ids)
    """

    tokenizer: Any
    stop_ids: frozenset[int]
    pad_id: int
    name: str = ""
    context: int | None = None

    def render(self, problem: Problem, prompt_format: PromptFormat) -> list[int]:
        """The token ids of a problem's prompt.

        Args:
            problem: Its messages are the text.
            prompt_format: `raw` joins the messages' texts, as the published runs do; `chat` applies
                the tokenizer's chat template with the generation prompt.

        Raises:
            UserError: `chat` is asked for and the tokenizer has no template.
        """
        return self.render_all([problem], prompt_format)[0]

    def render_all(
        self, problems: Sequence[Problem], prompt_format: PromptFormat
    ) -> list[list[int]]:
        """The token ids of many problems' prompts, by all cores; see `render`."""
        if prompt_format == "raw":
            texts = ["\n\n".join(m["content"] for m in p.prompt) for p in problems]
            return self.tokenizer(texts, return_attention_mask=False)["input_ids"]
        if not self.tokenizer.chat_template:
            raise UserError("prompt_format chat: this tokenizer has no chat template; use raw")
        conversations = [list(problem.prompt) for problem in problems]
        return self.tokenizer.apply_chat_template(
            conversations, add_generation_prompt=True, tokenize=True, return_dict=False
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without special tokens."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)


def load_vocabulary(name: str) -> Vocabulary:
    """Loads the vocabulary of a model, a folder or a hub name; its weights are not read.

    Raises:
        UserError: The model cannot be found, its tokenizer or config does not load, its tokenizer
            knows no text, or nothing names a stop id.
    """
    tokenizer = load_part(name, "tokenizer", AutoTokenizer.from_pretrained)
    # For some kinds of model transformers makes an empty one where the folder has none.
    if not tokenizer.decode(tokenizer("12")["input_ids"], skip_special_tokens=True).strip():
        raise UserError(
            f"{name}: has no tokenizer (what transformers makes of the folder knows no text); "
            "save the model's tokenizer there: tokenizer.save_pretrained(folder)"
        )
    config = load_part(name, "config", AutoConfig.from_pretrained)
    generation_config = load_part(name, "generation config", read_generation_config)
    return make_vocabulary(tokenizer, config, generation_config, name)


def make_vocabulary(
    tokenizer: Any, config: Any, generation_config: Any, name: str = ""
) -> Vocabulary:
    """The vocabulary of a model in memory, from transformers' objects.

    Raises:
        UserError: Nothing names a stop id: every response would run to the limit.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    stop_ids = frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)
    if not stop_ids:
        raise UserError("the model has no end-of-text id: set eos_token_id in generation_config")
    pad_id = tokenizer.pad_token_id
    return Vocabulary(
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        pad_id=min(stop_ids) if pad_id is None else pad_id,
        name=name,
        context=getattr(config.get_text_config(), "max_position_embeddings", None),
    )


def read_generation_config(path: Path, **settings: Any) -> GenerationConfig:
    """The generation config that a model loaded from a folder has, found as transformers does."""
    try:
        return GenerationConfig.from_pretrained(path, **settings)
    except OSError:  # The folder has none: its config.json names the stop ids then.
        return GenerationConfig.from_pretrained(path, config_file_name="config.json", **settings)
