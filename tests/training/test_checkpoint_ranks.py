"""Checkpoints of runs whose models several processes share: whoever saved them, anyone goes on."""

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from astarpo.config import EstimateConfig, TrainConfig
from astarpo.engines import open_engine
from astarpo.engines.base import Request
from astarpo.models import shards
from astarpo.models.lora import save_trained
from astarpo.models.sharded import whole
from astarpo.rundir.writer import RunLog
from astarpo.runtime import files
from astarpo.runtime.one_process import OneProcess
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.stages.estimate import estimate
from astarpo.training.checkpoint import Checkpoints, latest_checkpoint
from astarpo.training.inputs import open_inputs
from astarpo.training.opening import open_learner
from astarpo.training.schedule import step_prompts
from astarpo.types import Answer, UserError, Verdict
from tests.conftest import flipped
from tests.support.ranks import NEEDS_RANKS, in_ranks, killed_ranks

pytestmark = NEEDS_RANKS

# Each has something of its own in its checkpoints: a critic, values that run along, an adapter.
SETTINGS = {
    "grpo": {"algorithm": "grpo", "group_size": 2},
    "ppo": {"algorithm": "ppo"},
    "spo": {"algorithm": "spo"},
    "lora": {"algorithm": "grpo", "group_size": 2, "lora_rank": 4},
}


@pytest.fixture
def small_table(policy_path, problems_path, tmp_path):
    config = EstimateConfig(
        model=str(policy_path), problems=problems_path, out=tmp_path / "values", samples=2,
        max_new_tokens=12, allow_truncated=True, engine="hf", device="cpu", grade_workers=1,
    )  # fmt: skip
    estimate(config)
    return config.out


@pytest.fixture
def make_config(policy_path, problems_path, tmp_path, request):
    def make(name, **changes):
        if name == "spo":
            changes["values"] = request.getfixturevalue("small_table")
        changes.setdefault("out", tmp_path / "run")
        return TrainConfig(
            model=str(policy_path), problems=problems_path, steps=3,
            prompts_per_step=6, max_new_tokens=12, engine="hf", lr=1e-4, warmup_steps=1,
            micro_batch_tokens=256, device="cpu", **SETTINGS[name], **changes,
        )  # fmt: skip

    return make


class Run:
    """Training's parts, put together as `stages/train.py` does, with a reward of no meaning."""

    def __init__(self, where, config):
        self.where, self.config = where, config
        self.log = RunLog(config.out, config, resume=(config.out / "config.json").exists())
        where.barrier()
        self.inputs = open_inputs(config)
        self.learner, self.step = open_learner(config, self.inputs, self.log, where)
        if where.is_first:
            self.log.begin(self.step)
        where.barrier()
        self.checkpoints = Checkpoints(self.log, self.learner, config, self.step, where)
        self.policy = self.learner.policy

    def answers(self, engine):
        """As the policy writes them, each rank its share."""
        running = self.learner.running
        prompts, seeds = step_prompts(
            self.inputs.prompts, self.inputs.algorithm, self.config, self.step + 1,
            running.weights_P if running else None,
        )  # fmt: skip
        prompts = running.valued(prompts) if running else prompts
        mine = self.where.share([len(prompt.token_ids) for prompt in prompts])
        requests = [Request(prompts[i].token_ids, seeds[i]) for i in mine]
        done = engine.generate(requests, self.inputs.text.sampling)
        answers = [
            Answer(prompts[i], c, "", Verdict(float(sum(c.token_ids) % 2), None, "ok"))
            for i, c in zip(mine, done, strict=True)
        ]
        return self.where.gather(answers)

    def go(self, steps):
        """Makes steps; what was sampled in them, and the metrics of each."""
        found = []
        with open_engine(self.config, self.policy, where=self.where) as engine:
            for _ in range(steps):
                answers = self.answers(engine)
                with engine.resting():
                    metrics = self.learner.update(answers, 1.0, Stopwatch())
                engine.sync(self.policy)
                self.step += 1
                ids = [(a.prompt.token_ids, a.completion.token_ids) for a in answers]
                found.append((ids, {k: v for k, v in metrics.items() if isinstance(v, float)}))
        return found

    def weights(self):
        return {name: whole(p.detach()) for name, p in self.learner.parameters.items()}


def start(where, config):
    run = Run(where, config)
    run.go(1)
    run.checkpoints.save(run.step)


def go_on(where, config):
    run = Run(where, config)
    assert run.step == 1
    return run.go(1), run.weights()


def straight(where, config):
    run = Run(where, config)
    return run.go(2)[1:], run.weights()


def assert_alike(found, expected):
    (steps, weights), (own_steps, own_weights) = found, expected
    for (ids, metrics), (own_ids, own_metrics) in zip(steps, own_steps, strict=True):
        assert ids == own_ids
        assert metrics == pytest.approx(own_metrics, abs=1e-6, rel=1e-5)
    assert weights.keys() == own_weights.keys()
    for name, values in weights.items():
        assert (values - own_weights[name]).abs().max() < 1e-6, name


@pytest.mark.parametrize(
    ("name", "saved_on", "resumed_on"),
    [
        ("grpo", 2, (1, 2, 4)),
        ("grpo", 1, (2,)),
        ("ppo", 2, (1,)),
        ("spo", 2, (1,)),
        ("lora", 2, (1,)),
        ("lora", 1, (2,)),
    ],
)
def test_a_run_goes_on_as_if_never_stopped_on_any_number_of_ranks(
    make_config, tmp_path, name, saved_on, resumed_on
):
    config = make_config(name)
    (expected,) = in_ranks(1, straight, config.model_copy(update={"out": tmp_path / "straight"}))
    in_ranks(saved_on, start, config)
    for size in resumed_on:
        for found in in_ranks(size, go_on, config):
            assert_alike(found, expected)


def test_copies_of_parts_are_saved_once_and_resumed_in_any_other_way(make_config, tmp_path):
    config = make_config("grpo", out=tmp_path / "straight")
    (expected,) = in_ranks(1, straight, config)
    in_ranks(4, start, make_config("grpo", shard_size=2))
    offloaded = {"policy_offload": True, "reference_offload": True}
    for settings in ({"shard_size": 1}, offloaded):
        for found in in_ranks(2, go_on, make_config("grpo", **settings)):
            assert_alike(found, expected)


def test_checkpoints_and_model_of_one_rank_and_of_two_have_the_same_bytes(make_config, tmp_path):
    def work(where, config):
        run = Run(where, config)
        run.checkpoints.saved_step = -1
        run.checkpoints.save(0)
        save_trained(config.out, run.policy, config.model, where)

    outs = [tmp_path / "one", tmp_path / "two"]
    for size, out in enumerate(outs, start=1):
        in_ranks(size, work, make_config("ppo", out=out))
    for folder in ("model", "checkpoints/step-000000"):
        files = [{f.relative_to(out) for f in (out / folder).rglob("*.*")} for out in outs]
        assert files[0] == files[1]
        assert len(files[0]) >= 5
        for file in files[0]:
            assert (outs[0] / file).read_bytes() == (outs[1] / file).read_bytes(), file


def in_small_files(where, config):
    """A checkpoint after step 1 and one after step 2, each of many files."""
    shards.MAX_BYTES = 20_000
    run = Run(where, config)
    for _ in range(2):
        run.go(1)
        run.checkpoints.save(run.step)


def harmed(path, harm, folder):
    """A copy of a run whose newest checkpoint is damaged."""
    shutil.copytree(path, folder)
    newest = folder / "checkpoints" / "step-000002"
    for victim in newest.glob(harm.partition(" ")[2]):
        if harm.startswith("flip"):
            victim.write_bytes(flipped(victim.read_bytes(), 100))
        else:
            victim.unlink()
    return folder


def test_a_damaged_checkpoint_is_passed_over_by_all_ranks(make_config, tmp_path, caplog):
    config = make_config("grpo")
    in_ranks(2, in_small_files, config)
    newest = config.out / "checkpoints" / "step-000002"
    assert len(list(newest.glob("optimizer-*.safetensors"))) > 4
    assert len(list(newest.glob("model/model-*.safetensors"))) > 2
    harms = [
        "flip optimizer-00002*", "remove optimizer-00003*", "flip model/model-00001*",
        "remove model/model-00002*", "flip model/*index.json", "remove state.json",
    ]  # fmt: skip
    runs = [harmed(config.out, harm, tmp_path / f"{i}") for i, harm in enumerate(harms)]

    def work(where):
        return [latest_checkpoint(run, where=where) for run in [config.out, *runs]]

    expected = work(OneProcess(torch.device("cpu")))
    assert expected == [(newest, 2)] + [(run / "checkpoints/step-000001", 1) for run in runs]
    assert caplog.text.count("; the checkpoint is passed over") == len(harms)
    assert in_ranks(2, work) == [expected, expected]


def kill_self(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while(where, config, moment):
    """Saves the checkpoint of step 2; a rank is killed at some moment of it."""
    shards.MAX_BYTES = 20_000
    run = Run(where, config)
    assert run.step == 1
    run.go(1)
    rename = os.replace

    def rename_and_die(source, target):
        rename(source, target)
        if Path(target).name == "step-000002":
            kill_self()

    if moment == "rank 1 writes" and where.rank == 1:
        shards.save_file = kill_self
    if moment == "rank 0 renames" and where.is_first:
        files.os.replace = kill_self
    if moment == "rank 0 has renamed" and where.is_first:
        files.os.replace = rename_and_die
    run.checkpoints.save(run.step)


def finish(where, config):
    """Goes on to step 3; nothing that was left unfinished is there any more."""
    run = Run(where, config)
    assert not list((config.out / "checkpoints").glob(".*"))
    return run.go(3 - run.step)[-1:], run.weights()


def test_a_rank_killed_while_it_saves_leaves_the_old_checkpoint_or_the_new(make_config, tmp_path):
    config = make_config("grpo")
    in_ranks(2, start, config)
    expected = in_ranks(1, finish, copied(config, tmp_path / "undisturbed"))[0]
    for moment in ("rank 1 writes", "rank 0 renames", "rank 0 has renamed"):
        mine = copied(config, tmp_path / moment)
        killed_ranks(2, kill_while, mine, moment)
        names = [path.name for path in (mine.out / "checkpoints").iterdir()]
        is_new = moment == "rank 0 has renamed"
        assert ("step-000002" in names) == is_new, moment
        assert any(name.startswith(".unfinished-") for name in names) != is_new, moment
        assert_alike(in_ranks(1, finish, mine)[0], expected)


def copied(config, out):
    """The config of a copy of a run."""
    shutil.copytree(config.out, out)
    return config.model_copy(update={"out": out})


def save_on_a_full_disk(where, config, full):
    """Saves the checkpoint of step 2, where one rank can write no more than small files."""
    shards.MAX_BYTES = 20_000
    run = Run(where, config)
    run.go(1)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if where.rank == full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    with pytest.raises(UserError, match=r"cannot write .*step-000002: File too large"):
        run.checkpoints.save(run.step)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    where.barrier()
    left = sorted(path.name for path in (config.out / "checkpoints").iterdir())
    where.barrier()
    run.checkpoints.save(run.step)  # with room again
    return left, latest_checkpoint(config.out, where=where)[1]


def test_a_full_disk_on_one_rank_ends_saving_on_all(make_config):
    config = make_config("grpo")
    in_ranks(2, start, config)
    for full in (0, 1):
        assert in_ranks(2, save_on_a_full_disk, config, full) == [(["step-000001"], 2)] * 2
        shutil.rmtree(config.out / "checkpoints" / "step-000002")


def train_and_export(where, config):
    shards.MAX_BYTES = 20_000
    run = Run(where, config)
    run.go(1)
    save_trained(config.out, run.policy, config.model, where)
    return run.weights()


def test_the_trained_model_is_the_gathered_weights(make_config):
    config = make_config("grpo")
    weights, _ = in_ranks(2, train_and_export, config)
    assert len(list((config.out / "model").glob("*.safetensors"))) > 2
    loaded = AutoModelForCausalLM.from_pretrained(config.out / "model").state_dict()
    assert all(torch.equal(loaded[name], values) for name, values in weights.items())


def test_a_trained_adapter_is_the_gathered_one_and_is_merged(make_config):
    config = make_config("lora")
    weights, _ = in_ranks(2, train_and_export, config)
    adapter = load_file(config.out / "adapter" / "adapter_model.safetensors")
    assert adapter.keys() == {name.replace(".default", "") for name in weights}
    assert all(torch.equal(adapter[n.replace(".default", "")], w) for n, w in weights.items())
    folders = (config.out / "model", config.model)
    loaded, base = (AutoModelForCausalLM.from_pretrained(each).state_dict() for each in folders)
    name = "model.layers.0.self_attn.q_proj"
    down, up = (weights[f"base_model.model.{name}.lora_{x}.default.weight"] for x in "AB")
    assert up.abs().max() > 0
    merged = base[f"{name}.weight"] + 2 * up @ down
    assert torch.allclose(loaded[f"{name}.weight"], merged, rtol=0, atol=1e-7)
