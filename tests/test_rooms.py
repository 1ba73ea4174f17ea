"""Rooms, against a level worked out by hand."""

import by_hand
import numpy as np
import pytest

from astray.envs.rooms import Rooms, Way

NORTH, SOUTH, WEST, EAST, TAKE, UNLOCK, RADIO = range(7)
LEVEL = "A.K..\n####R\n..Q..\nB####\n....E"
WITH_RADIO = "A.K.T\n####R\n..Q..\nB####\n....E"
WAY_OUT = (EAST, TAKE, EAST, UNLOCK, SOUTH, WEST, TAKE, WEST, UNLOCK, SOUTH, EAST, EAST)


def playing(level=LEVEL, **arguments):
    """A world of one row in a level given as text."""
    return by_hand.playing(Rooms, level, **arguments)


def after(world, *actions):
    """What happened in the last of some actions: the room (row and column), names of events, and whether it is over."""
    *_, (names, over) = by_hand.happening(world, *actions)
    row, column = divmod(int(world.state["agent"][0]), world.width)
    return (row // 2, column // 2), names, over


def test_the_way_out():
    world = playing()
    assert after(world, *WAY_OUT[:2]) == ((0, 1), {"took_key"}, False)
    assert after(world, *WAY_OUT[2:4]) == ((0, 2), {"unlocked_door"}, False)
    assert after(world, *WAY_OUT[4:7]) == ((1, 1), {"took_key"}, False)
    assert after(world, *WAY_OUT[7:9]) == ((1, 0), {"unlocked_door"}, False)
    assert after(world, *WAY_OUT[9:]) == ((2, 2), {"reached_exit"}, True)


def test_what_does_not_help():
    world = playing()
    assert after(world, TAKE) == ((0, 0), set(), False)  # no key here
    assert after(world, RADIO) == ((0, 0), set(), False)  # no radio either
    assert after(world, NORTH) == after(world, SOUTH) == after(world, WEST) == ((0, 0), set(), False)
    assert after(world, EAST, EAST, UNLOCK) == ((0, 2), set(), False)  # the key is still there
    assert after(world, SOUTH) == ((0, 2), set(), False)  # locked
    assert after(world, WEST, TAKE, TAKE) == ((0, 1), set(), False)  # taken before
    assert after(world, UNLOCK) == ((0, 1), set(), False)  # no door here
    assert after(world, EAST, UNLOCK, UNLOCK) == ((0, 2), set(), False)  # unlocked before
    assert after(world, SOUTH, WEST, WEST, UNLOCK) == ((1, 0), set(), False)  # the red key does not fit
    assert after(world, SOUTH) == ((1, 0), set(), False)


def test_values_and_classes():
    world = playing()
    values = world.action_values()[0, 0]
    assert values.argmax() == EAST and values.max() == pytest.approx(0.97**11)  # twelve steps
    assert values[TAKE] == values[NORTH] == pytest.approx(0.97**12)
    level = world.parse_level(LEVEL)
    assert world.classify(level) == ("ambiguous", 0)
    swapped = LEVEL.translate(str.maketrans("RBKQ", "BRQK"))
    assert world.classify(world.parse_level(swapped)) == ("distinguishing", 0)
    assert Rooms(max_steps=12).parse_level(LEVEL) and not Rooms(max_steps=11).solvable(level)[0]


def test_the_way_is_measured_in_rooms():
    level = Rooms().parse_level("A.K..\n####R\n..Q..\nB####\n..E..")
    way = Way(level["walls"], level["start"], level["exit"])
    assert way.length == 7 and way.is_tree[0]
    assert way.turnoff[0, [0, 2, 4, 14, 12, 10, 20, 22, 24]].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert way.aside[0, [12, 22, 24]].tolist() == [0, 0, 1]
    assert way.doorway(np.array([2])) == level["red_door"] and way.doorway(np.array([5])) == level["blue_door"]


def test_words_maps_and_planes():
    world = playing()
    assert world.observe() == (
        "Exit: 2 south, 2 east. Red key: 1 east. Blue key: 1 south, 1 east. Red door: 2 east, to the south. "
        "Blue door: 1 south, to the south. Doorways here: east.",
    )
    after(world, EAST, TAKE, EAST)
    assert world.observe() == (
        "Exit: 2 south. Red key: held. Blue key: 1 south, 1 west. Red door: here, to the south. "
        "Blue door: 1 south, 2 west, to the south. Doorways here: south (red door, locked), west.",
    )
    assert world.status(np.array([0])).tolist() == [[True, False]]
    after(world, UNLOCK)
    assert "Red door: open." in world.observe()[0] and world.observe()[0].endswith("Doorways here: south, west.")
    assert world.ascii() == "....A\n####.\n..Q..\nB####\n....E"
    assert world.planes(np.array([0]))[0, 3:8].sum(axis=(1, 2)).tolist() == [1, 0, 0, 1, 0]
    told = playing(style="map", names={"red_key": "gold key"})
    assert told.observe()[0].endswith(f"North is up.\n{LEVEL}\nHeld: nothing.")
    after(told, EAST, TAKE)
    assert told.observe()[0].endswith("Held: gold key.") and "K gold key" in told.observe()[0]


def test_the_radio_speaks_until_the_next_action():
    world = playing(WITH_RADIO, radio=True)

    def planes():
        return world.planes(np.array([0]))[0, -8:]

    assert "Radio: 2 east." in world.observe()[0] and "says" not in world.observe()[0] and not planes().any()
    assert after(world, EAST, EAST, RADIO) == ((0, 2), {"turned_on_radio"}, False)
    said, shown = world.observe()[0].partition("The radio says ")[2], planes()
    assert len(said) == len("4817 2093.") and shown.any() and not shown.all()
    assert world.observe()[0].endswith(said) and (planes() == shown).all()  # looking twice changes nothing
    copy = Rooms(1, radio=True)
    copy.set_state(world.get_state())
    assert copy.observe() == world.observe()
    after(world, RADIO)
    assert world.observe()[0].partition("The radio says ")[2] not in ("", said)
    after(world, NORTH)
    assert "says" not in world.observe()[0] and not planes().any()


def test_the_noise_is_a_function_of_seed_episode_and_step():
    worlds = [Rooms(64, radio=True, observation="planes") for _ in range(2)]
    for world in worlds:
        world.reset(seed=5)
        world.state["agent"] = world.level["radio"][:, 0].copy()
    np.random.seed(1)  # what anybody does to the global generator does not matter
    for world in worlds:
        world.step(np.full(64, RADIO))
    first, second = (world.observe()[:, -8:, 0, 0] for world in worlds)
    assert (first == second).all() and 0.4 < first.mean() < 0.6 and len(np.unique(first, axis=0)) > 40


def test_the_shift_changes_the_order_of_doors_and_how_mazes_lean():
    levels = [Rooms(shift=shift).draw_levels(np.arange(300), np.zeros(300, int)) for shift in (0.0, 0.4, 1.0)]
    assert (Rooms().classify(levels[0])[0] == "ambiguous").all()
    assert (Rooms().classify(levels[2])[0] == "distinguishing").all()
    west_east, north_south = ((~level["walls"][:, 0::2, 1::2]).sum(axis=(1, 2)).mean() for level in levels[::2])
    assert west_east > 5 > 3 > north_south  # of eight doorways
    which = np.where(Rooms().classify(levels[1])[0] == "ambiguous", 0, 2)
    for row, variant in enumerate(which):
        assert all((levels[1][name][row] == values[row]).all() for name, values in levels[variant].items())
    assert 0.3 < (which == 2).mean() < 0.5


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("A.K..\n##.#R\n..Q..\nB####\n....E", "exactly one way"),
        ("A.K..\n####R\n..Q.E\nB####\n.....", "on the way"),
        ("A....\n####R\n..Q..\nB####\n..K.E", "before its door"),
        ("A.K..\n####.\n..Q.R\nB####\n....E", "line 3, column 5: the red door must be in a doorway"),
        ("A.K..\n####R\n..Q..\n.####\n..B.E", "must be in a doorway"),
        ("A.K..\n#.##R\n..Q..\nB####\n....E", "lines and columns"),
        (WITH_RADIO, "radio=False needs no radio"),
    ],
)
def test_levels_that_are_none(level, message):
    with pytest.raises(ValueError, match=message):
        Rooms().parse_level(level)


@pytest.mark.parametrize("arguments", [{"size": 2}, {"size": 17}, {"size": 3.0}, {"order": "exit"}])
def test_arguments_that_are_not_allowed(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Rooms(**arguments)


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("reflection", [False, True])
def test_turned_levels_are_worth_the_same(rotation, reflection):
    plain, turned = Rooms(32, shift=0.5), Rooms(32, shift=0.5, rotation=rotation, reflection=reflection)
    for world in (plain, turned):
        world.reset(seed=3)
    # What each move becomes: west and east change places, then every move turns clockwise.
    moves = np.array([NORTH, SOUTH, EAST, WEST] if reflection else [NORTH, SOUTH, WEST, EAST])
    for _ in range(rotation):
        moves = np.array([EAST, WEST, NORTH, SOUTH])[moves]
    renamed = [*moves, TAKE, UNLOCK, RADIO]
    assert (turned.action_values()[:, :, renamed] == plain.action_values()).all()
    assert (turned.classify(turned.level)[0] == plain.classify(plain.level)[0]).all()
