"""Checkpoints of runs whose models several processes share: whoever saved them, anyone goes on."""

import pytest

from astarpo.config import TrainConfig
from astarpo.engines import open_engine
from astarpo.engines.base import Request
from astarpo.models.sharded import whole
from astarpo.rundir.writer import RunLog
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.checkpoint import Checkpoints
from astarpo.training.inputs import open_inputs
from astarpo.training.opening import open_learner
from astarpo.training.schedule import step_prompts
from astarpo.types import Answer, Verdict
from tests.support.ranks import NEEDS_RANKS, in_ranks

pytestmark = NEEDS_RANKS

# Each has something of its own in its checkpoints: a critic, values that run along, an adapter.
SETTINGS = {
    "grpo": {"algorithm": "grpo", "group_size": 2},
    "ppo": {"algorithm": "ppo"},
    "spo": {"algorithm": "spo"},
    "lora": {"algorithm": "grpo", "group_size": 2, "lora_rank": 4},
}


@pytest.fixture
def make_config(policy_path, problems_path, tmp_path):
    def make(name, **changes):
        return TrainConfig(
            model=str(policy_path), problems=problems_path, out=tmp_path / "run", steps=3,
            prompts_per_step=6, max_new_tokens=12, engine="hf", lr=1e-4, warmup_steps=1,
            micro_batch_tokens=256, device="cpu", **SETTINGS[name], **changes,
        )  # fmt: skip

    return make


class Run:
    """Training's parts, put together as `stages/train.py` does, with a reward of no meaning."""

    def __init__(self, where, config):
        self.where, self.config = where, config
        self.log = RunLog(config.out, config, resume=(config.out / "config.json").exists())
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
        ("grpo", 1, (1, 2)),
        ("ppo", 2, (1, 3)),
        ("spo", 2, (1,)),
        ("lora", 2, (1, 3)),
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
