"""The part `trl` of `h100.py`: TRL's A2PO and GRPO, sampling by transformers as ours does."""

import importlib
import importlib.util
import os
import tempfile
import time
from typing import Any

import torch
from bench import Bench, Row
from workload import random_policy, synchronize

from astarpo.warm_start import byte_tokenizer


def trl(bench: Bench) -> None:
    """Seconds of a step on as many prompts and peak of memory, with gradient checkpointing."""
    if importlib.util.find_spec("trl") is None:
        bench.fail("TRL", "not installed")
        return
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    for name, group in (("A2PO", 1), ("GRPO", 8)):
        bench.attempt(
            f"{bench.sizes.prompts} prompts, TRL's {name}{f'({group})' * (group > 1)}",
            _train,
            bench,
            name,
            group,
        )


def _train(bench: Bench, name: str, group: int) -> Row:
    """The second of two small steps, times what a whole step would take of it.

    A2PO samples as many rows as it then trains at once; GRPO samples more, here as many as our
    engine, and trains them bit by bit. An optimiser's step comes with each, which weighs little.
    """
    sizes = bench.sizes
    rows = sizes.trl_batch if name == "A2PO" else sizes.prompts
    with tempfile.TemporaryDirectory() as folder:
        trainer = _make_trainer(bench, name, group, rows, folder)
        times = _record_steps(trainer, bench.device)
        bench.free()
        trainer.train()
    seconds = times[-1] - times[-2]
    return {
        "step s": seconds * sizes.prompts * group / rows,
        "GiB": bench.peak_gib(),
        "reserved": bench.reserved_gib(),
        "measured s": seconds,
        "of sequences": rows,
    }


def _make_trainer(bench: Bench, name: str, group: int, rows: int, folder: str) -> Any:
    from datasets import Dataset

    sizes, on_cuda = bench.sizes, bench.device.type == "cuda"
    module = importlib.import_module("trl.experimental.a2po" if name == "A2PO" else "trl")
    own: dict[str, Any] = {"max_prompt_length": sizes.prompt}
    if name == "GRPO":
        own = {
            "num_generations": group,
            "generation_batch_size": rows,
            "gradient_accumulation_steps": rows // sizes.trl_batch,
            "beta": 1e-3,  # above 0 it keeps a reference
        }
    # A byte is a token; "#" in front keeps the prompts apart, A2PO knows them by their text.
    texts = [f"{i:#>{sizes.prompt}}" for i in range(2 * rows)]
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    model = random_policy(sizes.large, bench.device).model
    model.config._name_or_path = folder
    if name == "GRPO":
        model.save_pretrained(folder)  # it reads the reference from there
    trainer = getattr(module, f"{name}Trainer")(
        model=model,
        reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
        args=getattr(module, f"{name}Config")(
            output_dir=folder,
            per_device_train_batch_size=sizes.trl_batch,
            max_completion_length=sizes.response,
            max_steps=2,
            learning_rate=1e-9,
            bf16=on_cuda,
            use_cpu=not on_cuda,
            gradient_checkpointing=True,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **own,
        ),
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
    )
    if name == "A2PO":
        trainer._optimal_values = dict.fromkeys(texts, 0.5)  # without its stage 1
    return trainer


def _record_steps(trainer: Any, device: torch.device) -> list[float]:
    """A list that gets the time of the start of training and of the end of each step."""
    from transformers import PrinterCallback, TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.on_step_end()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize(device)
            times.append(time.perf_counter())

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    return times
