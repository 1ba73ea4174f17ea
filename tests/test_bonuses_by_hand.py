"""Curiosity modules with networks: the first bonuses, computed by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import LINE, A, B, C, made, steps

from astray.agents import RND, EpisodicCounts, LifelongCounts
from astray.agents.disagreement import Disagreement
from astray.agents.e3b import E3B
from astray.agents.icm import ICM
from astray.agents.networks import ReturnScale
from astray.agents.ngu import NGU
from astray.agents.noveld import NovelD
from astray.agents.pseudo_counts import PseudoCounts
from astray.agents.re3 import RE3
from astray.agents.reading import ActionReader
from astray.agents.ride import RIDE


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


def test_losses_of_actions_by_hand():
    several = ActionReader(spaces.MultiDiscrete([2, 3]))
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.0, 1.0]])
    expected = np.log(1 + np.e) - 1 + np.log(np.e**2 + 1 + np.e) - 0
    assert several.loss(logits, np.array([[1, 1]])).tolist() == pytest.approx([expected])
    numbers = ActionReader(spaces.Box(-2, 2, (2,), np.float32))
    assert numbers.loss(torch.tensor([[1.0, 0.0]]), np.array([[0.0, 2.0]])).tolist() == [2.5]
    from_two = ActionReader(spaces.Discrete(2, start=2))
    assert from_two.loss(torch.tensor([[0.0, 0.0]]), np.array([3])).tolist() == pytest.approx([np.log(2)])
