"""One contract for every registered world: adding a world adds no test code."""

import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from astray.agents.acting import ExpertAgent
from astray.agents.vec_env import vec_env
from astray.envs import find_world, worlds
from astray.envs.grid import MAX_OTHERS, GridWorld, neighbours
from astray.envs.levels import LEVEL_CLASSES, take
from astray.experiments.evaluation import evaluate, test_levels

WORLDS = list(worlds().values())
OBSERVATIONS = ("text", "bytes", "planes", "egocentric")
LAYOUTS = ({}, {"layout": "walls", "size": 6}, {"layout": "maze", "size": 7})

each_world = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.__name__)
each_room = pytest.mark.parametrize(
    "world", [world for world in WORLDS if issubclass(world, GridWorld)], ids=lambda world: world.__name__
)
each_observation = pytest.mark.parametrize("observation", OBSERVATIONS)
each_layout = pytest.mark.parametrize("arguments", LAYOUTS, ids=("open", "walls", "maze"))


@each_world
@each_observation
@pytest.mark.parametrize("style", ["relative", "map"])
def test_gymnasium_checker(world, observation, style):
    env = gym.make(world.id(), observation=observation, style=style, shift=0.5, render_mode="ansi")
    check_env(env.unwrapped, skip_render_check=True)
    assert env.unwrapped.render().count("\n") == 4
    env = gym.make(world.id(), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[2] == 3 and len(np.unique(env.render().reshape(-1, 3), axis=0)) > 3


@each_world
@pytest.mark.parametrize("observation", ["bytes", "planes", "egocentric"])
def test_stable_baselines_checker(world, observation):
    with warnings.catch_warnings():
        # SB3 takes every 3-D box for an image; ours are small planes of zeros and ones for MLPs.
        warnings.filterwarnings("ignore", message=".*(image|minimal resolution).*")
        check_env_sb3(gym.make(world.id(), observation=observation).unwrapped)


@each_world
@each_observation
@each_layout
def test_rollouts_are_deterministic(world, observation, arguments):
    envs = [gym.make(world.id(), observation=observation, shift=0.5, **arguments) for _ in range(2)]
    results = [env.reset(seed=7) for env in envs]
    assert data_equivalence(*results)
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = int(rng.integers(len(world.action_texts)))
        results = [env.step(action) for env in envs]
        assert data_equivalence(*results)
        assert envs[0].observation_space.contains(results[0][0])
        if results[0][2] or results[0][3]:
            results = [env.reset() for env in envs]
            assert data_equivalence(*results)


@each_world
@each_observation
@each_layout
@pytest.mark.parametrize("mode", ["next_step", "same_step"])
def test_single_and_batched_views_agree(world, observation, arguments, mode):
    n = 5
    arguments = {"observation": observation, "shift": 0.5} | arguments
    envs = gym.make_vec(world.id(), num_envs=n, autoreset_mode=mode, **arguments)
    singles = [gym.make(world.id(), **arguments) for _ in range(n)]
    observations, info = envs.reset(seed=3)
    for row, single in enumerate(singles):
        expected, _ = single.reset(seed=3 + row)
        assert data_equivalence(observations[row], expected)
    over = np.zeros(n, bool)
    rng = np.random.default_rng(1)
    finals = 0
    for _ in range(120):
        actions = rng.integers(len(world.action_texts), size=n)
        observations, reward, terminated, truncated, info = envs.step(actions)
        for row, single in enumerate(singles):
            if over[row]:  # next_step: the batch ignored the action and began a new episode
                expected, _ = single.reset()
                assert (reward[row], terminated[row], truncated[row]) == (0, False, False)
                assert not info["events"][row].any()
                over[row] = False
            else:
                expected, *outcome, single_info = single.step(int(actions[row]))
                assert [reward[row], terminated[row], truncated[row]] == outcome
                ended = outcome[1] or outcome[2]
                told = info["final_info"] if ended and mode == "same_step" else info
                names = [name for name, so in zip(envs.unwrapped.event_names, told["events"][row], strict=True) if so]
                assert tuple(names) == single_info["events"]
                assert told["goals"][row].tolist() == list(single_info["goals"].values())
                if ended and mode == "same_step":
                    assert info["_final_obs"][row]
                    assert data_equivalence(info["final_obs"][row], expected)
                    expected, _ = single.reset()
                    finals += 1
                over[row] = ended and mode == "next_step"
            assert data_equivalence(observations[row], expected)
    assert mode == "next_step" or finals > 5


@each_world
@pytest.mark.parametrize("observation", ["bytes", "planes"])
def test_sb3_view_agrees_with_single_envs_and_keeps_the_last_observation(world, observation):
    n = 4
    envs = vec_env(world.id(), n, observation=observation, shift=0.5)
    envs.seed(11)
    observations = envs.reset()
    singles = [gym.make(world.id(), observation=observation, shift=0.5) for _ in range(n)]
    for row, single in enumerate(singles):
        assert data_equivalence(observations[row], single.reset(seed=11 + row)[0])
    returns, lengths, ended = np.zeros(n), np.zeros(n, int), 0
    rng = np.random.default_rng(2)
    for _ in range(150):
        actions = rng.integers(len(world.action_texts), size=n)
        observations, rewards, dones, infos = envs.step(actions)
        for row, single in enumerate(singles):
            expected, reward, terminated, truncated, single_info = single.step(int(actions[row]))
            returns[row] += reward
            lengths[row] += 1
            assert rewards[row] == np.float32(reward) and dones[row] == (terminated or truncated)
            assert infos[row]["events"] == single_info["events"]
            if dones[row]:
                ended += 1
                assert data_equivalence(infos[row]["terminal_observation"], expected)
                assert infos[row]["TimeLimit.truncated"] == truncated
                assert infos[row]["episode"]["r"] == pytest.approx(returns[row])
                assert infos[row]["episode"]["l"] == lengths[row]
                assert infos[row]["goals"] == single_info["goals"]
                returns[row] = lengths[row] = 0
                expected, _ = single.reset()
            assert data_equivalence(observations[row], expected)
    assert ended > 5


@each_world
def test_without_a_seed_every_row_and_every_process_has_its_own_levels(world):
    envs = [vec_env(world.id(), 128, shift=1.0) for _ in range(2)]
    for each in envs:
        each.reset()
    levels = [each.world.level["fingerprint"].tolist() for each in envs]
    assert levels[0] != levels[1] and len(set(levels[0])) > 64


@each_world
def test_given_levels_are_played_by_every_view(world):
    text = gym.make(world.id(), shift=1.0).reset(seed=5)[1]["level"]
    envs = gym.make_vec(world.id(), num_envs=2, observation="bytes", render_mode="ansi")
    observations, _ = envs.reset(seed=0, options={"level": [text, text]})
    assert (observations[0] == observations[1]).all()
    assert envs.render()[0] == envs.render()[1] == text.rpartition("\n")[0]
    fast = vec_env(world.id(), 2)
    fast.set_options({"level": text})
    assert (fast.reset() == observations).all() and not (fast.reset() == observations).all()
    assert fast.get_images()[0].shape[2] == 3
    with pytest.raises(ValueError, match="2 environments"):
        envs.reset(options={"level": [text]})


@each_world
@each_layout
def test_pickle_and_state_in_the_middle_of_an_episode(world, arguments):
    played = world(3, shift=0.5, observation="planes", **arguments)
    played.reset(seed=5)
    rng = np.random.default_rng(0)
    actions = rng.integers(len(world.action_texts), size=(60, 3))
    for row in actions[:7]:
        played.step(row)
    copies = [pickle.loads(pickle.dumps(played)), world(3, shift=0.5, observation="planes", **arguments)]
    copies[1].set_state(played.get_state())
    for row in actions[7:]:
        expected = played.step(row)
        over = np.flatnonzero(expected[1] | expected[2])
        for copy in copies:
            assert data_equivalence(copy.step(row), expected)
        for each in (played, *copies):
            each.next_level(over)
        for copy in copies:
            assert data_equivalence(copy.observe(), played.observe())
            assert data_equivalence(copy.first_visit, played.first_visit)


@each_world
@each_layout
def test_invariants_over_many_random_steps(world, arguments):
    n = 256
    played = world(n, shift=0.5, observation="planes", **arguments)
    played.reset(seed=0)
    walls = played.level["walls"].reshape(n, -1)
    rng = np.random.default_rng(3)
    for _ in range(400):
        before = played.state["agent"].copy()
        reward, terminated, truncated, events = played.step(rng.integers(len(world.action_texts), size=n))
        agent = played.state["agent"]
        row, column = np.divmod(np.stack([before, agent]), played.size)
        assert (np.abs(np.diff(row, axis=0)) + np.abs(np.diff(column, axis=0)) <= 1).all()
        assert not walls[np.arange(n), agent].any()
        assert (reward == events @ [world.event_rewards.get(name, 0) for name in world.event_names]).all()
        planes = played.observe()
        assert (planes[:, 1].reshape(n, -1).argmax(1) == agent).all() and (planes.sum((2, 3))[:, 1:] == 1).all()
        assert not (terminated & truncated).any() and (played.steps <= played.max_steps).all()
        over = np.flatnonzero(terminated | truncated)
        played.next_level(over)
        walls = played.level["walls"].reshape(n, -1)


@each_world
def test_levels_do_not_depend_on_actions(world):
    played = [world(4, shift=0.5) for _ in range(2)]
    rng = np.random.default_rng(0)
    for each in played:
        each.reset(seed=9)
    for _ in range(20):
        for _ in range(int(rng.integers(5))):
            played[0].step(rng.integers(len(world.action_texts), size=4))
        for each in played:
            each.reset()
        assert data_equivalence(played[0].level, played[1].level)


@each_world
@each_layout
def test_train_and_test_splits_are_disjoint_and_exhaustive(world, arguments):
    seen = {}
    for split in ("train", "test", "all"):
        drawn = world(1, shift=1.0, split=split, **arguments).draw_levels(np.zeros(3000, int), np.arange(3000))
        seen[split] = set(drawn["fingerprint"].tolist())
    assert seen["train"] and seen["test"] and not seen["train"] & seen["test"]
    assert seen["all"] & seen["test"] and seen["all"] & seen["train"]


@each_world
@each_layout
def test_experts_agree_on_ambiguous_levels_and_have_opposite_outcomes_on_distinguishing_ones(world, arguments):
    levels = test_levels(world.id(), 40, 40, **arguments)
    rows = [evaluate(ExpertAgent(goal), world.id(), levels, **arguments) for goal in (0, 1)]
    ambiguous = levels.level_class == "ambiguous"
    for expert in rows:
        assert (expert.outcome[ambiguous] == "both").all()
    assert (rows[0]["return"] == rows[1]["return"])[ambiguous].all()
    assert (rows[0]["length"] == rows[1]["length"])[ambiguous].all()
    assert (rows[0].outcome[~ambiguous] == "intended").all()
    assert (rows[1].outcome[~ambiguous] == "proxy").all()
    assert (levels.margin[ambiguous] == 0).all() and (levels.margin[~ambiguous] > 0).all()


@each_world
@each_layout
def test_margin_is_what_the_proxy_expert_loses(world, arguments):
    levels = test_levels(world.id(), 0, 60, **arguments)
    rows = [evaluate(ExpertAgent(goal), world.id(), levels, **arguments) for goal in (0, 1)]
    worth = [(world.discount ** (r["length"] - 1) * r["return"]).to_numpy() for r in rows]
    np.testing.assert_allclose(worth[0] - worth[1], levels.margin)


@each_world
@each_layout
def test_no_random_walk_beats_the_intended_expert(world, arguments):
    levels = world(1, shift=1.0, **arguments).certify(
        world(1, shift=1.0, **arguments).draw_levels(np.zeros(500, int), np.arange(500))
    )
    assert set(levels.level_class) <= set(LEVEL_CLASSES)
    best = evaluate(ExpertAgent(0), world.id(), levels, **arguments)
    assert (best["return"] == 1).all()
    played = world(500, shift=1.0, **arguments)
    rng = np.random.default_rng(0)
    for _ in range(20):
        played.reset(seed=0)
        played.set_levels(levels.levels)
        fastest = np.full(500, 10_000)
        for step in range(1, played.max_steps + 1):
            reward, *_ = played.step(rng.integers(len(world.action_texts), size=500))
            fastest = np.where((reward > 0) & (fastest > step), step, fastest)
        assert (fastest >= best["length"]).all()


def reachable_states(played):
    """Every state that a world of one row gets to by any actions, and what each action leads to.

    A list of (state, [(where that state is in the list, or None if the episode is over; goals reached now)]).
    """

    def key(state):
        visited = state["first_visit"] >= 0
        return b"".join(np.asarray(values).tobytes() for values in (*state["state"].values(), visited))

    first = played.get_state()
    known, states, led = {key(first): 0}, [first], []
    for state in states:  # which grows on the way
        led.append([])
        for action in range(len(played.action_texts)):
            played.set_state(state)
            _, terminated, _, _ = played.step(np.array([action]))
            after = played.get_state()
            reached = (after["first_visit"] >= 0)[0] & (state["first_visit"] < 0)[0]
            if not terminated[0] and key(after) not in known:
                known[key(after)] = len(states)
                states.append(after)
            led[-1].append((None if terminated[0] else known[key(after)], reached))
    return list(zip(states, led, strict=True))


@each_world
@each_layout
def test_action_values_are_those_of_value_iteration(world, arguments):
    """And optimal actions are the best ones, those of the intended goal where another cannot be reached."""
    assert 0 < world.discount < 1
    drawn = world(1, shift=0.8, **arguments).draw_levels(np.full(8, 17), np.arange(8))
    for number in range(8):
        played = world(1, shift=0.8, **arguments)
        played.set_levels(take(drawn, [number]))
        states = reachable_states(played)
        following = np.array([[-1 if to is None else to for to, _ in led] for _, led in states])
        reached = np.array([[now for _, now in led] for _, led in states])  # state, action, goal
        visited = np.array([state["first_visit"][0] >= 0 for state, _ in states])
        best = np.zeros((len(states) + 1, len(world.goals)))  # the last one, -1, is the end
        for _ in range(10_000):
            values = np.where(reached, 1.0, world.discount * best[following]) * ~visited[:, None]
            if (best[:-1] == values.max(axis=1)).all():
                break
            best[:-1] = values.max(axis=1)
        good = (values > values.max(axis=1, keepdims=True) - 1e-9) & (values > 0)
        good = np.where(good.any(axis=1, keepdims=True), good, good[:, :, :1])
        for place, (state, _) in enumerate(states):
            played.set_state(state)
            np.testing.assert_allclose(played.action_values()[0], values[place].T, rtol=1e-12)
            assert (played.optimal_actions()[0] == good[place].T).all()


@each_world
@each_layout
def test_other_goals_keep_their_place_and_their_values_are_fractions(world, arguments):
    played = world(30, shift=0.8, **arguments)
    played.reset(seed=4)
    before = played.other_values()
    assert before.shape[::2] == (30, len(world.action_texts))
    rng = np.random.default_rng(0)
    for _ in range(10):
        values = played.other_values()
        missing = np.isnan(values)
        assert (missing == np.isnan(before)).all() and (missing.all(axis=2) == missing.any(axis=2)).all()
        assert ((values >= 0) & (values <= 1) | missing).all()
        played.step(rng.integers(len(world.action_texts), size=30))


@each_world
@each_layout
def test_values_follow_the_level(world, arguments):
    """What is remembered of a level is forgotten when the next one begins."""
    played, fresh = (world(20, shift=0.8, **arguments) for _ in range(2))
    played.reset(seed=1)
    played.action_values(), played.other_values()
    played.next_level(np.arange(5))
    fresh.set_state(played.get_state())
    assert (played.action_values() == fresh.action_values()).all()
    np.testing.assert_array_equal(played.other_values(), fresh.other_values())


@each_room
@each_layout
def test_other_goals_of_a_room_by_breadth_first_search(world, arguments):
    played = world(6, shift=0.8, **arguments)
    played.reset(seed=8)
    values = played.other_values()
    for row in range(6):
        level = take(played.level, row)
        things = {int(level[name]) for name in world.things.values()}
        ends = {int(level[name]) for name in world.endings}
        free = set(np.flatnonzero(~level["walls"].ravel()).tolist())
        around = neighbours(played.size)
        agent = int(level["start"])
        moved = [cell if (cell := int(around[agent, a])) in free else agent for a in range(4)]
        expected = []
        for goal in sorted(free - things):
            steps, new = {goal: 0}, [goal]
            for cell in new:
                for near in around[cell].tolist():
                    if near in free - ends and near not in steps:
                        steps[near] = steps[cell] + 1
                        new.append(near)
            if agent in steps:
                expected.append([world.discount ** steps[cell] if cell in steps else 0.0 for cell in moved])
        np.testing.assert_allclose(values[row, : len(expected)], expected)
        assert np.isnan(values[row, len(expected) :]).all()


@each_room
def test_a_large_room_has_other_goals_everywhere(world):
    played = world(2, size=21, shift=1.0)
    played.reset(seed=0)
    cells = played.other_goals(played.level)
    assert cells.shape == (2, MAX_OTHERS) and all(len(set(row)) == MAX_OTHERS for row in cells.tolist())
    row, column = np.divmod(cells, 21)
    assert (np.bincount(row.ravel(), minlength=21) > 0).all() and (np.bincount(column.ravel(), minlength=21) > 0).all()


@each_room
@each_layout
def test_every_start_of_a_level(world, arguments):
    played = world(1, shift=1.0, **arguments)
    drawn = played.draw_levels(np.zeros(3, int), np.arange(3))
    starts, copies = played.every_start(drawn, 1)
    picture = np.array([list(line) for line in played.level_text(drawn, 1).splitlines()[: played.size]])
    assert starts.tolist() == np.flatnonzero(np.isin(picture, [".", "A"])).tolist()
    assert (copies["start"] == starts).all()
    for name, values in drawn.items():
        assert name == "start" or (copies[name] == values[1]).all()


@each_world
@each_layout
def test_levels_print_and_parse(world, arguments):
    played = world(1, shift=0.7, **arguments)
    levels = played.certify(played.draw_levels(np.ones(50, int), np.arange(50)))
    for number, text in enumerate(levels.text):
        assert data_equivalence(played.parse_level(text), take(levels.levels, [number]))
        env = gym.make(world.id(), shift=0.0, **arguments)
        _, info = env.reset(seed=0, options={"level": text})
        assert info["level"] == text


@each_world
@each_layout
def test_every_action_moves_where_its_text_says(world, arguments):
    played = world(200, shift=1.0, **arguments)
    by_word = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
    for action, text in enumerate(world.action_texts):
        played.reset(seed=1)
        before = np.stack(np.divmod(played.state["agent"], played.size), 1)
        played.step(np.full(200, action))
        moved = np.stack(np.divmod(played.state["agent"], played.size), 1) - before
        expected = by_word[text.split()[-1]]
        assert ((moved == expected).all(1) | (moved == 0).all(1)).all() and (moved == expected).all(1).any()


@each_world
def test_docstring_is_the_manual(world):
    headings = [line.strip("# ") for line in world.__doc__.splitlines() if line.strip().startswith("## ")]
    assert headings == [
        "Description",
        "Goals",
        "Shift",
        "Actions",
        "Observation",
        "Rewards",
        "Episode end",
        "Arguments",
        "Version history",
    ]
    for action in world.action_texts:
        assert action in world.__doc__
    for name in (*world.goals, *world.goals.values()):
        assert f"``{name}``" in world.__doc__


@each_world
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shift": 1.5}, ["shift=1.5", "[0, 1]"]),
        ({"shift": -0.1}, ["shift=-0.1"]),
        ({"size": 2}, ["size=2", "3.."]),
        ({"layout": "mase"}, ["layout='mase'", "'maze'"]),
        ({"layout": "maze", "size": 6}, ["size=6", "odd"]),
        ({"observation": "pixels"}, ["observation='pixels'", "'planes'"]),
        ({"split": "validation"}, ["split='validation'", "'train'"]),
        ({"style": "poem"}, ["style='poem'", "'relative'"]),
        ({"max_steps": 0}, ["max_steps=0"]),
        ({"size": 5.5}, ["size=5.5", "whole number"]),
        ({"layout": "walls", "density": 1.0}, ["density=1.0"]),
    ],
)
def test_bad_arguments_are_named(world, arguments, words):
    with pytest.raises(ValueError) as error:
        gym.make(world.id(), **arguments)
    for word in words:
        assert word in str(error.value)


@each_world
def test_stepping_wrongly_is_an_error(world):
    env = gym.make(world.id()).unwrapped
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        env.step(4)
    with pytest.raises(ValueError, match="options"):
        env.reset(options={"levels": "x"})
    for _ in range(env.world.max_steps):
        _, _, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            break
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)


def test_unknown_world_shows_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'cheese-corner'"):
        find_world("chese-corner")
    with pytest.raises(ValueError, match="did you mean 'astray/CheeseCorner-v0'"):
        find_world("astray/CheesCorner-v0")
