"""Work, hours, storage and cards: numbers worked out by hand."""

import json
from pathlib import Path

import pytest

from astarpo.config import EstimateConfig, EvaluateConfig, TrainConfig
from astarpo.planning.cards import find_card
from astarpo.planning.fitting import Trial
from astarpo.planning.hours import Rates, estimated, measured, stage_seconds, with_given
from astarpo.planning.memory import (
    GIB,
    Place,
    alone_moment,
    sampling_moment,
    update_moment,
    vllm_refusal,
)
from astarpo.planning.remedies import find_remedies
from astarpo.planning.shape import read_shape
from astarpo.planning.storage import storage, table_bytes
from astarpo.planning.work import Lengths, estimate_work, evaluate_work, train_work
from astarpo.types import UserError

SHAPES = Path(__file__).parents[1] / "support" / "shapes"
LENGTHS = Lengths(100, 256, 250, 1024, "as read", "as given")
H100 = find_card("H100", "auto")


def train_config(**changes) -> TrainConfig:
    return TrainConfig(**{"model": "m", "problems": "p", "values": "v", "out": "o"} | changes)


def estimate_config(**changes) -> EstimateConfig:
    return EstimateConfig(model="m", problems="p", out="o", **changes)


def test_stage_1_samples_every_problem_so_often():
    work = estimate_work("estimate", estimate_config(samples=8), 7473, LENGTHS)
    assert (work.samples, work.answer_tokens) == (8 * 7473, 250 * 8 * 7473)
    assert work.prompt_tokens == 100 * 7473
    budget = estimate_config(estimator="shrunk", budget_tokens=1_000_000)
    assert estimate_work("estimate", budget, 7473, LENGTHS).samples == 4000
    assert estimate_work("estimate", estimate_config(limit=10), 7473, LENGTHS).samples == 80


def test_the_papers_epochs_make_so_many_steps():
    work = train_work("train", train_config(epochs=25), 7473, 0, LENGTHS)
    assert work.steps == 730  # 25 x 7473 / 256, rounded up
    assert work.samples == 730 * 256
    assert work.learnt_tokens == 730 * 256 * 350
    group = train_config(algorithm="grpo", values=None, group_size=4, steps=10)
    assert train_work("train", group, 7473, 0, LENGTHS).samples == 10 * 256 * 4


def test_held_out_answers_while_training_are_sampled_and_not_learnt_from():
    config = train_config(steps=10, eval_every=5, eval_problems="t", eval_samples=2)
    work = train_work("train", config, 7473, 100, LENGTHS)
    assert work.samples == 10 * 256 + 3 * 100 * 2  # before the first step, after 5 and after 10
    assert work.learnt_tokens == 10 * 256 * 350


def test_scores_are_a_greedy_answer_and_the_samples():
    config = EvaluateConfig(model="m", problems="p", out="o", samples=4)
    assert evaluate_work("evaluate", config, 1319, LENGTHS).samples == 5 * 1319


def test_seconds_follow_from_rates():
    rates = Rates(sample=1000, update=2000, token_s=0, update_s=0.5, said="")
    sampled = estimate_work("estimate", estimate_config(samples=4), 100, LENGTHS)
    assert stage_seconds(sampled, rates, LENGTHS, Place(H100), 2) == 100  # 400 x 250 / 1000
    assert stage_seconds(sampled, rates, LENGTHS, Place(H100, 1, 4), 2) == 25
    learnt = train_work("train", train_config(steps=10), 7473, 0, LENGTHS)
    # 2560 answers: 640 s to sample, 896000 tokens in 448 s to learn from, 20 updates of .5 s
    assert stage_seconds(learnt, rates, LENGTHS, Place(H100), 2) == 640 + 448 + 10


def test_the_longest_answer_of_a_step_does_not_shrink_with_devices():
    rates = Rates(sample=1e9, update=1e9, token_s=0.01, update_s=0, said="")
    work = train_work("train", train_config(steps=10), 7473, 0, LENGTHS)
    many = stage_seconds(work, rates, LENGTHS, Place(H100, 8, 8), 2)
    assert many == pytest.approx(10 * 3 * 250 * 0.01, rel=1e-3)  # three times the mean


def test_rates_of_a_finished_run(tmp_path):
    row = {"tokens": 1000, "length_mean": 50.0, "seconds_generate": 4.0, "seconds_verify": 1.0}
    row |= {"seconds_reference": 2.0, "seconds_update": 3.0}
    slow = row | {"seconds_generate": 400.0}  # the first step is not counted
    lines = [json.dumps(each) for each in (slow, row, row)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    rates = measured(tmp_path, prompt_mean=10)
    assert (rates.sample, rates.answer_mean) == (200, 50)
    assert rates.update == (1000 + 20 * 10) / 5  # 20 answers with their prompts
    with pytest.raises(UserError, match="is no run that can be read"):
        measured(tmp_path / "..", 10)


def test_rates_of_the_gpu_benchmark(tmp_path):
    rows = {
        "device": "H100",
        "generation": [
            {"row": "0.5B, 256 x 1, hf", "tokens/s": 9e9},
            {"row": "1.5B, 32 x 8, hf", "tokens/s": 5e3},
            {"row": "1.5B, 32 x 8, vllm", "tokens/s": 2e4},
        ],
        "update": [{"row": "1.5B, 8192", "tokens/s": 3e3, "update s": 3.0, "reference s": 1.0}],
    }
    (tmp_path / "gpu.json").write_text(json.dumps(rows))
    rates = measured(tmp_path / "gpu.json", 10)
    assert (rates.sample, rates.update) == (2e4, 2250)  # three of four seconds are the update's
    (tmp_path / "gpu.json").write_text("{}")
    with pytest.raises(UserError, match="has no rates of 'generation'"):
        measured(tmp_path / "gpu.json", 10)


def test_given_rates_go_over_others():
    shape = read_shape(str(SHAPES / "Qwen2.5-1.5B"))
    rough = estimated(shape, train_config(), LENGTHS, Place(H100))
    assert 5_000 < rough.sample < 60_000  # what engines are said to reach at this size
    both = with_given(None, 10.0, 20.0)
    assert (both.sample, both.update, both.said) == (10, 20, "as given")
    one = with_given(rough, 10.0, None)
    assert (one.sample, one.update) == (10, rough.update)
    assert one.said.startswith("--sample-rate 10 as given; else a rough estimate")
    assert with_given(None, 10.0, None) is None


def test_a_table_and_checkpoints_on_disk():
    shape = read_shape(str(SHAPES / "Qwen2.5-1.5B"))
    n = shape.num_parameters
    work = {"estimate": estimate_work("estimate", estimate_config(samples=8), 1000, LENGTHS)}
    work["train"] = train_work("train", train_config(), 1000, 0, LENGTHS)
    parts = storage(shape, train_config(keep_checkpoints=2), work, LENGTHS)
    assert parts["value table"] == table_bytes(8000, LENGTHS) == 8000 * (250 * 2.8 + 60)
    (checkpoints,) = [size for name, size in parts.items() if name.startswith("checkpoints")]
    assert checkpoints == 3 * 12 * n
    assert parts["trained model"] == 4 * n


def test_several_devices_share_weights_gradients_moments_and_reference():
    shape = read_shape(str(SHAPES / "Qwen2.5-1.5B"))
    config = train_config(gradient_checkpointing=True)
    alone = update_moment(shape, config, LENGTHS, Place(H100)).kinds
    shared = update_moment(shape, config, LENGTHS, Place(H100, 1, 4)).kinds
    for kind in ("weights", "gradients", "moments", "reference"):
        assert shared[kind] == alone[kind] / 4
    layer, root = shape.layer_size, shape.num_embedding
    assert shared["copies"] == 2 * (2 * layer + root) + 6 * layer
    two = update_moment(shape, config, LENGTHS, Place(H100, 2, 4, shard_size=4)).kinds
    assert two["moments"] == shared["moments"]


def test_what_offloading_and_8_bits_take_away():
    shape = read_shape(str(SHAPES / "Qwen2.5-1.5B"))
    plain = update_moment(shape, train_config(), LENGTHS, Place(H100))
    parked = update_moment(shape, train_config(reference_offload=True), LENGTHS, Place(H100))
    assert plain.total - parked.total == pytest.approx(plain.kinds["reference"])
    light = update_moment(shape, train_config(optimizer="adamw_8bit"), LENGTHS, Place(H100))
    assert light.kinds["moments"] == pytest.approx(2.03 * shape.num_parameters, rel=0.001)


def test_what_offloading_takes_away_where_ranks_share_a_model():
    shape, eight = read_shape(str(SHAPES / "Qwen2.5-1.5B")), Place(H100, 1, 8)
    plain = update_moment(shape, train_config(), LENGTHS, eight).kinds
    both = {"policy_offload": True, "reference_offload": True}
    parked = update_moment(shape, train_config(**both), LENGTHS, eight).kinds
    assert plain.keys() - parked.keys() == {"weights", "gradients", "moments", "reference"}
    assert parked["copies"] == plain["copies"]
    # One device does not share: there training refuses to offload the policy.
    alone = update_moment(shape, train_config(policy_offload=True), LENGTHS, Place(H100)).kinds
    assert alone == update_moment(shape, train_config(), LENGTHS, Place(H100)).kinds


def test_offloading_is_what_lets_a_large_model_fit():
    large = read_shape(str(SHAPES / "Qwen2.5-72B"))
    config = train_config(gradient_checkpointing=True, micro_batch_tokens=1280, engine="vllm")
    place = Place(H100, 1, 8, tensor_parallel=8)
    trial = Trial({"train": config}, large, LENGTHS, place)
    assert not trial.fits
    first = find_remedies(trial)[0]
    assert first.changes["train.policy_offload"] is True
    assert trial.changed(first.changes).fits
    assert "; 1,083 GiB of a machine's memory" in first.cost  # 16 bytes of 72.7e9 parameters


def test_keys_and_values_of_the_two_engines():
    shape = read_shape(str(SHAPES / "Qwen2.5-1.5B"))
    hf = estimate_config(engine="hf", samples=8, max_sequences=64)
    held = alone_moment("stage 1", shape, hf, LENGTHS, Place(H100), 8).kinds
    assert held["cache"] == 1.25 * 28_672 * 64 * (256 / 8 + 1024)
    vllm = alone_moment("stage 1", shape, estimate_config(), LENGTHS, Place(H100), 8)
    assert vllm.kinds["engine"] + vllm.kinds["cache"] == pytest.approx(0.9 * H100.memory)
    assert vllm_refusal(shape, 0.5, LENGTHS, Place(H100)) is None
    large = read_shape(str(SHAPES / "Qwen2.5-72B"))
    assert "vLLM needs 137.8 GiB" in vllm_refusal(large, 0.9, LENGTHS, Place(H100))
    assert vllm_refusal(large, 0.9, LENGTHS, Place(H100, 1, 8, tensor_parallel=4)) is None


def test_sampling_while_training_has_no_gradients():
    shape, config = read_shape(str(SHAPES / "Qwen2.5-1.5B")), train_config(engine="hf")
    update = update_moment(shape, config, LENGTHS, Place(H100))
    sampling = sampling_moment(shape, config, LENGTHS, Place(H100), 256, update)
    assert "gradients" not in sampling.kinds
    assert sampling.kinds["moments"] == update.kinds["moments"]
    assert sampling.kinds["moments"] / shape.num_parameters == pytest.approx(8, rel=1e-5)


def test_cards_by_name_by_size_and_at_hand():
    assert find_card("h100", "auto").memory == int(79.6 * GIB)
    assert find_card("A100 80", "auto").name == "A100-80"
    assert find_card("24 GiB", "auto").memory == find_card("24", "auto").memory == 24 * GIB
    assert find_card("24", "auto").flops is None
    assert not find_card("cpu", "auto").is_gpu
    assert not find_card(None, "cpu").is_gpu
    with pytest.raises(UserError, match=r"card H1000: is none of .*; did you mean H100\?"):
        find_card("H1000", "auto")
    with pytest.raises(UserError, match="give it in GiB"):
        find_card("0", "auto")
