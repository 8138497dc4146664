import pytest
import torch

from astarpo.algorithms.ppo import PPO
from astarpo.models.batch import collate
from astarpo.models.critic import critic_values, load_critic, restore_critic, save_critic
from astarpo.runtime.stopwatch import Stopwatch
from astarpo.training.learner import Learner
from astarpo.types import UserError
from tests.training.test_learner import make_answers, make_config, trainable_copy

CPU = torch.device("cpu")
PPO_DEFAULTS = PPO(clip=0.2, kl_coef=0.0, gae_gamma=1.0, gae_lambda=1.0, value_clip=0.5)


@pytest.fixture
def critic(policy_path):
    return load_critic(str(policy_path), CPU)


def stir(critic):
    """Gives the head, which starts at 0, something to say."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        critic.score.weight += torch.randn(critic.score.weight.shape, generator=generator)


def test_says_0_before_it_has_learnt_anything(critic):
    batch = collate([[5, 6, 7]], [[8, 9]], 0, CPU)
    assert critic_values(critic, batch).tolist() == [[0.0, 0.0]]


def test_a_value_depends_on_what_stands_before_its_token_alone(critic):
    stir(critic)
    with torch.no_grad():
        long = critic_values(critic, collate([[5, 6, 7]], [[8, 9, 10]], 0, CPU))
        other = critic_values(critic, collate([[5, 6, 7]], [[8, 9, 20]], 0, CPU))
        padded = collate([[5, 6, 7], [1] * 9], [[8, 9, 10], [2] * 5], 0, CPU)
        among = critic_values(critic, padded)
    assert torch.equal(long, other)
    assert torch.allclose(among[0, :3], long[0], atol=1e-5)
    assert len(set(long[0].tolist())) == 3


def test_learns_the_returns_of_its_policy(policy, critic):
    answers = make_answers(policy)
    config = make_config(algorithm="ppo", minibatches=1, critic_lr=3e-3, lr=1e-6)
    trained = trainable_copy(policy)
    learner = Learner(trained, policy, PPO_DEFAULTS, config, temperature=1.0, critic=critic)
    errors = [learner.update(answers, 1.0, Stopwatch())["critic_error"] for _ in range(30)]
    # A third of the answers is right: at first the critic says 0, so it is wrong by 1 there.
    assert errors[0] == pytest.approx(1 / 3)
    assert errors[-1] < 0.1


def test_weights_survive_the_disk(critic, policy_path, tmp_path):
    stir(critic)
    save_critic(tmp_path, critic)
    again = load_critic(str(policy_path), CPU)
    restore_critic(tmp_path, again)
    for name, weight in critic.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])


def test_a_folder_without_weights_cannot_be_a_critic(tmp_path):
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="the critic does not load"):
        load_critic(str(tmp_path), CPU)
