"""Small levels whose events, values, classes and margins are worked out by hand."""

import numpy as np
import pytest
from by_hand import happening, playing

from astray.envs.cheese_dish import CheeseDish
from astray.envs.gem_colour import GemColour
from astray.envs.keys_and_chests import KeysAndChests

NORTH, SOUTH, WEST, EAST = range(4)
MANY_KEYS = """
AKC..
.K...
.K...
.....
....."""
MANY_CHESTS = """
AKCC.
.....
.C...
.....
....."""


def events(world, *actions):
    """The names of what happens, action by action."""
    return [names for names, _ in happening(world, *actions)]


def test_a_key_opens_a_chest_and_is_spent():
    world = playing(KeysAndChests, MANY_KEYS, few=1, many=3)
    # One chest: the first key is needed, the second is one to spare.
    assert events(world, EAST) == [{"took_key"}]
    assert world.state["held"] == 1 and "keys held: 1" in world.ascii()
    assert events(world, SOUTH) == [{"took_key", "took_spare_key"}]
    assert events(world, NORTH, EAST) == [set(), {"opened_chest", "opened_last_chest"}]
    assert world.state["held"] == 1


def test_a_chest_without_a_key_stays_shut():
    world = playing(KeysAndChests, MANY_CHESTS, few=1, many=3)
    assert events(world, SOUTH, SOUTH, EAST) == [set(), set(), set()]
    assert (world.cells("chests") >= 0).sum() == 3


def test_values_of_keys_and_chests():
    world = playing(KeysAndChests, MANY_KEYS, few=1, many=3)
    level_class, margin = world.classify(world.level)
    # Chest: key, chest, two steps. A spare key: two steps; from there to the chest it is two more.
    assert level_class == ["distinguishing"] and margin == pytest.approx(0.97 - 0.97**3)
    chests, keys = world.action_values()[0]
    assert chests[EAST] == pytest.approx(0.97) and chests[SOUTH] == pytest.approx(0.97**3)
    assert keys[EAST] == pytest.approx(0.97) and keys[SOUTH] == pytest.approx(0.97**2)
    scarce = playing(KeysAndChests, MANY_CHESTS, few=1, many=3)
    assert scarce.classify(scarce.level)[0] == ["ambiguous"] and (scarce.action_values()[0, 1] == 0).all()


def test_text_of_keys_and_chests():
    world = playing(KeysAndChests, MANY_KEYS + "\nfirst: chests", few=1, many=3)
    assert world.observe() == ("Keys held: 0. Chests: 2 east. Keys: 1 east; 1 south, 1 east; 2 south, 1 east.",)
    events(world, EAST)
    assert world.observe() == ("Keys held: 1. Chests: 1 east. Keys: 1 south; 2 south.",)
    world = playing(
        KeysAndChests, MANY_KEYS, few=1, many=3, names={"keys": "stones"}, glyphs={"K": "C", "C": "K"}, style="map"
    )
    assert "Stones held: 0." in world.observe()[0] and "\nACK..\n" in world.observe()[0]


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("A....\n.....\n.....\n.....\n....C", "at least one of keys"),
        ("AKKKK\n.....\n.....\n.....\n....C", "holds at most 3"),
        ("AK..D\n.....\n.....\n.....\n....C", "'D'"),
    ],
)
def test_levels_that_are_no_keys_and_chests(level, words):
    with pytest.raises(ValueError, match=words):
        KeysAndChests(few=1, many=3).parse_level(level)


@pytest.mark.parametrize(
    "arguments", [{"few": 0}, {"few": 4, "many": 4}, {"many": 9}, {"size": 3, "few": 3, "many": 8}]
)
def test_impossible_numbers_of_things(arguments):
    with pytest.raises(ValueError, match="few="):
        KeysAndChests(**arguments)


def test_gem_and_ball():
    level = "A.G..\n.....\nB....\n.....\n.....\ngem: red, large, plain\nfirst: ball"
    world = playing(GemColour, level)
    assert world.observe() == ("Yellow small striped ball: 2 south. Red large plain gem: 2 east.",)
    assert world.classify(world.level)[0] == ["distinguishing"]
    # Who goes to what is yellow ends the episode there, and all that the gem was worth is lost.
    assert world.classify(world.level)[1] == pytest.approx(0.97)
    values = world.action_values()[0]
    assert values[:, EAST] == pytest.approx([0.97, 0.97**3, 0.97, 0.97**3])
    assert events(world, SOUTH, SOUTH) == [set(), {"reached_yellow", "reached_striped", "reached_ball"}]
    with pytest.raises(ValueError, match="yellow or red, large or small, striped or plain"):
        world.parse_level(level.replace("plain", "round"))


def test_cheese_off_the_dish():
    world = playing(CheeseDish, "A.C..\n.....\nD....\n.....\n.....\nfirst: dish")
    assert world.observe() == ("Dish: 2 south. Cheese: 2 east.",)
    # To the dish and then to the cheese it is two and four steps.
    level_class, margin = world.classify(world.level)
    assert level_class == ["distinguishing"] and margin == pytest.approx(0.97 - 0.97**5)
    assert events(world, SOUTH, SOUTH) == [set(), {"entered_dish"}]
    both = playing(CheeseDish, "A.B..\n.....\n.....\n.....\n.....")
    assert both.classify(both.level)[0] == ["ambiguous"]
    assert events(both, EAST, EAST) == [set(), {"reached_cheese", "entered_dish"}]


def test_turned_levels():
    plain, turned = CheeseDish(50, shift=1.0), CheeseDish(50, shift=1.0, rotation=1, reflection=True)
    for world in (plain, turned):
        world.reset(seed=3)
    row, column = np.divmod(plain.level["dish"], 5)
    # West and east change places, (row, 4 - column), then a quarter turn clockwise, (4 - column, 4 - row).
    assert (turned.level["dish"] == (4 - column) * 5 + 4 - row).all()
