"""Curiosity modules with networks: learning, every kind of space, and exact saving."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from made_up import FOUR, LINE, A, B, C, made, steps
from stable_baselines3 import PPO

from astray.agents import RND, EpisodicCounts, LifelongCounts, Transitions, vec_env, with_rewards
from astray.agents.disagreement import Disagreement
from astray.agents.e3b import E3B
from astray.agents.icm import ICM
from astray.agents.ngu import NGU
from astray.agents.noveld import NovelD
from astray.agents.pseudo_counts import PseudoCounts
from astray.agents.re3 import RE3
from astray.agents.reading import as_rows
from astray.agents.ride import RIDE
from astray.envs.text import TextBytes, TextChoices
from astray.experiments.checkpoint import put_together, take_apart

LEARNED = [RND, ICM, Disagreement, NovelD, RIDE, PseudoCounts, NGU, E3B]
MODULES = [LifelongCounts, EpisodicCounts, RE3, *LEARNED]
OBSERVATIONS = {
    "planes": spaces.Box(0, 1, (5, 5, 5), np.uint8),
    "box": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "image": spaces.Box(0, 255, (40, 36, 3), np.uint8),
    "discrete": spaces.Discrete(6),
    "multi": spaces.MultiDiscrete([3, 4]),
}
ACTIONS = {
    "discrete": FOUR,
    "from 2": spaces.Discrete(3, start=2),
    "multi": spaces.MultiDiscrete([2, 3]),
    "box": spaces.Box(-2, 2, (2,), np.float32),
    "box of one": spaces.Box(-1, 1, (1,), np.float32),
    "binary": spaces.MultiBinary(3),
}


def sampled(observation_space, action_space, count, step=0, seed=0):
    """A step of random observations and actions in each environment."""
    for space in (observation_space, action_space):
        space.seed(seed)
    before, after, acts = (
        np.stack([np.asarray(space.sample()) for _ in range(count)])
        for space in (observation_space, observation_space, action_space)
    )
    return steps(before, after, step, acts)


@pytest.mark.parametrize("observations", OBSERVATIONS)
@pytest.mark.parametrize("module", MODULES)
def test_every_observation_and_batch(module, observations):
    space = OBSERVATIONS[observations]
    for count in (1, 3):
        one = made(module, space, num_envs=count)
        for step in range(3):
            at = sampled(space, FOUR, count, step, seed=step)
            bonus = one.bonus(at)
            assert bonus.shape == (count,) and bonus.dtype == np.float64
            assert np.isfinite(bonus).all() and (bonus >= 0).all()
            one.observe(at)
            told = one.update(at)
            assert all(np.isfinite(value) for value in told.values())


@pytest.mark.parametrize("module", MODULES)
def test_dicts_and_texts_with_choices(module):
    parts = spaces.Dict({"where": LINE, "key": spaces.Discrete(3)})
    for space in (parts, TextChoices(12, 3, 4)):
        space.seed(0)
        drawn = [space.sample() for _ in range(4)]
        rows_of = as_rows({key: np.stack([np.asarray(one[key]) for one in drawn]) for key in drawn[0]}, space)
        rows_of = rows_of & 127 if rows_of.dtype == np.uint8 else rows_of  # ASCII
        one, at = made(module, space), steps(rows_of[:2], rows_of[2:])
        assert np.isfinite(one.bonus(at)).all()
        one.observe(at), one.update(at)
        assert np.isfinite(one.bonus(at)).all()


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("module", [ICM, Disagreement, RIDE, NGU, E3B])
def test_every_action(module, actions):
    one = made(module, action_space=ACTIONS[actions], num_envs=5)
    at = sampled(LINE, ACTIONS[actions], 5)
    losses = [sum(one.update(at).values()) for _ in range(60)]
    assert np.isfinite(one.bonus(at)).all() and losses[-1] < losses[0]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("observation", ["planes", "bytes"])
def test_in_ppo(module, observation):
    envs = with_rewards(
        vec_env("cheese-corner", 4, observation=observation), intrinsic={"new": module(0.01)}, update_every=64
    )
    PPO("MlpPolicy", envs, n_steps=32, batch_size=64, n_epochs=1, device="cpu", seed=0).learn(128)
    *_, infos = envs.step(np.zeros(4, int))
    assert all(np.isfinite(info["rewards"]["new"]) for info in infos)


@pytest.mark.parametrize("module", MODULES)
def test_the_same_again_and_again_loses_its_bonus(module):
    one = made(module)
    for seed in range(1, 4):  # something to be near to, and to have a spread of
        one.observe(sampled(LINE, FOUR, 2, seed=seed))

    def same(step):
        return steps([A, B], [B, C], step, [1, 2])

    first = raw_bonus(one, same(0))
    for _ in range(1 if one.episodic else 200):
        for step in range(30 if one.episodic else 1):
            one.observe(same(step))
        if not one.episodic:
            one.update(Transitions.joined([same(0)] * 8))
    last = raw_bonus(one, same(30))
    assert (last <= 0.5 * first + 1e-6).all() and first.max() > 0


def raw_bonus(module, transitions):
    """The bonus without its scale, which sinks together with it."""
    scale = getattr(module, "scale", None)
    return module.bonus(transitions) * (scale.spread if scale else 1)


def test_features_do_not_collapse():
    rng = np.random.default_rng(0)
    module = made(ICM, OBSERVATIONS["planes"], num_envs=16)
    moves = np.array([-5, 5, -1, 1])

    def walk():
        cells, acts = rng.integers(5, 20, 16), rng.integers(4, size=16)
        boards = np.zeros((2, 16, 125), np.uint8)
        boards[0, np.arange(16), cells] = boards[1, np.arange(16), cells + moves[acts]] = 1
        return steps(*boards.reshape(2, 16, 5, 5, 5), actions=acts)

    first = None
    for _ in range(300):
        at = walk()
        module.observe(at)
        told = module.update(at)
        first = first or told
    assert first["feature_spread"] > 0.2 and told["feature_spread"] > 0.5 * first["feature_spread"]
    assert told["inverse"] < 0.2 < first["inverse"] and told["forward"] < first["forward"]


@pytest.mark.parametrize("module", MODULES)
def test_save_load_continue_is_exact(module):
    rng = np.random.default_rng(1)
    path = rng.uniform(-1, 1, (25, 2, 3)).astype(np.float32)
    walked = [steps(path[i], path[i + 1], i % 9, rng.integers(4, size=2)) for i in range(24)]

    def go(one, part):
        paid = []
        for at in part:
            paid.append(one.bonus(at))
            one.observe(at)
        one.update(Transitions.joined(part))
        return paid

    random_states = torch.get_rng_state(), np.random.get_state()[1].copy()
    whole, restored = made(module, seed=3), made(module, seed=4)
    go(whole, walked[:6]), go(whole, walked[6:12])
    tensors, arrays = {}, {}
    saved = take_apart(whole.state_dict(), "module", tensors, arrays)
    go(whole, walked[12:18])
    restored.load_state_dict(put_together(saved, tensors, arrays))
    go(restored, walked[12:18])
    assert np.array_equal(go(whole, walked[18:]), go(restored, walked[18:]))
    assert np.array_equal(whole.bonus(walked[0]), restored.bonus(walked[0]))
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert np.array_equal(random_states[1], np.random.get_state()[1])


@pytest.mark.parametrize("module", [one for one in MODULES if one.episodic])
def test_an_episode_begins_anew_and_environments_are_apart(module):
    rng = np.random.default_rng(2)
    path = rng.uniform(-1, 1, (6, 2, 3)).astype(np.float32)
    alike, other = made(module, num_envs=3), made(module, num_envs=3)
    for step in range(5):  # the episodes before happen in environments 0 and 1, or in 2 and 1
        at = steps(path[step], path[step + 1], step, environments=[0, 1])
        alike.observe(at)
        other.observe(steps(path[step], path[step + 1], step, environments=[2, 1]))
    for step in range(3):
        at = steps(path[4 - step], path[3 - step], [step, step + 5], environments=[0, 1])
        assert np.array_equal(alike.bonus(at), other.bonus(at))
        alike.observe(at), other.observe(at)


# ---------------------------------------------------------------- texts, and arguments
def rows(texts, length=16):
    return np.stack([np.frombuffer(text.encode().ljust(length, b"\0"), np.uint8) for text in texts])


@pytest.mark.parametrize("module", [RE3, *LEARNED])
def test_embeddings_of_texts_are_asked_for_once(module):
    asked = []

    def embed(texts):
        asked.extend(texts)
        return torch.tensor([[len(text), text.count("e"), 1.0] for text in texts])

    one = made(module, TextBytes(16), num_envs=2, embed=embed)
    assert one.read.size == 3
    at = steps(rows(["a tree", "a tree"]), rows(["the sea", "a tree"]))
    for _ in range(3):
        one.bonus(at), one.observe(at), one.update(at)
    assert sorted(asked) == ["a tree", "text", "the sea"]
    np.testing.assert_array_equal(one.read.numbers(rows(["the sea"])), [[7, 2, 1]])


def test_wrong_embeddings():
    for embed, message in (
        (lambda texts: np.zeros(len(texts)), r"embed gave shape \(1,\)"),
        (lambda texts: np.full((len(texts), 2), np.nan), "not finite for 'text'"),
    ):
        with pytest.raises(ValueError, match=message):
            made(RND, TextBytes(16), embed=embed)
    with pytest.raises(ValueError, match="embed reads texts"):
        made(RE3, LINE, embed=lambda texts: np.zeros((len(texts), 2)))


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (RND, {"learning_rate": 0}, "learning_rate=0 must be positive"),
        (ICM, {"features": 0}, "features=0 must be positive"),
        (Disagreement, {"models": 1}, "models=1 must be at least 2"),
        (NovelD, {"alpha": 1.5}, "alpha=1.5 must lie in 0..1"),
        (NGU, {"k": 0}, "k=0 must be positive"),
        (RE3, {"k": 5, "memory": 4}, "memory=4 must hold at least k=5"),
        (E3B, {"ridge": 0.0}, "ridge=0.0 must be positive"),
    ],
)
def test_wrong_arguments(module, arguments, message):
    with pytest.raises(ValueError, match=message):
        module(**arguments)


@pytest.mark.parametrize("module", [EpisodicCounts, LifelongCounts, NovelD, RIDE])
def test_what_is_counted_can_be_chosen(module):
    one = made(module, key=lambda observations: np.round(observations), num_envs=1)
    at, near = np.array([[0.1, 0.1, 0.1]], np.float32), np.array([[0.2, 0.1, 0.3]], np.float32)
    one.observe(steps(at, near))
    if isinstance(one, NovelD):
        assert one.bonus(steps(at, near + 0.1, 1))[0] == 0
    elif isinstance(one, LifelongCounts):
        assert one.bonus(steps(at, near + 0.1, 1))[0] == pytest.approx(1 / 2**0.5)
    else:
        visits = one.visited.visits(steps(at, near + 0.1, 1))
        assert visits[0] == 3
