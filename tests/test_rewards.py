"""Rewards: expressions, hand-computed components, the world's own reward untouched, and curiosity in plain PPO."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env

from astray.agents import RND, Transitions, vec_env, with_rewards
from astray.envs.rewards import parse_reward

WORLD = "astray/CheeseCorner-v0"
LEVEL = "X....\n.....\nA....\n.....\n..C..\nfirst: corner"  # corner 2 north; cheese 2 south, 2 east
NORTH, SOUTH, WEST, EAST = range(4)


def on_level(level=LEVEL, **rewards):
    """One environment that stands on a given level."""
    envs = with_rewards(vec_env("cheese-corner", 1, observation="planes", shift=1.0), **rewards)
    envs.reset()
    world = envs.venv.world
    world.set_levels(world.parse_level(level))
    envs._observations = world.observe()
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
        assert info["rewards"] == {"world": world, "extrinsic": pytest.approx(expected - 0.01)}
    assert done[0] and info["episode"]["r"] == 1.0
    assert not any(visited[0] for visited in envs._visited.values())


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
        ones = np.ones(len(cells))
        over = np.zeros(len(cells), bool)
        return Transitions(planes, ones.astype(int), planes, over, over, ones, {}, ones.astype(int))

    for _ in range(300):
        step = at(rng.integers(12, size=16))
        module.observe(step)
        module.update([step])
    known, new = module.bonus(at(np.arange(12))), module.bonus(at(np.arange(12, 25)))
    assert known.max() < new.min() and known.mean() < 0.1 * new.mean()


def test_bonus_has_no_side_effect_and_state_is_restored():
    envs = with_rewards(vec_env(WORLD, 4, observation="planes"), intrinsic={"rnd": RND(0.1)}, update_every=64)
    random_state = torch.get_rng_state()
    steps = []
    envs._extrinsic = lambda t: steps.append(t) or t.rewards
    envs.reset()
    for _ in range(40):
        envs.step(np.random.default_rng(0).integers(4, size=4))
    assert torch.equal(random_state, torch.get_rng_state())
    module, copy = envs.intrinsic["rnd"], RND(0.1)
    first = module.bonus(steps[0])
    assert (module.bonus(steps[0]) == first).all()
    copy.load_state_dict(module.state_dict())
    for each in (module, copy):
        each.observe(steps[1])
        each.update(steps[1:3])
    assert (copy.bonus(steps[0]) == module.bonus(steps[0])).all()
    assert (module.bonus(steps[0]) != first).any()
    assert set(envs.metrics) == {"rnd/loss"}


def test_ppo_trains_the_module_and_components_add_up():
    envs = with_rewards(vec_env(WORLD, 8, observation="planes"), "cheese - 0.01*step", {"rnd": RND(0.1)})
    PPO("MlpPolicy", envs, n_steps=64, batch_size=128, device="cpu", seed=0).learn(1024)
    assert envs.metrics["rnd/loss"] > 0
    _, rewards, _, infos = envs.step(np.zeros(8, int))
    for reward, info in zip(rewards, infos, strict=True):
        parts = info["rewards"]
        assert reward == pytest.approx(parts["extrinsic"] + parts["rnd"], abs=1e-6) and parts["rnd"] > 0


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
