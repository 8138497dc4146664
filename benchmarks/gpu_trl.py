"""What `gpu.py` measures of TRL's A2PO."""

import os
import tempfile
import time
from typing import Any

from gpu_bench import Bench, Row

from astarpo.stages.warm_start import byte_tokenizer


def trl(bench: Bench) -> None:
    """The last of some small steps of TRL's A2PO, times what a whole step takes of it."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    batch, rows = 8, bench.sizes["rows"]

    def step() -> Row:
        with tempfile.TemporaryDirectory() as folder:
            *_, before, last = a2po_steps(bench, batch, folder)
        return {"step s": (last - before) * rows / batch, "GiB": bench.peak_gib()}

    bench.attempt(f"{rows} prompts, TRL's A2PO", step, needs="trl")


def a2po_steps(bench: Bench, batch: int, folder: str) -> list[float]:
    """When the answers of each of three steps were judged: from one to the next is a whole step."""
    from datasets import Dataset
    from trl.experimental.a2po import A2POConfig, A2POTrainer

    judged: list[float] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        judged.append(time.perf_counter())
        return [float(i % 2) for i in range(len(completions))]

    on_cuda, width = bench.device.type == "cuda", bench.sizes["prompt"]
    # A byte is a token; "#" in front keeps the prompts apart, which A2PO knows by their text.
    texts = [f"{i:#>{width}}" for i in range(3 * batch)]
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    settings = {"max_prompt_length": width, "max_completion_length": bench.sizes["response"]}
    settings |= {"max_steps": 3, "report_to": [], "save_strategy": "no", "disable_tqdm": True}
    settings |= {"bf16": on_cuda, "use_cpu": not on_cuda, "gradient_checkpointing": True}
    model = bench.policy(1).model
    model.config._name_or_path = folder
    trainer = A2POTrainer(
        model=model,
        reward_funcs=reward,
        args=A2POConfig(output_dir=folder, per_device_train_batch_size=batch, **settings),
        train_dataset=Dataset.from_dict({"prompt": texts}),
        processing_class=tokenizer,
    )
    trainer._optimal_values = dict.fromkeys(texts, 0.5)  # without its stage 1
    trainer.train()
    return judged
