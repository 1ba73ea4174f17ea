"""One contract for every registered world: adding a world adds no test code."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence

from astray.agents.vec_env import vec_env
from astray.envs import find_world, worlds
from astray.envs.grid import MAX_OTHERS, GridWorld, neighbours
from astray.envs.levels import take
from astray.experiments.check import check_world
from astray.experiments.contract import EPISODE_CHECKS, subjects

ROOT = Path(__file__).parents[1]

WORLDS = list(worlds().values())
SUBJECTS = [subject for world in WORLDS for subject in subjects(world)]


def name_of(value):
    return getattr(value, "__name__", None) or f"{value.kind.__name__}{dict(value.arguments) or ''}"


each_world = pytest.mark.parametrize("world", WORLDS, ids=name_of)
each_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
WALKED = [world for world in WORLDS if issubclass(world, GridWorld) and world.action_texts == GridWorld.action_texts]
each_room = pytest.mark.parametrize("world", WALKED, ids=name_of)
each_layout = pytest.mark.parametrize("arguments", ({}, *GridWorld.variants), ids=("open", "walls", "maze"))


@each_subject
@pytest.mark.parametrize("check", EPISODE_CHECKS, ids=name_of)
def test_contract(subject, check):
    check(subject)


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
    assert envs.render()[0] == envs.render()[1] and text.startswith(envs.render()[0])
    fast = vec_env(world.id(), 2)
    fast.set_options({"level": text})
    assert (fast.reset() == observations).all() and not (fast.reset() == observations).all()
    with pytest.raises(ValueError, match="2 environments"):
        envs.reset(options={"level": [text]})


@each_subject
def test_other_goals_keep_their_place_and_their_values_are_fractions(subject):
    played = subject.make(30)
    played.reset(seed=4)
    before = played.other_values()
    assert before.shape[::2] == (30, len(subject.kind.action_texts))
    for actions in subject.actions(0, 10, 30):
        values = played.other_values()
        missing = np.isnan(values)
        assert (missing == np.isnan(before)).all() and (missing.all(axis=2) == missing.any(axis=2)).all()
        assert ((values >= 0) & (values <= 1) | missing).all()
        played.step(actions)


@each_subject
def test_values_follow_the_level(subject):
    """What is remembered of a level is forgotten when the next one begins."""
    played, fresh = (subject.make(20) for _ in range(2))
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
        things = {int(cell) for name in world.things.values() for cell in np.ravel(level[name])}
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


GENERAL = [
    ({"shift": 1.5}, ["shift=1.5", "[0, 1]"]),
    ({"shift": -0.1}, ["shift=-0.1"]),
    ({"observation": "pixels"}, ["observation='pixels'", "'planes'"]),
    ({"split": "validation"}, ["split='validation'", "'train'"]),
    ({"style": "poem"}, ["style='poem'", "'relative'"]),
    ({"max_steps": 0}, ["max_steps=0"]),
    ({"names": {"thingamajig": "x"}}, ["names='thingamajig'"]),
    ({"glyphs": {"#": "A"}}, ["glyphs="]),
    ({"order": "alphabetical"}, ["order='alphabetical'", "'drawn'"]),
    ({"rotation": 9}, ["rotation=9"]),
]
OF_ROOMS = [
    ({"size": 2}, ["size=2", "3.."]),
    ({"size": 64}, ["size=64", "63"]),
    ({"size": 5.5}, ["size=5.5", "whole number"]),
    ({"layout": "mase"}, ["layout='mase'", "'maze'"]),
    ({"layout": "maze", "size": 6}, ["size=6", "odd"]),
    ({"layout": "walls", "density": 1.0}, ["density=1.0"]),
]


@pytest.mark.parametrize(
    ("world", "arguments", "words"),
    [(world, *case) for world in WORLDS for case in GENERAL]
    + [(world, *case) for world in WALKED for case in OF_ROOMS],
)
def test_bad_arguments_are_named(world, arguments, words):
    with pytest.raises(ValueError) as error:
        gym.make(world.id(), **arguments)
    for word in words:
        assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (".....\n.A...\n..?..\n....C\nX....", ["line 3", "column 3", "'?'"]),
        (".....\n.A...\n.....\n....C", ["4 lines", "5"]),
        (".....\n.A...\n......\n....C\nX....", ["line 3", "6 characters"]),
        (".....\n.A.C.\n.....\n....C\nX....", ["one C", "has 2"]),
        (".....\n.A...\n.....\n.C...\n.X...", ["not in a corner"]),
        (".....\n.A...\n..#..\n....C\nX....", ["layout='open'"]),
        (".....\n.A...\n.K...\n....C\nX....", ["line 3", "column 2", "'K'"]),
        (".....\n.A...\n.....\n....C\nX....\nfirst: mouse", ["first='mouse'"]),
    ],
)
def test_malformed_levels_are_named(bad, words):
    env = gym.make("astray/CheeseCorner-v0")
    env.reset(seed=0)
    before = env.unwrapped.world.get_state()
    with pytest.raises(ValueError) as error:
        env.reset(options={"level": bad})
    for word in words:
        assert word in str(error.value) and "\n" not in str(error.value)
    assert data_equivalence(env.unwrapped.world.get_state(), before)


@each_world
def test_ghosts_are_counted(world):
    assert world(1, ghosts=True).event_names == (
        *world.event_names,
        *(f"visited_ghost_{name}" for name in world.things.values()),
    )


@pytest.mark.parametrize("part", ["goals", "action_texts", "advance", "sample", "instruction", "max_text_length"])
def test_a_world_without_its_parts_is_refused(part, tmp_path):
    text = (ROOT / "tests" / "worlds" / "tap.py").read_text()
    without = text.replace(f"    {part} =", f"    no_{part} =").replace(f"    def {part}(", f"    def no_{part}(")
    path = tmp_path / f"without_{part}.py"
    path.write_text(without)
    with pytest.raises(ValueError, match=f"world Tap is not whole: it must say .*{part}"):
        gym.make("astray/World-v0", world=f"{path}:Tap")


def test_a_world_by_path():
    path = ROOT / "tests" / "worlds" / "tap.py"
    env = gym.make("astray/World-v0", world=f"{path}:Tap", shift=1.0)
    assert env.reset(seed=0)[0].endswith((".",)) and find_world(f"{path}:Tap") is find_world(f"{path}:Tap")
    for world, words in (
        (f"{path}:Bath", ["defines no World 'Bath'", "Tap"]),
        (f"{path}x.py:Tap", ["is not there"]),
    ):
        with pytest.raises(ValueError) as error:
            gym.make("astray/World-v0", world=world)
        assert all(word in str(error.value) for word in words)


def test_the_strangers_world_keeps_the_contract(capsys):
    assert check_world(find_world(f"{ROOT / 'tests' / 'worlds' / 'tap.py'}:Tap")) == 0
    assert "nothing broken" in capsys.readouterr().out


def test_what_is_broken_is_explained(capsys):
    class Broken(find_world("cheese-dish")):
        """Nothing said."""

        variants = ()
        action_texts = ("go south", "go north", "go west", "go east")

        def solvable(self, levels):
            raise RuntimeError("out of order")

    assert check_world(Broken) == 1
    out = capsys.readouterr().out
    assert "expected: a docstring with the headings Goals, Shift" in out and "to mend: " in out
    assert "RuntimeError: out of order" in out and "test_worlds.py, line" in out


def test_unknown_world_shows_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'cheese-corner'"):
        find_world("chese-corner")
    with pytest.raises(ValueError, match="did you mean 'astray/CheeseCorner-v0'"):
        find_world("astray/CheesCorner-v0")
