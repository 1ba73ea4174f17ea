"""Curiosity modules with networks: bonuses computed by hand, learning, every kind of space, and exact saving."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up
from stable_baselines3 import PPO

from astray.agents import RND, EpisodicCounts, LifelongCounts, Transitions, vec_env, with_rewards
from astray.agents.disagreement import Disagreement
from astray.agents.e3b import E3B
from astray.agents.icm import ICM
from astray.agents.networks import ReturnScale
from astray.agents.ngu import NGU
from astray.agents.noveld import NovelD
from astray.agents.pseudo_counts import PseudoCounts
from astray.agents.re3 import RE3
from astray.agents.reading import ActionReader, as_rows
from astray.agents.ride import RIDE
from astray.envs.text import TextBytes, TextChoices
from astray.experiments.checkpoint import put_together, take_apart

LEARNED = [RND, ICM, Disagreement, NovelD, RIDE, PseudoCounts, NGU, E3B]
MODULES = [LifelongCounts, EpisodicCounts, RE3, *LEARNED]
FOUR = spaces.Discrete(4)
LINE = spaces.Box(-1.0, 1.0, (3,), np.float32)
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


def steps(before, after, step=0, actions=None, **more):
    """Steps from observations to others, one in each environment."""
    return made_up(before, after, actions, steps=np.full(len(after), step), **more)


def sampled(observation_space, action_space, count, step=0, seed=0):
    """A step of random observations and actions in each environment."""
    for space in (observation_space, action_space):
        space.seed(seed)
    before, after, acts = (
        np.stack([np.asarray(space.sample()) for _ in range(count)])
        for space in (observation_space, observation_space, action_space)
    )
    return steps(before, after, step, acts)


def made(module, observation_space=LINE, action_space=FOUR, num_envs=2, **arguments):
    module = module(**arguments)
    module.setup(observation_space, action_space, num_envs)
    return module


def with_identity(module, observation_space=LINE, num_envs=2, **arguments):
    """A module whose features are the observation's three numbers."""
    module = made(module, observation_space, num_envs=num_envs, features=3, **arguments)
    network = module.network if isinstance(module, RE3) else module.networks
    where = network if isinstance(module, RE3) else network["encoder"]
    with torch.no_grad():
        first, _, last = where
        first.weight.copy_(torch.eye(3)), last.weight.copy_(torch.eye(3))
        first.bias.fill_(10.0), last.bias.fill_(-10.0)  # above 0, ReLU is the identity
    return module


def by_numpy(network, inputs):
    """What a network of linear maps with ReLU between gives, without torch."""
    values = np.asarray(inputs, np.float64)
    for part in network:
        if isinstance(part, torch.nn.Linear):
            values = values @ part.weight.detach().double().numpy().T + part.bias.detach().double().numpy()
        else:
            values = values.clip(min=0)
    return values


# ---------------------------------------------------------------- the first bonuses by hand
A, B, C = [0.5, 0.0, -0.5], [0.0, 1.0, 0.25], [0.3, -0.2, 0.9]


def test_counts_by_hand():
    lifelong, episodic = made(LifelongCounts), made(EpisodicCounts)
    for step, expected, of_episode in ((0, [1, 1 / 2**0.5], [1, 1]), (1, [1 / 3**0.5, 1 / 4**0.5], [1 / 2**0.5] * 2)):
        at = steps([A, A], [B, B], step)
        np.testing.assert_allclose(lifelong.bonus(at), expected)
        np.testing.assert_allclose(episodic.bonus(at), of_episode)
        lifelong.observe(at), episodic.observe(at)
    back = steps([B, C], [A, C], 2)
    np.testing.assert_allclose(episodic.bonus(back), [1 / 2**0.5, 1])  # the start counts
    fresh = steps([C, B], [B, B], 0)
    np.testing.assert_allclose(episodic.bonus(fresh), [1, 1 / 2**0.5])


def test_rnd_by_hand():
    module = made(RND)
    of = module.networks["distillation"]
    error = ((by_numpy(of.predictor, [B, C]) - by_numpy(of.target, [B, C])) ** 2).mean(axis=1)
    np.testing.assert_allclose(module.bonus(steps([A, A], [B, C])), error, rtol=1e-5)


def test_the_scale_by_hand():
    scale = ReturnScale(2, 0.5)
    for bonuses in ([1.0, 3.0], [2.0, 0.0]):
        scale.observe(np.arange(2), np.array(bonuses))
    # sums 1, 3 and then 0.5 + 2, 1.5 + 0, beside the one sum of spread 1 around 0
    sums = np.array([1, 3, 2.5, 1.5])
    second_moment, mean = (1 + (sums**2).sum()) / 5, sums.sum() / 5
    assert scale.spread == pytest.approx((second_moment - mean**2) ** 0.5)


@pytest.mark.parametrize("module", [RND, ICM, Disagreement])
def test_a_bonus_is_divided_by_the_spread_so_far(module):
    module = made(module)
    at = steps([A, B], [B, C], actions=[0, 3])
    raw = module.bonus(at)
    module.scale.observe(np.arange(2), np.array([1.0, 3.0]))
    np.testing.assert_allclose(module.bonus(at) * module.scale.spread, raw)
    assert module.scale.spread == pytest.approx((11 / 3 - (4 / 3) ** 2) ** 0.5)


def test_icm_by_hand():
    module = with_identity(ICM)
    at = steps([A, B], [B, C], actions=[2, 1])
    inputs = np.concatenate([[A, B], np.eye(4)[[2, 1]]], axis=1)
    missed = by_numpy(module.networks["forward_model"], inputs) - [B, C]
    np.testing.assert_allclose(module.bonus(at), (missed**2).sum(axis=1) / 2, rtol=1e-4)
    parts = {name: part.item() for name, part in module.loss(at).items()}
    assert parts["forward"] == pytest.approx((missed**2).sum() / 2 / 2, rel=1e-4)
    logits = by_numpy(module.networks["inverse_model"], np.concatenate([[A, B], [B, C]], axis=1))
    log_likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert parts["inverse"] == pytest.approx(-(log_likely[0, 2] + log_likely[1, 1]) / 2, rel=1e-4)
    assert module.loss_weights == {"inverse": 0.8, "forward": 0.2}


def test_the_forward_loss_does_not_pull_at_its_target():
    module = with_identity(ICM)
    at = steps([A, B], [B, C])
    with torch.no_grad():
        module.networks["forward_model"][0].weight.zero_()  # so that phi(s) has no part in the loss
    module.loss(at)["forward"].backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in module.networks["encoder"].parameters())


def test_disagreement_by_hand():
    module = with_identity(Disagreement, models=3)
    ensemble = module.networks["models"]
    first, last = (weights.detach().double().numpy() for weights in ensemble.weights)
    inputs = np.concatenate([[A, B], np.eye(4)[[2, 1]]], axis=1)
    predicted = np.stack([(inputs @ first[k]).clip(min=0) @ last[k] for k in range(3)])  # biases are 0 at first
    at = steps([A, B], [B, C], actions=[2, 1])
    np.testing.assert_allclose(module.bonus(at), predicted.var(axis=0).mean(axis=1), rtol=1e-4)
    before = [weights.detach().clone() for weights in ensemble.weights]
    module.update(at)
    assert all((new != old).flatten(1).any(dim=1).all() for new, old in zip(ensemble.weights, before, strict=True))
    assert not module.networks["encoder"][0].weight.requires_grad


def test_noveld_by_hand():
    module, rnd = made(NovelD, alpha=0.5), made(RND)
    novelty = dict(zip("ABC", rnd.bonus(steps([A] * 3, [A, B, C])), strict=True))
    at = steps([A, B], [B, A])
    expected = [max(novelty["B"] - novelty["A"] / 2, 0), max(novelty["A"] - novelty["B"] / 2, 0)]
    assert max(expected) > 0
    np.testing.assert_allclose(module.bonus(at), expected, rtol=1e-5)
    module.observe(at)
    assert (module.bonus(steps([B, A], [A, B], 1)) == 0).all()  # where the episode has been
    assert (module.bonus(steps([B, A], [C, C], 1)) > 0).any()


def test_ride_by_hand():
    module = with_identity(RIDE)
    at = steps([A, B], [B, B])
    away = np.linalg.norm(np.subtract(A, B))
    np.testing.assert_allclose(module.bonus(at), [away, 0], atol=1e-5)
    module.visited.observe(at)
    np.testing.assert_allclose(module.bonus(steps([A, A], [B, B], 1)), [away / 2**0.5, away / 3**0.5], rtol=1e-5)


def test_pseudo_counts_by_hand():
    module = with_identity(PseudoCounts, k=2)
    at = steps([A, A], [B, A])
    # One neighbour, the start: at its own mean distance, or at none. Kernels 1e-4 / (1 - 0.008 + 1e-4) and 1.
    near, same = 1e-4 / 0.9921, 1.0
    np.testing.assert_allclose(module.bonus(at), [1 / (near**0.5 + 1e-3), 1 / (same**0.5 + 1e-3)], rtol=1e-5)
    module.observe(at)
    squared = np.sum(np.subtract(A, B) ** 2)
    # Before, |B - A|^2 and 0 were measured. The first is at B again: 0 and |B - A|^2. The second comes to B from A,
    # where it was twice: |B - A|^2 twice. A mean is over all that were measured before, and the two of its own.
    again = 1 + 1e-4 / (squared / (2 * squared / 4) - 0.008 + 1e-4)
    twice = 2 * 1e-4 / (squared / (3 * squared / 4) - 0.008 + 1e-4)
    expected = [1 / (again**0.5 + 1e-3), 1 / (twice**0.5 + 1e-3)]
    np.testing.assert_allclose(module.bonus(steps([B, A], [B, B], 1)), expected, rtol=1e-4)


def test_pseudo_counts_of_what_was_everywhere_is_0():
    module = with_identity(PseudoCounts, num_envs=1, k=70)
    for step in range(66):
        stay = steps([A], [A], step)
        paid = module.bonus(stay)[0]
        neighbours = min(step + 1, 70)
        expected = 1 / (neighbours**0.5 + 1e-3) if neighbours**0.5 + 1e-3 <= 8 else 0
        assert paid == pytest.approx(expected)
        module.observe(stay)
    assert module.known.shape[1] == 128


def test_pseudo_counts_forget_the_oldest():
    module = with_identity(PseudoCounts, num_envs=1, k=3, memory=2)
    for step, where in enumerate((B, C)):
        module.observe(steps([A], [where], step))
    assert module.known[0].numpy() == pytest.approx(module.encoded(np.array([C, B])).numpy(), abs=3)
    assert int(module.count[0]) == 3 and module._neighbours(steps([C], [A], 2)).squared.shape == (1, 2)


def test_ngu_by_hand():
    module, episode = with_identity(NGU), with_identity(PseudoCounts)
    at = steps([A, A], [B, C])
    errors = module.networks["distillation"](torch.tensor([B, C])).detach().numpy()
    for mean, spread in ((0.0, 1.0), (errors[0], 1e-3), (errors.max() + 1, 1.0)):
        module.errors.mean, module.errors.var = mean, spread**2
        alpha = (1 + (errors - mean) / np.sqrt(spread**2 + 1e-8)).clip(1, 5)
        np.testing.assert_allclose(module.bonus(at), episode.bonus(at) * alpha, rtol=1e-4)


def test_re3_by_hand():
    module = with_identity(RE3, k=2, memory=4)
    at = steps([A, A], [B, C])
    for _ in range(2):
        assert (module.bonus(at) == 0).all() or module.count == 2
        module.observe(at)
    # known: B, C, B, C; the second nearest of B is the other B, of A the other of the nearer two
    away = min(np.linalg.norm(np.subtract(A, B)), np.linalg.norm(np.subtract(A, C)))
    np.testing.assert_allclose(module.bonus(steps([A, A], [B, A])), [0, np.log(away + 1)], atol=1e-5)
    module.observe(steps([A, A], [A, A]))  # known: A, A, B, C
    np.testing.assert_allclose(module.bonus(steps([A], [A])), 0)
    away = np.linalg.norm(np.subtract(B, A))
    np.testing.assert_allclose(module.bonus(steps([A], [B])), np.log(away + 1), rtol=1e-5)


def test_re3_before_k_are_known_and_more_environments_than_memory():
    module = with_identity(RE3, k=2, memory=2, num_envs=3)
    module.observe(steps([A], [B]))
    assert (module.bonus(steps([A] * 3, [A, B, C])) == 0).all()
    module.observe(steps([A] * 3, [A, B, C]))
    np.testing.assert_allclose(sorted(module.known[:, 2].tolist()), sorted([B[2], C[2]]), atol=1e-5)


def test_e3b_by_hand():
    module = with_identity(E3B, ridge=0.1)
    episodes = [[A, B, C, B], [C, C, A, A]]
    for step in range(3):
        at = steps([e[step] for e in episodes], [e[step + 1] for e in episodes], step)
        expected = []
        for e in episodes:
            known, phi = np.array(e[: step + 1]), np.array(e[step + 1])
            expected.append(phi @ np.linalg.inv(0.1 * np.eye(3) + known.T @ known) @ phi)
        np.testing.assert_allclose(module.raw(at).numpy(), expected, rtol=1e-4)
        module.observe(at)
    again = module.raw(steps([A, B], [C, A], 0)).numpy()
    begun = np.array(C) @ np.linalg.inv(0.1 * np.eye(3) + np.outer(A, A)) @ C
    assert again[0] == pytest.approx(begun, rel=1e-4)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 12))
def test_e3b_is_the_inverse_of_a_long_episode(seed, size):
    rng = np.random.default_rng(seed)
    module = made(E3B, spaces.Box(-1, 1, (size,), np.float32), num_envs=2, features=size, seed=seed)
    path = rng.uniform(-1, 1, (200, 2, size)).astype(np.float32)
    for step in range(199):
        module.observe(steps(path[step], path[step + 1], step))
    phi = module.encoded(path[:, 1]).double().numpy()
    exact = np.linalg.inv(0.1 * np.eye(size) + phi.T @ phi)
    np.testing.assert_allclose(module.inverses[1].numpy(), exact, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- what all of them do
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


def test_losses_of_actions_by_hand():
    several = ActionReader(spaces.MultiDiscrete([2, 3]))
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.0, 1.0]])
    expected = np.log(1 + np.e) - 1 + np.log(np.e**2 + 1 + np.e) - 0
    assert several.loss(logits, np.array([[1, 1]])).tolist() == pytest.approx([expected])
    numbers = ActionReader(spaces.Box(-2, 2, (2,), np.float32))
    assert numbers.loss(torch.tensor([[1.0, 0.0]]), np.array([[0.0, 2.0]])).tolist() == [2.5]
    from_two = ActionReader(spaces.Discrete(2, start=2))
    assert from_two.loss(torch.tensor([[0.0, 0.0]]), np.array([3])).tolist() == pytest.approx([np.log(2)])


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
