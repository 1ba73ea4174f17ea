"""Draws are pure functions of their address; solvers agree with brute force."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astray.envs.cheese_corner import CheeseCorner
from astray.envs.grid import maze_walls, neighbours
from astray.envs.levels import Draws, fingerprints, in_split
from astray.envs.solve import UNREACHABLE, distances, within_reach


def brute_distances(walls, source):
    """Breadth-first search, one cell at a time."""
    size = len(walls)
    steps, queue = {source: 0}, [source]
    for cell in queue:
        for to in neighbours(size)[cell]:
            if to not in steps and not walls.flat[to]:
                steps[int(to)] = steps[cell] + 1
                queue.append(int(to))
    return np.array([steps.get(cell, UNREACHABLE) for cell in range(size * size)])


def test_draws_are_uniform_and_independent_of_the_batch():
    seeds = np.arange(20_000)
    draws = Draws(seeds, np.zeros_like(seeds))
    numbers = draws.uniform("a")
    assert abs(numbers.mean() - 0.5) < 0.01 and abs(numbers.var() - 1 / 12) < 0.003
    assert abs(np.corrcoef(numbers, draws.uniform("b"))[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
    alone = Draws(seeds[17:18], np.zeros(1, int))
    assert alone.uniform("a")[0] == numbers[17]
    assert (draws.uniform("c", 3)[:, 0] == draws.uniform("c")).all()


def test_no_two_of_64_cells_8_envs_and_1000_episodes_coincide():
    bases = [np.random.SeedSequence(cell).generate_state(2, np.uint64)[1] for cell in range(64)]
    seeds = np.concatenate([base + np.arange(8, dtype=np.uint64) for base in bases])
    grid = np.repeat(seeds, 1000), np.tile(np.arange(1000), len(seeds))
    numbers = Draws(*grid).uniform("x")
    assert len(np.unique(numbers)) == len(numbers)


def test_attempts_differ():
    seeds = np.zeros(4, int)
    assert (Draws(seeds, np.arange(4), 0).uniform("x") != Draws(seeds, np.arange(4), 1).uniform("x")).all()


@pytest.mark.parametrize("arguments", [{}, {"layout": "walls", "size": 6}, {"layout": "maze", "size": 7}])
def test_the_shift_moves_the_cheese_and_nothing_else(arguments):
    seeds, episodes = np.zeros(2000, int), np.arange(2000)
    low, middle, high = (CheeseCorner(shift=s, **arguments).draw_levels(seeds, episodes) for s in (0, 0.3, 1))
    # Only levels that were rejected at one shift and not at another may differ in more than the cheese.
    same = np.ones(2000, bool)
    for name in ("walls", "start", "corner", "order"):
        for other in (middle, high):
            same &= (low[name] == other[name]).reshape(2000, -1).all(1)
    assert same.mean() == 1 if not arguments else same.mean() > 0.5
    assert (low["cheese"] == low["corner"]).all()
    shifted = middle["cheese"] != low["cheese"]
    assert (middle["cheese"] == high["cheese"])[same & shifted].all()
    assert not arguments or shifted.any()
    if not arguments:
        assert abs(shifted.mean() - 0.3 * 23 / 24) < 0.04
        anywhere = high["cheese"] != high["start"]
        assert anywhere.all() and (high["cheese"] == high["corner"]).mean() == pytest.approx(1 / 24, abs=0.02)


def test_corners_starts_and_orders_are_drawn_evenly():
    levels = CheeseCorner().draw_levels(np.zeros(8000, int), np.arange(8000))
    for name, share in (("corner", 1 / 4), ("order", 1 / 2)):
        assert np.unique(levels[name], return_counts=True)[1] / 8000 == pytest.approx(share, abs=0.02)
    assert len(np.unique(levels["fingerprint"])) == 96


def test_fixed_corner_and_order():
    world = CheeseCorner(corner="north-east", order="cheese", corner_name="neutral")
    world.reset(seed=0)
    assert (world.level["corner"] == 4).all() and world.sentences(np.array([0]))[0].startswith("Cheese: ")
    assert "The corner: " in world.sentences(np.array([0]))[0]


def test_maze_is_a_tree_over_all_rooms():
    size = 7
    walls = maze_walls(Draws(np.arange(200), np.zeros(200, int)), size)
    free = ~walls
    doors = (free[:, :, 1:] & free[:, :, :-1]).sum((1, 2)) + (free[:, 1:] & free[:, :-1]).sum((1, 2))
    assert (doors == free.sum((1, 2)) - 1).all()
    assert (distances(walls, np.zeros(200, int)).reshape(200, size, size)[free] < UNREACHABLE).all()
    assert len(np.unique(fingerprints(walls))) > 190


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 9), st.floats(0, 0.6), st.integers(0, 2**32 - 1))
def test_distances_equal_breadth_first_search(size, density, seed):
    rng = np.random.default_rng(seed)
    walls = rng.random((3, size, size)) < density
    source = rng.integers(size * size, size=3)
    walls.reshape(3, -1)[np.arange(3), source] = False
    expected = np.array([brute_distances(w, int(s)) for w, s in zip(walls, source, strict=True)])
    assert (distances(walls, source) == expected).all()
    for limit in (0, 2, 5, 100):
        reached = within_reach(walls, source, np.tile(np.arange(size * size), (3, 1)), limit)
        assert (reached == (expected <= limit).all(1)).all()
        target = rng.integers(size * size, size=(3, 1))
        assert (within_reach(walls, source, target, limit) == (expected[np.arange(3), target[:, 0]] <= limit)).all()


def test_largest_room():
    walls = np.zeros((1, 63, 63), bool)
    assert distances(walls, np.array([0])).max() == 124
    assert within_reach(walls, np.array([0]), np.array([[63 * 63 - 1]]), 124)[0]
    assert not within_reach(walls, np.array([0]), np.array([[63 * 63 - 1]]), 123)[0]


def shortest_ways(walls, start, end):
    """Every shortest path from start to end, as tuples of cells."""
    to_end = brute_distances(walls, end)
    ways = [(start,)] if to_end[start] < UNREACHABLE else []
    for _ in range(int(to_end[start]) if ways else 0):
        ways = [
            (*way, int(cell))
            for way in ways
            for cell in set(neighbours(len(walls))[way[-1]])
            if not walls.flat[cell] and to_end[cell] == to_end[way[-1]] - 1
        ]
    return ways


@pytest.mark.parametrize("arguments", [{"size": 3}, {"size": 4, "layout": "walls"}, {"size": 5, "layout": "maze"}])
def test_classes_equal_the_definition_by_enumeration_of_paths(arguments):
    world = CheeseCorner(shift=1.0, **arguments)
    levels = world.draw_levels(np.zeros(300, int), np.arange(300))
    classes, _ = world.classify(levels)
    for i in range(300):
        walls = levels["walls"][i]
        start, cheese, corner = (int(levels[name][i]) for name in ("start", "cheese", "corner"))
        to_cheese, to_corner = shortest_ways(walls, start, cheese), shortest_ways(walls, start, corner)
        assert all(a != b for way in to_cheese for a, b in pairwise(way))
        serves_corner = [corner in way for way in to_cheese]
        serves_cheese = [cheese in way for way in to_corner]
        if all(serves_corner) and all(serves_cheese):
            expected = "ambiguous"
        elif not any(serves_corner) and not any(serves_cheese):
            expected = "distinguishing"
        else:
            expected = "neither"
        assert classes[i] == expected
    assert set(classes) == {"ambiguous", "distinguishing", "neither"}


@pytest.mark.parametrize("arguments", [{"size": 3, "max_steps": 6}, {"size": 4, "layout": "walls", "density": 0.3}])
def test_margin_equals_search_over_all_walks(arguments):
    """Enumerates states (cell, corner entered, steps): best value among walks that enter the corner soonest."""
    world = CheeseCorner(shift=1.0, **arguments)
    levels = world.draw_levels(np.ones(120, int), np.arange(120))
    classes, margins = world.classify(levels)
    moves = neighbours(world.size)
    for i in range(120):
        walls = levels["walls"][i].ravel()
        start, cheese, corner = (int(levels[name][i]) for name in ("start", "cheese", "corner"))
        frontier, values = {(start, -1)}, {}
        for step in range(1, world.max_steps + 1):
            reached = set()
            for cell, entered in frontier:
                for to in moves[cell]:
                    to = cell if walls[to] else int(to)
                    when = step if entered < 0 and to == corner else entered
                    if to == cheese:
                        values[when] = max(values.get(when, 0), world.discount ** (step - 1))
                    else:
                        reached.add((to, when))
            frontier = reached
        best = max(values.values())
        corner_first = [when for when in {*values, *(when for _, when in frontier)} if when > 0]
        soonest = min(corner_first, default=None)
        expected = 0.0 if soonest is None else best - values.get(soonest, 0.0)
        assert margins[i] == pytest.approx(expected), levels["start"][i]
        assert classes[i] != "ambiguous" or margins[i] == 0


def test_map_explains_every_glyph_it_shows():
    world = CheeseCorner(50, shift=0.5, style="map", layout="walls")
    world.reset(seed=0)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        for text in world.sentences(np.arange(50)):
            legend, _, picture = text.partition("\n")
            assert legend in world.legends and len(text) <= world.max_text_length
            seen |= set(picture)
        _, terminated, truncated, _ = world.step(rng.integers(4, size=50))
        world.next_level(np.flatnonzero(terminated | truncated))
    assert seen == set("#.ABCXx\n")  # B both; x: the agent on the corner, a small letter


def test_splits_are_a_fixed_quarter():
    numbers = fingerprints(np.arange(40_000))
    assert in_split(numbers, "test").mean() == pytest.approx(0.25, abs=0.01)
    assert (in_split(numbers, "train") ^ in_split(numbers, "test")).all()


def test_unsolvable_arguments_are_an_error(monkeypatch):
    monkeypatch.setattr("astray.envs.source.MAX_ATTEMPTS", 3)
    with pytest.raises(ValueError, match="max_steps=1"):
        CheeseCorner(size=9, max_steps=1).draw_levels(np.zeros(200, int), np.arange(200))
    with pytest.raises(ValueError, match="only 0 different distinguishing levels"):
        CheeseCorner(shift=0.0).certified_levels("distinguishing", 5, 0)


def test_parse_errors_name_what_is_wrong():
    world = CheeseCorner()
    for text, word in [
        ("...", "this world has 5"),
        ("A...B\n" + ".....\n" * 3 + "....?", "none of"),
        ("A...B\n" + ".....\n" * 3 + "....C", "one C"),
        ("A.B..\n" + ".....\n" * 3 + ".....", "not in a corner"),
        ("A#..B\n" + ".....\n" * 4, "layout='open'"),
        ("A...B\n" + ".....\n" * 4 + "first: dog", "'cheese'"),
    ]:
        with pytest.raises(ValueError, match=word):
            world.parse_level(text)
    with pytest.raises(ValueError, match="max_steps=30"):
        CheeseCorner(layout="walls").parse_level("A#..B\n#....\n" + ".....\n" * 3)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_a_world_of_few_levels_shows_them_and_no_others(shift):
    known = CheeseCorner(shift=shift).draw_levels(np.zeros(3, int), np.arange(3))["fingerprint"]
    world = CheeseCorner(16, shift=shift, num_levels=3)
    world.reset(seed=5)
    met = [world.level["fingerprint"].copy()]
    for _ in range(30):
        world.next_level(np.arange(16))
        met.append(world.level["fingerprint"].copy())
    assert set(np.concatenate(met).tolist()) == set(known.tolist())
    shares = [(np.array(met) == one).mean() for one in known]
    assert len(set(known.tolist())) < 3 or all(0.2 < share < 0.5 for share in shares)
    other = CheeseCorner(16, shift=shift, num_levels=3)
    other.reset(seed=5)
    assert (other.level["fingerprint"] == met[0]).all()
    with pytest.raises(ValueError, match="num_levels=0 must be at least 1"):
        CheeseCorner(num_levels=0)
