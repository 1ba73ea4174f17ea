"""Exact shortest paths on grids, for many levels at once.

Cells are numbered row by row: cell = row * size + column. Moves are one step north, south, west or east.
"""

import numpy as np

UNREACHABLE = np.int16(30_000)
"""The distance of a cell that no path reaches (larger than any path, and small enough to add two)."""


def _spread(rows: np.ndarray) -> np.ndarray:
    """Bit sets of cells (one integer per grid row, ``uint64[n, size]``) and all their neighbours."""
    one = np.uint64(1)
    grown = rows | (rows << one) | (rows >> one)
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown


def free_bits(walls: np.ndarray) -> np.ndarray:
    """The cells without a wall as bit sets: ``bool[n, size, size]`` to ``uint64[n, size]``; size is at most 63."""
    return ~walls @ (np.uint64(1) << np.arange(walls.shape[2], dtype=np.uint64))


def within_reach(walls: np.ndarray, start: np.ndarray, targets: np.ndarray, limit: int) -> np.ndarray:
    """Whether every target can be reached from the start in at most ``limit`` steps.

    One flood fill over bit sets serves all levels and targets, so that rejecting levels stays cheap.

    Args:
        walls: ``bool[n, size, size]``.
        start: ``int[n]``, cells.
        targets: ``int[n, k]``, cells.
        limit: steps.

    Returns:
        ``bool[n]``.
    """
    n, size, _ = walls.shape
    free = free_bits(walls)
    each = np.arange(n)
    reached = np.zeros((n, size), np.uint64)
    reached[each, start // size] = np.uint64(1) << (start % size).astype(np.uint64)
    for _ in range(limit):
        grown = _spread(reached) & free
        if np.array_equal(grown, reached):
            break
        reached = grown
    hits = reached[each[:, None], targets // size] >> (targets % size).astype(np.uint64) & np.uint64(1)
    return hits.all(axis=1)


def distances(walls: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Steps from every cell to the source, ``int16[n, size * size]``; ``UNREACHABLE`` where there is no path.

    Args:
        walls: ``bool[n, size, size]``.
        source: ``int[n]``, cells.
    """
    n, size, _ = walls.shape
    free = free_bits(walls)
    each = np.arange(n)
    columns = np.arange(size, dtype=np.uint64)
    reached = np.zeros((n, size), np.uint64)
    reached[each, source // size] = np.uint64(1) << (source % size).astype(np.uint64)
    steps = np.full((n, size, size), UNREACHABLE)
    new, step = reached, 0
    while new.any():
        steps[(new[:, :, None] >> columns & np.uint64(1)).astype(bool)] = step
        grown = _spread(reached) & free
        new = grown & ~reached
        reached, step = grown, step + 1
    return steps.reshape(n, -1)
