"""Extrinsic rewards made of others, by hand: shaping, norms, and a reward learned from comparisons."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up

from astray.agents import Transitions, vec_env, with_rewards
from astray.agents.preferences import PreferenceReward, fragments, preferences_of_teacher
from astray.agents.rewards import Norms, Shaped
from astray.envs import InputError
from astray.experiments.checkpoint import put_together, take_apart

DISCOUNT = 0.9
LEVEL = "X....\n.....\nA....\n.....\n..C..\nfirst: corner"  # corner 2 north; cheese 2 south, 2 east
NORTH, SOUTH, WEST, EAST = range(4)
AGENT_PLANE = 1


def on_level(**rewards):
    """One environment that stands on a given level."""
    envs = with_rewards(vec_env("cheese-corner", 1, observation="planes", shift=1.0), **rewards)
    envs.reset()
    world = envs.venv.world
    world.set_levels(world.parse_level(LEVEL))
    envs.rewards.started(world.observe())
    return envs


# ---------------------------------------------------------------- shaping
LEFT_END, RIGHT_END = 0, 5  # of a chain of states; one pays 0.3, the other 1


def chain(state, action):
    """The next state: action 1 goes right, 0 left."""
    return state + 2 * action - 1


def in_chain(states, actions):
    """Steps from states of the chain, and what they pay."""
    nexts = chain(states, actions)
    rewards = np.where(nexts == RIGHT_END, 1.0, np.where(nexts == LEFT_END, 0.3, -0.01))
    ended = (nexts == LEFT_END) | (nexts == RIGHT_END)
    return made_up(states, nexts, actions, terminated=ended, rewards=rewards)


def action_values(pay):
    """The optimal action values of the chain under a reward, ``[states, actions]``."""
    states, actions = np.repeat(np.arange(1, 5), 2), np.tile([0, 1], 4)
    steps = in_chain(states, actions)
    rewards = pay(steps)
    values = np.zeros(6)
    for _ in range(400):
        q = (rewards + DISCOUNT * np.where(steps.terminated, 0, values[steps.next_observations])).reshape(4, 2)
        values[1:5] = q.max(axis=1)
    return q


potentials = st.lists(st.floats(-5, 5), min_size=6, max_size=6).map(np.array)


@given(potentials)
def test_shaping_leaves_optimal_policies_as_they_are(phi):
    plain = action_values(lambda steps: steps.rewards)
    shaped = action_values(shaped_by(phi))
    np.testing.assert_allclose(shaped, plain - phi[1:5, None], atol=1e-9)
    assert (shaped.argmax(axis=1) == plain.argmax(axis=1)).all()


def shaped_by(phi):
    reward = Shaped(lambda steps: steps.rewards, lambda states: phi[states], DISCOUNT)
    return reward.bind(())


@given(potentials, st.lists(st.integers(0, 1), min_size=1, max_size=12))
def test_what_shaping_adds_to_a_return_is_the_first_potential_taken_away(phi, actions):
    state, added = 2, 0.0
    pay = shaped_by(phi)
    for number, action in enumerate(actions):
        step = in_chain(np.array([state]), np.array([action]))
        added += DISCOUNT**number * (pay(step) - step.rewards)[0]
        state = chain(state, action)
        if step.terminated[0]:
            assert added == pytest.approx(-phi[2])
            return
    assert added == pytest.approx(DISCOUNT ** len(actions) * phi[state] - phi[2])  # cut off, or not over yet


def test_with_a_potential_at_ends_the_policy_would_change():
    phi = np.array([10.0, 0, 0, 0, 0, 0])
    naive = action_values(lambda s: s.rewards + DISCOUNT * phi[s.next_observations] - phi[s.observations])
    plain, shaped = action_values(lambda s: s.rewards), action_values(shaped_by(phi))
    assert plain.argmax(axis=1).tolist() == shaped.argmax(axis=1).tolist() == [1, 1, 1, 1]
    assert naive.argmax(axis=1).tolist() == [0, 0, 0, 0]


def test_shaping_by_hand_at_the_three_kinds_of_steps():
    phi = np.array([7.0, 1, 2, 3, 4, 9])
    ends = dict(terminated=[False, True, False], truncated=[False, False, True])
    steps = made_up([1, 1, 1], [2, 0, 0], rewards=[0.5, 0.5, 0.5], **ends)
    np.testing.assert_allclose(shaped_by(phi)(steps), [0.5 + 0.9 * 2 - 1, 0.5 - 1, 0.5 + 0.9 * 7 - 1])


def test_shaping_in_a_world_uses_the_true_last_observation():
    def nearness(planes):  # 4 minus the steps to the cheese
        agents = np.argwhere(planes[:, AGENT_PLANE])[:, 1:]
        return 4.0 - np.abs(agents - [4, 2]).sum(axis=1)

    envs = on_level(extrinsic=Shaped("cheese", nearness, 0.5))
    paid = [envs.step(np.array([action]))[1][0] for action in (SOUTH, SOUTH, EAST, WEST, EAST, EAST)]
    # Phi goes 0 1 2 3 2 3, and at the end counts 0 instead of 4
    np.testing.assert_allclose(paid, [0.5, 0, -0.5, -2, -0.5, 1 - 3])


def test_what_shaping_refuses():
    with pytest.raises(InputError, match=r"discount=1.1 must lie in \(0, 1\]"):
        Shaped("world", len, 1.1)
    with pytest.raises(InputError, match=r"potential gave shape \(1, 1\): it must be \(1,\)"):
        Shaped("world", lambda o: o[:, None], 1.0).bind(())(made_up([1], [2], happened={"world": [1.0]}))
    with pytest.raises(InputError, match="did you mean 'cheese'"):
        on_level(extrinsic=Shaped("chese", len, 1.0))


# ---------------------------------------------------------------- norms
def test_norms_by_hand():
    steps = made_up(
        np.zeros((4, 1)),
        np.zeros((4, 1)),
        rewards=[1.0, 1.0, -1.0, 1.0],
        happened={"shout": [0.0, 1, 1, 0], "steal": [0.0, 0, 0, 1]},
        ever={"shout": [False, True, True, True], "steal": [False, False, True, True]},
    )
    reward = Norms(lambda s: s.rewards, penalise={"shout": 0.25, "steal": 2.0}, forbid=("steal",))
    # the third may still lose; the fourth steals, so that its 1 is forfeit before the fine
    np.testing.assert_allclose(reward.bind(("shout", "steal"))(steps), [1, 0.75, -1.25, -2])


def test_after_the_forbidden_an_episode_pays_nothing_and_the_next_one_does():
    reward = Norms("cheese", penalise={"entered_corner": 0.1}, forbid=("corner",))
    to_cheese = [SOUTH, SOUTH, EAST, EAST]
    envs = on_level(extrinsic=reward)
    assert [envs.step(np.array([a]))[1][0] for a in to_cheese] == [0, 0, 0, 1]
    envs = on_level(extrinsic=reward)
    paid = [envs.step(np.array([a]))[1][0] for a in (NORTH, NORTH, SOUTH, NORTH, SOUTH, SOUTH, *to_cheese)]
    np.testing.assert_allclose(paid, np.float32([0, -0.1, 0, -0.1, 0, 0, 0, 0, 0, 0]))
    world = envs.venv.world
    world.set_levels(world.parse_level(LEVEL))  # the next episode has begun; it may earn
    assert [envs.step(np.array([a]))[1][0] for a in to_cheese] == [0, 0, 0, 1]


def test_rewards_are_made_of_rewards():
    envs = on_level(extrinsic=Norms(Shaped("cheese - 0.5*step", lambda o: np.ones(len(o)), 0.5), {"corner": 2.0}))
    paid = [envs.step(np.array([a]))[1][0] for a in (NORTH, NORTH, SOUTH, NORTH)]
    np.testing.assert_allclose(paid, [-1, -3, -1, -1])  # a goal's fine is due once


def test_what_norms_refuse():
    with pytest.raises(InputError, match=r"penalise='chees' is not one of 'cheese'.*did you mean 'cheese'"):
        on_level(extrinsic=Norms("world", {"chees": 1.0}))
    with pytest.raises(InputError, match="forbid='x' is not one of 'cheese'"):
        on_level(extrinsic=Norms("world", forbid=["x"]))
    with pytest.raises(InputError, match="these environments tell of no events"):
        Norms("world", forbid=["x"]).bind(())
    with pytest.raises(InputError, match="must be a list of names"):
        Norms("world", forbid="corner")
    with pytest.raises(InputError, match=r"penalise\['corner'\]=-1 must be a number from 0 on"):
        Norms("world", {"corner": -1})


# ---------------------------------------------------------------- preferences
BOX, MOVES = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)


def walks(count, seed, length=5):
    """Fragments under a known reward, the first number of s' plus half of the action."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(count):
        seen, actions = rng.uniform(-1, 1, (length + 1, 2)).astype(np.float32), rng.integers(2, size=length)
        parts.append(made_up(seen[:-1], seen[1:], actions, rewards=seen[1:, 0] + 0.5 * actions))
    return parts


@pytest.fixture(scope="module")
def learned():
    torch.set_num_threads(1)
    first, second = walks(300, 1), walks(300, 2)
    reward = PreferenceReward(BOX, MOVES, seed=3)
    told = reward.fit(first, second, preferences_of_teacher(first, second, temperature=0.1), epochs=30)
    return reward, told, (first, second)


def test_the_order_of_a_known_reward_is_recovered(learned):
    reward, told, _ = learned
    first, second = walks(400, 8), walks(400, 9)
    truth = preferences_of_teacher(first, second, temperature=0)
    says = [reward(one).sum() > reward(other).sum() for one, other in zip(first, second, strict=True)]
    assert np.mean(says == (truth == 1)) > 0.9
    assert told["accuracy"] > 0.9 and 0 < told["loss"] < 0.4 and 0 < told["disagreement"] < 1
    steps = Transitions.joined(first)
    assert np.corrcoef(reward(steps), steps.rewards)[0, 1] > 0.9


def test_the_learned_reward_has_mean_0_and_spread_1(learned):
    reward, _, (first, second) = learned
    paid = np.concatenate([reward(fragment) for fragment in (*first, *second)])
    assert paid.mean() == pytest.approx(0, abs=1e-5) and paid.std() == pytest.approx(1, abs=1e-4)


def test_members_disagree_most_where_nothing_was_compared(learned):
    reward, _, (first, _) = learned
    far = made_up(np.full((5, 2), 0.5), [[3.0, -3], [-3, 3], [3, 3], [-3, -3], [0, 4]], [0, 1, 0, 1, 0])
    assert reward.disagreement(far).mean() > 1.5 * np.mean([reward.disagreement(part) for part in first])
    alone = PreferenceReward(BOX, MOVES, members=1)
    alone.fit(walks(5, 1), walks(5, 2), [1, 0, 1, 0, 0.5], epochs=1)
    assert (alone.disagreement(far) == 0).all()


def test_a_reward_is_restored_exactly_and_a_fit_repeats_itself(learned):
    reward, _, (first, second) = learned
    tensors, arrays = {}, {}
    plain = take_apart(reward.state_dict(), "state", tensors, arrays)
    fresh = PreferenceReward(BOX, MOVES, seed=3)
    fresh.load_state_dict(put_together(plain, tensors, arrays))
    assert (fresh(first[0]) == reward(first[0])).all()
    before = torch.get_rng_state()
    said = preferences_of_teacher(first[:40], second[:40], seed=1)
    fits = [fresh.fit(first[:40], second[:40], said, epochs=2) for _ in range(2)]
    assert fits[0] == fits[1] and (torch.get_rng_state() == before).all()


def test_a_learned_reward_trains_in_place_of_the_worlds():
    envs = vec_env("cheese-corner", 4, observation="bytes")
    reward = PreferenceReward(envs.observation_space, envs.action_space)
    stored = []

    def storing(transitions):
        stored.append(transitions)
        return transitions.rewards

    stack = with_rewards(envs, storing)
    stack.reset()
    for number in range(60):
        stack.step(np.full(4, number // 3 % 4))
    parts = fragments(stored, 6)
    assert sum(map(len, parts)) == 240 and max(map(len, parts)) == 6
    half = len(parts) // 2
    pairs = parts[:half], parts[half : 2 * half]
    reward.fit(*pairs, preferences_of_teacher(*pairs), epochs=2)
    stack = with_rewards(vec_env("cheese-corner", 1, observation="bytes"), reward)
    stack.reset()
    assert np.isfinite(stack.step(np.array([0]))[1]).all()


def test_fragments_by_hand():
    # environment 0 takes steps 0 1 2 of an episode and 0 1 of the next, environment 1 takes steps 0 to 4 of one
    numbers = [[(0, 0), (0, 0)], [(0, 1), (0, 1)], [(0, 2), (0, 2)], [(1, 0), (0, 3)], [(1, 1), (0, 4)]]
    stored = [
        made_up([[t, 0], [t, 1]], [[t, 0], [t, 1]], episodes=[e0, e1], steps=[s0, s1])
        for t, ((e0, s0), (e1, s1)) in enumerate(numbers)
    ]
    parts = [part.observations.tolist() for part in fragments(stored, 2)]
    assert parts == [[[0, 0], [1, 0]], [[2, 0]], [[3, 0], [4, 0]], [[0, 1], [1, 1]], [[2, 1], [3, 1]], [[4, 1]]]
    with pytest.raises(InputError, match="no steps"):
        fragments([], 2)
    with pytest.raises(InputError, match="length=0 must be positive"):
        fragments(stored, 0)


def test_the_teacher_errs_as_its_temperature_says():
    better, worse = [made_up([[0]], [[0]], rewards=[r]) for r in (1.0, 0.0)]
    often = preferences_of_teacher([better] * 4000, [worse] * 4000, temperature=0.5)
    assert often.mean() == pytest.approx(1 / (1 + np.exp(-2)), abs=0.02)  # 0.881; four standard errors
    assert preferences_of_teacher([better, worse, worse], [worse, better, worse], 0).tolist() == [1, 0, 0.5]
    with pytest.raises(InputError, match="temperature=-1"):
        preferences_of_teacher([better], [worse], -1)
    with pytest.raises(InputError, match="1 first and 2 second"):
        preferences_of_teacher([better], [worse, worse])


def test_what_preference_rewards_refuse():
    reward, (one, other) = PreferenceReward(BOX, MOVES), walks(2, 0)
    with pytest.raises(InputError, match="has learned nothing yet"):
        reward(one)
    with pytest.raises(InputError, match="1 first, 1 second fragments, 2 preferred"):
        reward.fit([one], [other], [1, 0])
    with pytest.raises(InputError, match="0 first"):
        reward.fit([], [], [])
    with pytest.raises(InputError, match=r"must lie in 0\.\.1"):
        reward.fit([one], [other], [2])
    with pytest.raises(InputError, match="a fragment has no steps"):
        reward.fit([one], [other[:0]], [1])
    with pytest.raises(InputError, match="members=0 must be positive"):
        PreferenceReward(BOX, MOVES, members=0)
