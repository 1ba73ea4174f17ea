"""Rewards: expressions, hand-computed components, the world's own reward untouched, and curiosity in plain PPO."""

import json
from collections import Counter, deque

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.vec_env import VecNormalize

from astray.agents import (
    RND,
    Annealed,
    Curiosity,
    EpisodicCounts,
    LifelongCounts,
    LogRewards,
    RewardWrapper,
    Transitions,
    vec_env,
    with_rewards,
)
from astray.envs.rewards import parse_reward
from astray.experiments.checkpoint import put_together, take_apart

WORLD = "astray/CheeseCorner-v0"
LEVEL = "X....\n.....\nA....\n.....\n..C..\nfirst: corner"  # corner 2 north; cheese 2 south, 2 east
NORTH, SOUTH, WEST, EAST = range(4)


def on_level(level=LEVEL, **rewards):
    """One environment that stands on a given level."""
    envs = with_rewards(vec_env("cheese-corner", 1, observation="planes", shift=1.0), **rewards)
    envs.reset()
    world = envs.venv.world
    world.set_levels(world.parse_level(level))
    envs.rewards.started(world.observe())
    return envs


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cheese - 0.01*step", [0.99, -0.01]),
        ("-(cheese + 2*corner)/4", [-0.25, -0.5]),
        ("+3", [3, 3]),
        ("cheese*corner", [0, 0]),
    ],
)
def test_expressions(expression, expected):
    values = {"cheese": np.array([1.0, 0.0]), "corner": np.array([0.0, 1.0]), "step": np.ones(2)}
    reward = parse_reward(expression, tuple(values))(values)
    np.testing.assert_allclose(np.broadcast_to(reward, 2), expected)


@pytest.mark.parametrize(
    "expression",
    [
        "chese",
        "cheese +",
        "__import__('os')",
        "cheese.real",
        "cheese ** 2",
        "cheese if corner else 1",
        "'a'",
        "",
        "f(1)",
    ],
)
def test_what_is_no_expression_is_an_error(expression):
    with pytest.raises(ValueError, match="extrinsic"):
        parse_reward(expression, ("cheese", "corner", "step"))


def test_a_misspelt_name_shows_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'cheese'"):
        with_rewards(vec_env(WORLD, 1), extrinsic="chese - step")


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_expressions_are_arithmetic(a, b):
    names = {"a": np.array([a]), "b": np.array([b])}
    assert parse_reward("a*2 - (b - 3)*-1", ("a", "b"))(names)[0] == a * 2 - (b - 3) * -1


def test_components_by_hand_and_goals_pay_once():
    envs = on_level(extrinsic="cheese + 0.5*corner + 0.25*entered_corner - 0.01*step")
    script = [(NORTH, 0), (NORTH, 0.75), (SOUTH, 0), (NORTH, 0.25)] + [(SOUTH, 0)] * 4 + [(EAST, 0), (EAST, 1)]
    for step, (action, expected) in enumerate(script):
        _, reward, done, (info,) = envs.step(np.array([action]))
        assert reward[0] == pytest.approx(expected - 0.01)
        world = 1.0 if step == len(script) - 1 else 0.0
        paid = pytest.approx(expected - 0.01)
        assert info["rewards"] == {"world": world, "extrinsic": paid, "total": paid}
    assert done[0] and info["episode"]["r"] == 1.0


def test_transitions_hold_the_true_last_observation():
    seen: list[Transitions] = []

    def reward(transitions):
        seen.append(transitions)
        return transitions.rewards

    envs = on_level("AB...\n.....\n.....\n.....\n.....".replace("AB", "BA"), extrinsic=reward)
    observations, _, done, infos = envs.step(np.array([WEST]))
    last = seen[-1]
    assert done[0] and last.terminated[0] and not last.truncated[0]
    assert (last.next_observations[0] == infos[0]["terminal_observation"]).all()
    assert (last.next_observations[0] != observations[0]).any()
    assert last.next_observations[0, 1, 0, 0] == 1  # the agent stands on the cheese
    assert (last.observations[0, 1, 0] == [0, 1, 0, 0, 0]).all()
    envs.step(np.array([WEST]))
    assert (seen[-1].observations == observations).all() and seen[-1].episodes[0] == 1


def test_truncation_is_told_apart():
    seen = []
    envs = on_level(extrinsic=lambda t: seen.append(t) or t.rewards)
    for _ in range(15):
        envs.step(np.array([WEST]))
    assert seen[-1].truncated[0] and not seen[-1].terminated[0]


def test_both_vec_envs_pay_the_same():
    paid = []
    for envs in (vec_env(WORLD, 4), make_vec_env(WORLD, 4, env_kwargs={"observation": "bytes"})):
        envs = with_rewards(envs, extrinsic="corner - 0.5*reached_cheese")
        envs.seed(0)
        envs.reset()
        rng = np.random.default_rng(0)
        paid.append(np.array([envs.step(rng.integers(4, size=4))[1] for _ in range(200)]))
    assert (paid[0] == paid[1]).all() and set(np.unique(paid[0])) == {0, 0.5, 1} - {1}


@pytest.mark.parametrize("algorithm", [PPO, A2C])
def test_the_worlds_reward_alone_is_plain_sb3(algorithm):
    weights = []
    for wrap in (lambda envs: envs, with_rewards):
        envs = wrap(vec_env(WORLD, 8, observation="planes"))
        model = algorithm("MlpPolicy", envs, seed=0, n_steps=16, device="cpu")
        model.learn(512)
        weights.append(torch.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert torch.equal(*weights)


def test_rnd_fades_where_it_was_and_not_elsewhere():
    module = RND(seed=1)
    rng = np.random.default_rng(0)

    def at(cells):
        planes = np.zeros((len(cells), 25), np.uint8)
        planes[np.arange(len(cells)), cells] = 1
        return made_up(planes, planes)

    module.setup(spaces.Box(0, 1, (25,), np.uint8), spaces.Discrete(4), 25)
    for _ in range(300):
        step = at(rng.integers(12, size=16))
        module.observe(step)
        module.update(step)
    known, new = module.bonus(at(np.arange(12))), module.bonus(at(np.arange(12, 25)))
    assert known.max() < new.min() and known.mean() < 0.1 * new.mean()


def test_bonus_has_no_side_effect_and_state_is_restored():
    envs = with_rewards(vec_env(WORLD, 4, observation="planes"), intrinsic={"rnd": RND(0.1)}, update_every=64)
    random_state = torch.get_rng_state()
    steps = []
    envs.rewards._pay = lambda t: steps.append(t) or t.rewards
    envs.reset()
    for _ in range(40):
        envs.step(np.random.default_rng(0).integers(4, size=4))
    assert torch.equal(random_state, torch.get_rng_state())
    module, copy = envs.rewards.intrinsic["rnd"], RND(0.1)
    copy.setup(envs.observation_space, envs.action_space, 4)
    first = module.bonus(steps[0])
    assert (module.bonus(steps[0]) == first).all()
    copy.load_state_dict(module.state_dict())
    for each in (module, copy):
        each.observe(steps[1])
        each.update(Transitions.joined(steps[1:3]))
    assert (copy.bonus(steps[0]) == module.bonus(steps[0])).all()
    assert (module.bonus(steps[0]) != first).any()
    assert set(envs.rewards.metrics) == {"rnd/loss"}


def test_ppo_trains_the_module_and_components_add_up():
    envs = with_rewards(vec_env(WORLD, 8, observation="planes"), "cheese - 0.01*step", {"rnd": RND(0.1)})
    PPO("MlpPolicy", envs, n_steps=64, batch_size=128, device="cpu", seed=0).learn(1024)
    assert envs.rewards.metrics["rnd/loss"] > 0
    _, rewards, _, infos = envs.step(np.zeros(8, int))
    for reward, info in zip(rewards, infos, strict=True):
        parts = info["rewards"]
        assert reward == pytest.approx(parts["extrinsic"] + parts["rnd"], abs=1e-6) and parts["rnd"] > 0
        assert reward == pytest.approx(parts["total"])


def test_any_gymnasium_environment():
    envs = with_rewards(make_vec_env("CartPole-v1", 2), "world - 0.5*step", {"rnd": RND()})
    envs.reset()
    infos = envs.step(np.array([0, 1]))[3]
    assert infos[0]["rewards"]["extrinsic"] == 0.5
    with pytest.raises(ValueError, match="'cheese'"):
        with_rewards(make_vec_env("CartPole-v1", 2), "cheese")


def test_wrong_arguments():
    with pytest.raises(ValueError, match="update_every=0"):
        with_rewards(vec_env(WORLD, 1), update_every=0)
    with pytest.raises(ValueError, match="observation='text'"):
        vec_env(WORLD, 1, observation="text")
    assert gym.make(WORLD).unwrapped.goals == {"cheese": "reached_cheese", "corner": "entered_corner"}


def test_a_single_environment_pays_the_same_and_its_monitor_stays_the_worlds():
    stack = with_rewards(make_vec_env("CartPole-v1", 1, seed=3), "world - 0.5*step", {"counts": LifelongCounts()})
    single = RewardWrapper(gym.make("CartPole-v1"), "world - 0.5*step", {"counts": LifelongCounts()})
    stack.reset()
    single.reset(seed=3)
    for action in (0, 1) * 3:
        paid = single.step(action)
        _, rewards, _, infos = stack.step(np.array([action]))
        assert paid[1] == rewards[0] == 1.5 and paid[4]["rewards"] == infos[0]["rewards"]
    model = PPO("MlpPolicy", single, n_steps=64, device="cpu", seed=0)
    model.learn(128)
    lengths = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer]
    assert lengths and all(world == length for world, length in lengths)


def test_weights_are_annealed_and_the_total_is_clipped():
    weight = Annealed(1.0, 0.0, steps=8)
    envs = with_rewards(vec_env(WORLD, 2, observation="planes"), "3*step", {"one": Constant(weight)}, clip=3.5)
    envs.reset()
    paid = [envs.step(np.zeros(2, int))[1][0] for _ in range(6)]
    assert paid == [3.5, 3.5, 3.5, 3.25, 3.0, 3.0]


class Constant(Curiosity):
    """Pays 1 whatever happens."""

    def bonus(self, transitions):
        return np.ones(len(transitions))


class Written(KVWriter):
    """Keeps what a logger wrote last."""

    def write(self, key_values, key_excluded, step=0):
        self.last = dict(key_values)

    def close(self):
        pass


def test_all_components_reach_the_logger():
    envs = with_rewards(vec_env(WORLD, 4, observation="planes"), "-step", {"one": Constant(0.25), "rnd": RND(0.0)})
    model = PPO("MlpPolicy", envs, n_steps=128, device="cpu", seed=0)
    written = Written()
    model.set_logger(Logger(None, [written]))
    model.learn(512, callback=LogRewards())
    told = {name: value for name, value in written.last.items() if name.startswith(("rewards/", "curiosity/"))}
    assert told.keys() == {f"rewards/{name}" for name in ("world", "extrinsic", "one", "rnd", "total")} | {
        "curiosity/rnd/loss"
    }
    assert told["rewards/extrinsic"] == -1 and told["rewards/one"] == 0.25 and told["rewards/total"] == -0.75


class Unsorted(gym.Env):
    """Tells the parts of its observation in another order than its space."""

    observation_space = spaces.Dict(a=spaces.Box(0, 9, (1,), np.float32), b=spaces.Box(0, 9, (2,), np.float32))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self.told(), {}

    def told(self):
        return {"b": np.array([5, 6], np.float32), "a": np.array([self.steps], np.float32)}

    def step(self, action):
        self.steps += 1
        return self.told(), 0.0, self.steps == 2, False, {}


@pytest.mark.parametrize("single", [False, True])
def test_the_last_of_dict_observations_has_its_parts_in_the_same_order(single):
    seen = []

    def pay(transitions):
        seen.append(transitions)
        return transitions.rewards

    envs = RewardWrapper(Unsorted(), pay) if single else with_rewards(make_vec_env(Unsorted, 1), pay)
    envs.reset()
    for _ in range(2):
        envs.step(1 if single else np.ones(1, int))
    assert [step.next_observations.tolist() for step in seen] == [[[1, 5, 6]], [[2, 5, 6]]]
    assert seen[0].observations.tolist() == [[0, 5, 6]] and seen[1].terminated[0]


def test_dict_observations_reach_modules_as_rows():
    class Both(gym.ObservationWrapper):
        def __init__(self):
            super().__init__(gym.make("CartPole-v1"))
            parts = {"where": self.observation_space, "side": spaces.Discrete(2)}
            self.observation_space = spaces.Dict(parts)

        def observation(self, observation):
            return {"where": observation, "side": int(observation[0] > 0)}

    envs = with_rewards(make_vec_env(Both, 2, seed=0), intrinsic={"rnd": RND(), "counts": EpisodicCounts()})
    assert PPO("MultiInputPolicy", envs, n_steps=64, device="cpu", seed=0).learn(256)
    assert envs.rewards._observations.shape == (2, 5)


def test_rewards_that_are_no_numbers_name_environment_and_step():
    def reward(transitions):
        return np.where((transitions.environments == 2) & (transitions.steps == 3), np.nan, 0.0)

    envs = with_rewards(vec_env(WORLD, 4, observation="planes", shift=1.0), reward)
    envs.seed(1)
    envs.reset()
    for _ in range(3):
        envs.step(np.zeros(4, int))
    with pytest.raises(ValueError, match=r"extrinsic gave nan for environment 2 at step 3 of its episode 0, after 12"):
        envs.step(np.zeros(4, int))
    envs = with_rewards(vec_env(WORLD, 4), lambda transitions: np.zeros((4, 1)))
    envs.reset()
    with pytest.raises(ValueError, match=r"extrinsic gave rewards of shape \(4, 1\): it must be \(4,\)"):
        envs.step(np.zeros(4, int))


def test_wrong_order_and_modules_used_twice_are_refused():
    module = RND()
    envs = with_rewards(vec_env(WORLD, 2, observation="planes"), intrinsic={"rnd": module})
    with pytest.raises(ValueError, match="already belongs to environments"):
        with_rewards(vec_env(WORLD, 2, observation="planes"), intrinsic={"rnd": module})
    with pytest.raises(ValueError, match="name all modules in one"):
        with_rewards(envs, intrinsic={"other": RND()})
    with pytest.raises(ValueError, match="inside of VecNormalize"):
        with_rewards(VecNormalize(vec_env(WORLD, 2, observation="planes")))
    with pytest.raises(ValueError, match="are one module"):
        with_rewards(vec_env(WORLD, 2), intrinsic=dict.fromkeys("ab", RND()))
    with pytest.raises(ValueError, match="cannot be called 'world'"):
        with_rewards(vec_env(WORLD, 2), intrinsic={"world": RND()})
    with pytest.raises(ValueError, match="extrinsic=5 must be an expression"):
        with_rewards(vec_env(WORLD, 2), extrinsic=5)
    with pytest.raises(ValueError, match=r"apart=\['rnd'\]: no module"):
        with_rewards(vec_env(WORLD, 2), apart=["rnd"])
    with pytest.raises(ValueError, match="name all modules in one"):
        RewardWrapper(RewardWrapper(gym.make("CartPole-v1")))
    model = PPO("MlpPolicy", envs, n_steps=64, device="cpu")
    watched = with_rewards(vec_env(WORLD, 1, observation="planes"))
    with pytest.raises(ValueError, match="evaluate on environments without with_rewards"):
        model.learn(64, callback=[EvalCallback(watched), LogRewards()])
    with pytest.raises(ValueError, match="needs environments from with_rewards"):
        PPO("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu").learn(64, callback=LogRewards())


class Keeper(Constant):
    """Remembers in containers of several kinds."""

    def __init__(self):
        super().__init__()
        self.met, self.often, self.lately = set(), Counter(), deque(maxlen=3)

    def observe(self, transitions):
        for key in self.read.keys(transitions.next_observations).tolist():
            self.met.add(key)
            self.often[key] += 1
            self.lately.append(key)


def test_what_a_module_remembers_comes_back_as_what_it_was():
    envs = with_rewards(vec_env(WORLD, 4, observation="planes"), intrinsic={"keeper": Keeper()})
    envs.reset()
    for _ in range(5):
        envs.step(np.zeros(4, int))
    tensors, arrays = {}, {}
    kept = put_together(json.loads(json.dumps(take_apart(envs.get_state(), "state", tensors, arrays))), tensors, arrays)
    other = with_rewards(vec_env(WORLD, 4, observation="planes"), intrinsic={"keeper": Keeper()})
    other.set_state(kept)
    first, second = (stack.rewards.intrinsic["keeper"] for stack in (envs, other))
    assert second.met == first.met and second.lately == first.lately and second.lately.maxlen == 3
    assert second.often == first.often and second.often[-1] == 0


def test_a_checkpoint_keeps_keys_apart():
    tree = {1: np.array([1.0]), "1": np.array([2.0]), "a/b": np.array([3.0]), "a": {"b": np.array([4.0])}}
    tensors, arrays = {}, {}
    again = put_together(take_apart(tree, "state", tensors, arrays), tensors, arrays)
    assert again == tree
    with pytest.raises(TypeError, match=r"has the key \(1, 2\)"):
        take_apart({(1, 2): 3}, "state", tensors, arrays)
