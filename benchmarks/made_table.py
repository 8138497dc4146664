"""Makes a problem set, a value table and a run of any size for `table_scale.py`."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from table_scale import SAMPLES_EACH, SHARD_PROBLEMS, estimate_config, train_config
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from astarpo.models.policy import make_policy, save_model
from astarpo.models.vocabulary import make_vocabulary
from astarpo.rundir.rows import write_rows
from astarpo.runtime.parquet import write_parquet
from astarpo.tasks.problem_set import read_problems, write_problems
from astarpo.types import Problem
from astarpo.values.plan import sampling_fingerprint
from astarpo.values.shards import SCHEMA, write_shard
from astarpo.values.table import ValueTable

_INSTRUCTION = "\nLet's think step by step and output the final answer after ####.\n"
_VOCABULARY = 8000
_WORDS, _CHUNK, _POOL = 6000, 20_000, 20_000


class Text:
    """Text like that of worked solutions, of which questions and answers are pieces."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        lengths = rng.integers(2, 9, _WORDS)
        letters = rng.integers(97, 123, lengths.sum()).astype(np.uint8).tobytes().decode()
        ends = lengths.cumsum()
        words = [letters[end - n : end] for end, n in zip(ends, lengths, strict=True)]
        drawn = np.minimum(rng.zipf(1.3, 400_000), _WORDS) - 1
        numbers = rng.integers(0, 500, len(drawn))
        parts = [
            f"{words[w]} {n}" if n < 60 else f"{words[w]}." if n > 480 else words[w]
            for w, n in zip(drawn.tolist(), numbers.tolist(), strict=True)
        ]
        self.text = " ".join(parts)
        self._bytes = np.frombuffer(self.text.encode(), np.uint8)
        self._rng = rng

    def pieces(self, count: int, mean: float, longest: int) -> pa.Array:
        """Texts of about so many characters, each from another place."""
        lengths = self._rng.lognormal(np.log(mean) - 0.125, 0.5, count).astype(np.int64)
        offsets = _offsets(np.clip(lengths, 20, longest))
        starts = self._rng.integers(0, len(self._bytes) - longest, count)
        data = self._bytes[_places(starts, offsets)]
        buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.string(), count, buffers)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], lengths.cumsum()])


def _places(starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Places start, start + 1, ... of each piece, piece after piece."""
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))


def make_model(folder: Path, text: Text) -> None:
    """Writes a model of next to no weights with a byte-level BPE tokenizer of 8000 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text.text[:1_000_000]], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")
    shape = Qwen2Config(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, eos_token_id=fast.eos_token_id,
        bos_token_id=None, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(shape)
    vocabulary = make_vocabulary(fast, model.config, model.generation_config)
    save_model(folder, make_policy(model, vocabulary, trainable=True))


def make_problems(path: Path, text: Text, num_problems: int) -> None:
    """Writes a problem set as `astarpo data gsm8k` would."""
    writer = None
    for first in range(0, num_problems, _CHUNK):
        number = np.arange(first, min(first + _CHUNK, num_problems))
        questions = text.pieces(len(number), 240, 1200).to_pylist()
        solutions = text.pieces(len(number), 290, 1500).to_pylist()
        rows = [
            {
                "data_source": "gsm8k",
                "prompt": [{"role": "user", "content": question + _INSTRUCTION}],
                "ability": "math",
                "reward_model": {"style": "rule", "ground_truth": str(n % 997)},
                "extra_info": {
                    "split": "train", "index": n, "solution": f"{solution}\n#### {n % 997}",
                    "id": f"gsm8k/train/{n}",
                },
            }
            for n, question, solution in zip(number.tolist(), questions, solutions, strict=True)
        ]  # fmt: skip
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(path, table.schema, write_page_checksum=True)
        writer.write_table(table)
    assert writer
    writer.close()


def make_table(folder: Path, text: Text) -> None:
    """Writes a value table that `estimate` then finishes, its shards directly."""
    problems = read_problems(folder / "problems.parquet")
    config = estimate_config(folder)
    fingerprint = sampling_fingerprint(config, problems, config.seed)
    engine = {"name": "none", "version": "0", "dtype": "float32"}
    table = ValueTable.start(config.out, fingerprint, {"model": config.model, "engine": engine})
    rng = np.random.default_rng(1)
    rates = rng.beta(0.8, 0.8, len(problems))
    pool = make_pool(text, rng)
    for first in range(0, len(problems), SHARD_PROBLEMS):
        chosen = list(problems[first : first + SHARD_PROBLEMS])
        each = np.repeat(np.arange(len(chosen)), SAMPLES_EACH)
        rewards = rng.random(len(each)) < rates[first + each]
        columns = {
            "problem_id": pa.array([p.id for p in chosen]).take(pa.array(each)),
            "problem_digest": pa.array([p.digest for p in chosen]).take(pa.array(each)),
            "sample": np.tile(np.arange(SAMPLES_EACH, dtype=np.int32), len(chosen)),
            "reward": rewards.astype(np.float64),
            "status": pa.repeat("ok", len(each)),
            "finish_reason": pa.repeat("stop", len(each)),
        }
        rows = pool.slice(rng.integers(len(pool) - len(each)), len(each))
        columns |= {name: rows[name].combine_chunks() for name in pool.column_names}
        shard = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
        write_shard(config.out, shard, fingerprint)
    table.set_facts(seconds={"generate": 1.0, "verify": 1.0})


def make_pool(text: Text, rng: np.random.Generator) -> pa.Table:
    """What models wrote: shards take pieces of it, each from another place."""
    texts = text.pieces(_POOL, 800, 4000)
    lengths = np.minimum(pc.call_function("binary_length", [texts]).to_numpy() // 4 + 1, 1024)
    offsets = _offsets(lengths)
    tokens = pa.array(rng.zipf(1.3, offsets[-1]) % _VOCABULARY, pa.int32())
    columns = {
        "token_ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), tokens),
        "text": texts,
        "answer": pa.array(rng.integers(0, 999, _POOL)).cast(pa.string()),
        "num_tokens": pa.array(lengths, pa.int32()),
    }
    return pa.table(columns)


def make_run(folder: Path) -> None:
    """Writes what a training run leaves: settings, metrics, the answers of ten steps."""
    run, rng = folder / "run", np.random.default_rng(2)
    (run / "samples").mkdir(parents=True)
    settings = json.loads(train_config(folder).model_dump_json())
    (run / "config.json").write_text(json.dumps(settings))
    rows = [
        {"step": s, "reward": 0.5, "kl": 0.0, "seconds": 1.0, "tokens": 9} for s in range(1, 11)
    ]
    write_rows(run / "metrics.jsonl", rows)
    problems = read_problems(folder / "problems.parquet", limit=2560)
    for step in range(10):
        chosen = [problems[i] for i in rng.integers(0, len(problems), 256)]
        columns = {
            "step": pa.array([step + 1] * 256, pa.int32()),
            "problem_id": [problem.id for problem in chosen],
            "text": ["an answer\n#### 7"] * 256,
            "reward": rng.integers(0, 2, 256).astype(np.float64),
            "status": ["ok"] * 256,
            "v_star": rng.random(256),
        }
        write_parquet(run / "samples" / f"step-{step + 1:06d}.parquet", pa.table(columns))


def make(folder: Path, num_problems: int) -> None:
    """Writes everything that the verbs are measured on."""
    text = Text()
    make_model(folder / "model", text)
    make_problems(folder / "problems.parquet", text, num_problems)
    held_out = [Problem(f"held-out/{i}", "gsm8k", ({"role": "user", "content": f"{i}?"},), "1")
                for i in range(500)]  # fmt: skip
    write_problems(folder / "held.parquet", held_out)
    make_table(folder, text)
    make_run(folder)
