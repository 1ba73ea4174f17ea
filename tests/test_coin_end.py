"""Coin at the far end, against levels worked out by hand."""

from functools import partial

import by_hand
import numpy as np
import pytest

from astray.envs.coin_end import CoinEnd

LEFT, RIGHT, JUMP_LEFT, JUMP_RIGHT, CLIMB = range(5)
SHIFTED = "..T..L..L...\n..A...G..O.E"
UNSHIFTED = "..L..L..L...\n..A...S..O.B"


playing = partial(by_hand.playing, CoinEnd)


def after(world, *actions):
    """What happened in the last of some actions: column, names of events, whether the episode is over."""
    *_, (names, over) = by_hand.happening(world, *actions)
    return int(world.state["agent"][0]) % world.length, names, over


def test_running_jumping_and_climbing():
    world = playing(UNSHIFTED)
    assert after(world, RIGHT) == (3, set(), False)
    assert after(world, CLIMB) == (3, set(), False)  # there is no ledge
    assert after(world, JUMP_RIGHT, CLIMB) == (5, set(), False)
    assert world.ascii().splitlines()[0] == "..L..l..L..." and "You are on a ledge." in world.observe()[0]
    assert after(world, CLIMB) == (5, set(), False) and world.state["agent"][0] == 5
    assert after(world, JUMP_RIGHT) == (7, set(), False)  # over the saw, and down
    assert after(world, JUMP_RIGHT) == (7, set(), False)  # a block is in the place
    assert after(world, RIGHT, RIGHT) == (8, set(), False)
    assert after(world, JUMP_RIGHT) == (10, set(), False)
    assert after(world, JUMP_RIGHT) == (11, {"reached_coin", "reached_end"}, True)


def test_gaps_and_saws_kill_and_pay_nothing():
    for level in (SHIFTED, UNSHIFTED):
        assert after(playing(level), RIGHT, RIGHT, RIGHT, JUMP_RIGHT) == (7, set(), False)
        assert after(playing(level), JUMP_RIGHT, JUMP_RIGHT) == (6, {"died"}, True)
        assert after(playing(level), RIGHT, RIGHT, RIGHT, RIGHT) == (6, {"died"}, True)
        world = playing(level)
        world.step(np.array([JUMP_RIGHT]))
        reward, over, _, _ = world.step(np.array([JUMP_RIGHT]))
        assert over[0] and reward[0] == 0 and world.ascii().splitlines()[1][6] in "gs"


def test_the_end_ends_nothing_and_the_border_holds():
    world = playing(SHIFTED, direction="left")  # how a given level was drawn does not matter
    assert after(world, RIGHT, RIGHT, RIGHT, JUMP_RIGHT, RIGHT, JUMP_RIGHT) == (10, set(), False)
    assert after(world, RIGHT) == (11, {"reached_end"}, False)
    assert after(world, RIGHT) == (11, set(), False)
    assert after(playing(SHIFTED), JUMP_LEFT, JUMP_LEFT) == (0, set(), False)
    assert after(playing(SHIFTED), LEFT, JUMP_LEFT) == (0, set(), False)


def test_a_coin_on_a_ledge_is_taken_by_climbing_only():
    world = playing(SHIFTED)
    assert after(world, LEFT, RIGHT) == (2, set(), False)
    assert after(world, CLIMB) == (2, {"reached_coin"}, True)


def test_words_and_maps():
    world = playing(SHIFTED)
    assert world.observe() == (
        "Far end: 9 right. Coin: here, on a ledge. Left: floor, floor. "
        "Right: floor, floor, floor, gap, floor, floor, block, floor, floor. Above: ledge.",
    )
    after(world, RIGHT, RIGHT)
    assert world.observe() == (
        "Far end: 7 right. Coin: 2 left, on a ledge. Left: floor, floor, floor, floor. "
        "Right: floor, gap, floor, floor, block, floor, floor. Above: nothing.",
    )
    renamed = playing(SHIFTED + "\nfirst: coin", names={"coin": "gem", "end": "wall"})
    assert renamed.observe()[0].startswith("Gem: here, on a ledge. Far wall: 9 right.")
    legend, *board = playing(SHIFTED, style="map").observe()[0].splitlines()
    assert "B coin and end, T coin and ledge" in legend and legend.endswith("you on it.")
    assert "\n".join(board) == SHIFTED


def test_classes_margins_and_values():
    world = CoinEnd(1)
    shifted, unshifted = (world.parse_level(level) for level in (SHIFTED, UNSHIFTED))
    level_class, margin = world.classify(shifted)
    # The coin is one climb away. Nobody may come down on 6 or 9, so the way to the end is 4, 5, 7, 8, 10, 11: six
    # steps. Six back, and up.
    assert level_class == ["distinguishing"] and margin == pytest.approx(1 - 0.97**12)
    assert (world.classify(unshifted)[0] == ["ambiguous"]) and world.classify(unshifted)[1] == 0
    world.set_levels(shifted)
    values = world.action_values()[0]
    assert values[0] == pytest.approx([0.97**2, 0.97**2, 0.97**2, 0.97**2, 1])
    assert values[1].max() == pytest.approx(0.97**5)
    assert world.optimal_actions()[0].tolist() == [[False] * 4 + [True], [False, True, False, True, False]]


def test_the_shift_moves_the_coin_and_nothing_else():
    levels = [CoinEnd(shift=shift).draw_levels(np.arange(200), np.zeros(200, int)) for shift in (0.0, 0.4, 1.0)]
    for name in ("start", "end", "ledge", "gap", "saw", "block", "order"):
        assert (levels[0][name] == levels[1][name]).all() and (levels[0][name] == levels[2][name]).all()
    coins = [level["coin"] for level in levels]
    assert (coins[0] == levels[0]["end"]).all() and (coins[2] < 12).all()
    moved = coins[1] == coins[2]
    assert ((coins[1] == coins[0]) | moved).all() and 0.3 < moved.mean() < 0.5
    before = np.sign(coins[2] - levels[2]["start"] % 12) == np.sign(levels[2]["end"] - levels[2]["start"])
    assert 0.1 < (~before).mean() < 0.5  # behind the start, too


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ("...C.L..L...\n..A...G..O.E", "must lie on a ledge"),
        (".....L..L..G\n..A...G..O.B", "gap must be on the ground"),
        (".....L..L...\n..A.L.G..O.B", "ledge must be in the upper line"),
        (".....L..L...\n..A...G..B..", "first or last column"),
        (".....L..L...\n..A...GO...B", "cannot be reached"),
        (".....L..L...\n..A..#.....B", "line 2, column 6: this world has no walls"),
    ],
)
def test_levels_that_are_none(level, message):
    with pytest.raises(ValueError, match=message):
        CoinEnd().parse_level(level)


@pytest.mark.parametrize(
    "arguments", [{"length": 3}, {"ledges": 0}, {"ledges": 11}, {"obstacles": -1}, {"direction": "up"}, {"rotation": 1}]
)
def test_arguments_that_are_not_allowed(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        CoinEnd(**arguments)


def test_reflection_swaps_left_and_right():
    plain, mirrored = (CoinEnd(64, shift=0.5, reflection=reflection) for reflection in (False, True))
    for world in (plain, mirrored):
        world.reset(seed=3)
    assert (mirrored.action_values()[:, :, [1, 0, 3, 2, 4]] == plain.action_values()).all()
    assert mirrored.ascii(5).splitlines() == [line[::-1] for line in plain.ascii(5).splitlines()]
