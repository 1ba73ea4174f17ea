"""Controls by hand: noise of the same size, entropy without novelty, and bonuses that are taken back."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up
from stable_baselines3 import A2C, DQN, PPO

from astray.agents import RND, Annealed, Curiosity, EpisodicCounts, LifelongCounts, vec_env, with_rewards
from astray.agents.controls import ActionEntropy, MatchedNoise
from astray.agents.policy_invariant import PolicyInvariant
from astray.envs import InputError
from astray.experiments.checkpoint import put_together, take_apart

SPACES = spaces.Discrete(100), spaces.Discrete(4)


class Given(Curiosity):
    """Pays what the next observation says."""

    def bonus(self, transitions):
        return np.asarray(transitions.next_observations, float)

    def update(self, transitions):
        self.updated = len(transitions)
        return {"steps": float(len(transitions))}


def at(bonuses, step=0, episode=0, **ends):
    """A step of some environments in which ``Given`` pays these bonuses."""
    same = np.ones(len(bonuses), int)
    return made_up(same, bonuses, episodes=episode * same, steps=step * same, **ends)


def ready(module, num_envs=2):
    module.setup(*SPACES, num_envs)
    return module


# ---------------------------------------------------------------- noise
def test_noise_has_the_mean_and_spread_of_the_other_module_so_far():
    noise = ready(MatchedNoise(Given()))
    assert (noise.bonus(at([7, 8])) == 0).all()
    noise.observe(at([1, 3]))  # mean 2, spread 1
    many = made_up(
        np.zeros(20_000), np.zeros(20_000), environments=np.arange(20_000) % 100, steps=np.arange(20_000) // 100
    )
    paid = noise.bonus(many)
    assert paid.mean() == pytest.approx(2, abs=0.03) and paid.std() == pytest.approx(1, abs=0.02)
    assert paid.min() >= 2 - 3**0.5 and paid.max() <= 2 + 3**0.5
    rows = paid.reshape(200, 100) - 2
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.03  # from step to step
    assert abs(np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]) < 0.03  # between environments
    noise.observe(at([2, 6], step=1))
    faded = np.exp(-2 / MatchedNoise.memory)
    bonuses, counts = np.array([1, 3, 2, 6]), np.array([faded, faded, 1, 1])
    mean = np.average(bonuses, weights=counts)
    spread = np.sqrt(np.average((bonuses - mean) ** 2, weights=counts))
    paid = noise.bonus(many)
    np.testing.assert_allclose(paid - mean, rows.ravel() * spread, atol=1e-9)


def test_noise_says_nothing_of_what_was_done_and_depends_on_the_moment_alone():
    noise = ready(MatchedNoise(Given(), seed=5))
    noise.observe(at([1, 3]))
    one = noise.bonus(at([4, 4], step=3, episode=2))
    assert (noise.bonus(at([9, 0], step=3, episode=2)) == one).all()
    rows = [noise.bonus(at([9, 0], step=3, episode=2)[slice(row, row + 1)])[0] for row in range(2)]
    assert rows == one.tolist()
    others = [at([4, 4], step=4, episode=2), at([4, 4], step=3, episode=3)]
    assert all((noise.bonus(other) != one).all() for other in others)
    other_seed = ready(MatchedNoise(Given(), seed=6))
    other_seed.observe(at([1, 3]))
    assert (other_seed.bonus(at([4, 4], step=3, episode=2)) != one).all()


def test_the_other_module_learns_as_it_would_alone():
    alone, inside = ready(RND(seed=1)), RND(seed=1)
    noise = ready(MatchedNoise(inside))
    for step in range(3):
        for module in (alone, noise):
            module.observe(at([step, 3], step=step))
        assert alone.update(at([1, 2])) == noise.update(at([1, 2]))
    assert (alone.bonus(at([5, 6])) == inside.bonus(at([5, 6]))).all()


def test_a_wrapper_takes_the_weight_of_its_module_unless_it_has_its_own():
    weight = Annealed(1.0, 0.0, 100)
    assert MatchedNoise(Given(weight)).weight is weight
    assert MatchedNoise(Given(weight), weight=0.5).weight == 0.5
    assert PolicyInvariant(Given(0.25), 0.9).weight == 0.25


# ---------------------------------------------------------------- entropy
def test_action_entropy_by_hand():
    module = ready(ActionEntropy())
    steps = made_up([7, 7, 8], [1, 2, 3], [0, 1, 0])
    np.testing.assert_allclose(module.bonus(steps), np.log(4))
    module.observe(steps)
    module.observe(steps)
    # at 7: actions 0 and 1 twice each, and one of each from the beginning; at 8: action 0 twice
    asked = made_up([7, 7, 8, 8, 9], [1, 1, 1, 1, 1], [0, 3, 0, 2, 2])
    np.testing.assert_allclose(module.bonus(asked), -np.log([3 / 8, 1 / 8, 3 / 6, 1 / 6, 1 / 4]))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30))
def test_action_entropy_pays_nothing_for_what_is_come_to(done):
    module = ready(ActionEntropy())
    for number, (state, action) in enumerate(done):
        module.observe(made_up([state], [number % 100], [action]))
    everywhere = [module.bonus(made_up([1] * 4, [where] * 4, range(4))) for where in (1, 50)]
    assert (everywhere[0] == everywhere[1]).all()
    assert np.exp(-everywhere[0]).sum() == pytest.approx(1)  # frequencies
    assert (np.exp(-everywhere[0]) * everywhere[0]).sum() <= np.log(4) + 1e-12


def test_action_entropy_counts_by_a_key_from_any_first_action():
    module = ActionEntropy(key=lambda seen: np.round(seen))
    module.setup(spaces.Box(-9, 9, (1,)), spaces.Discrete(2, start=-1), 1)
    module.observe(made_up(np.array([[0.1]]), np.array([[0.0]]), [-1]))
    again = made_up(np.array([[-0.2], [-0.2]]), np.zeros((2, 1)), [-1, 0])
    np.testing.assert_allclose(module.bonus(again), -np.log([2 / 3, 1 / 3]))
    with pytest.raises(InputError, match="ActionEntropy counts actions, so they must be Discrete, not Box"):
        ActionEntropy().setup(spaces.Discrete(3), spaces.Box(-1, 1, (1,)), 1)


# ---------------------------------------------------------------- taken back
def paid_in_order(module, bonuses):
    """What a module around ``Given`` pays in one episode of one environment that ends after these bonuses."""
    paid = []
    for step, bonus in enumerate(bonuses):
        now = at([bonus], step, terminated=[step == len(bonuses) - 1])
        paid.append(module.bonus(now)[0])
        module.observe(now)
    return np.array(paid)


def test_what_was_paid_is_taken_back_at_the_end_by_hand():
    module = ready(PolicyInvariant(Given(), discount=0.5), 1)
    # 4 and 2 are paid; at the end, two and one steps later, they have to be taken back as 4 / 0.25 and 2 / 0.5
    assert paid_in_order(module, [4, 2, 10]).tolist() == [4, 2, -20]
    assert paid_in_order(module, [4]).tolist() == [0]  # nothing left over of the episode before
    assert paid_in_order(module, [1, 1]).tolist() == [1, -2]


def test_taken_back_every_so_many_steps_by_hand():
    module = ready(PolicyInvariant(Given(), discount=0.5, every=3), 1)
    assert paid_in_order(module, [4, 2, 10, 1, 1, 9, 3]).tolist() == [4, 2, -20, 1, 1, -6, 0]


bonus_lists = st.lists(st.floats(0, 10), min_size=1, max_size=25)


@given(bonus_lists, st.floats(0.7, 1), st.none() | st.integers(2, 9))
def test_the_discounted_sum_of_an_episode_is_0(bonuses, discount, every):
    module = ready(PolicyInvariant(Given(), discount, every), 1)
    paid = paid_in_order(module, bonuses)
    assert (discount ** np.arange(len(paid)) * paid).sum() == pytest.approx(0, abs=1e-9)
    assert np.abs(paid).max() <= 10 * len(paid) * discount ** -(every or len(paid))


def test_environments_and_episodes_are_taken_back_apart():
    module = ready(PolicyInvariant(Given(), 0.5))
    now = at([1, 4])
    module.observe(now)
    cut = at([9, 2], 1, truncated=[True, False])
    assert module.bonus(cut).tolist() == [-2, 2]  # cut off: taken back as well
    module.observe(cut)
    mixed = made_up([1, 1], [3, 0], steps=[0, 2], episodes=[1, 0], terminated=[False, True])
    assert module.bonus(mixed).tolist() == [3, -(4 / 0.25 + 2 / 0.5)]
    again = made_up([1, 1], [5, 5], steps=[0, 0], episodes=[2, 1], terminated=[True, True])
    assert module.bonus(again).tolist() == [0, 0]  # a reset in the middle of an episode leaves no debts


def test_what_taking_back_refuses():
    with pytest.raises(InputError, match=r"discount=0 must lie in \(0, 1\]"):
        PolicyInvariant(Given(), 0)
    with pytest.raises(InputError, match="every=1 must be at least 2"):
        PolicyInvariant(Given(), 0.9, every=1)
    with pytest.raises(InputError, match="weight must be a number"):
        PolicyInvariant(Given(Annealed(1, 0, 10)), 0.9)
    module = ready(Given())
    with pytest.raises(InputError, match="already belongs to environments"):
        ready(PolicyInvariant(module, 0.9))


# ---------------------------------------------------------------- all
MODULES = {
    "noise": lambda: MatchedNoise(RND(seed=2), seed=4),
    "entropy": lambda: ActionEntropy(),
    "taken back": lambda: PolicyInvariant(EpisodicCounts(), 0.95, every=4),
    "taken back RND": lambda: PolicyInvariant(RND(seed=2), 0.95),
    "noise of taken back": lambda: MatchedNoise(PolicyInvariant(LifelongCounts(), 0.95)),
}


def played(envs, steps, first=0):
    """What some environments pay for a fixed row of actions."""
    numbers = np.arange(envs.num_envs)
    return [envs.step((numbers + step // 2) % 4)[1].tolist() for step in range(first, first + steps)]


def make(name):
    envs = with_rewards(
        vec_env("cheese-corner", 3, observation="planes"), "0", {name: MODULES[name]()}, update_every=30
    )
    envs.seed(1)
    return envs


@pytest.mark.parametrize("name", MODULES)
def test_saved_and_restored_exactly(name):
    envs, fresh = make(name), make(name)
    envs.reset()
    played(envs, 47)
    tensors, arrays = {}, {}
    plain = take_apart(envs.get_state(), "state", tensors, arrays)
    fresh.reset()
    fresh.set_state(put_together(plain, tensors, arrays))
    assert played(envs, 40, 47) == played(fresh, 40, 47)


@pytest.mark.parametrize("name", MODULES)
def test_a_bonus_changes_nothing(name):
    envs = make(name)
    envs.reset()
    played(envs, 25)
    module, steps = envs.rewards.intrinsic[name], envs.rewards._buffer[-1]
    before = repr(module.state_dict())
    assert (module.bonus(steps) == module.bonus(steps)).all()
    assert repr(module.state_dict()) == before


@pytest.mark.parametrize("name", MODULES)
def test_each_row_is_paid_by_itself(name):
    envs = make(name)
    envs.reset()
    played(envs, 25)
    module, steps = envs.rewards.intrinsic[name], envs.rewards._buffer[-1]
    rows = [module.bonus(steps[slice(row, row + 1)])[0] for row in range(3)]
    np.testing.assert_allclose(rows, module.bonus(steps), rtol=1e-6)


@pytest.mark.parametrize("algorithm", [PPO, A2C, DQN])
def test_all_of_them_train(algorithm):
    envs = vec_env("cheese-corner", 1, observation="planes")
    envs = with_rewards(envs, intrinsic={name: module() for name, module in MODULES.items()}, update_every=32)
    settings = dict(n_steps=16) if algorithm is not DQN else dict(learning_starts=20)
    settings |= dict(batch_size=16) if algorithm is PPO else {}
    algorithm("MlpPolicy", envs, seed=0, device="cpu", **settings).learn(64)
    assert envs.rewards.metrics.keys() == {"noise/loss", "taken back RND/loss"}
