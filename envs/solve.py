"""Exact shortest paths on grids, for many levels at once.

Cells are numbered row by row: cell = row * size + column. Moves are one step north, south, west or east.
"""

import numpy as np

UNREACHABLE = np.int16(15_000)
"""The distance of a cell that no path reaches: larger than any path, and small enough that two add up."""


def _bits(walls: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Free cells and source as bit sets, one integer per grid row: both ``uint[size, n]``.

    Levels are the last axis, so that NumPy's inner loops are long; integers are as short as the size allows.
    """
    n, size, _ = walls.shape
    word = next(kind for kind in (np.uint16, np.uint32, np.uint64) if size < np.iinfo(kind).bits)
    free = np.ascontiguousarray((~walls @ (np.uint64(1) << np.arange(size, dtype=np.uint64))).T.astype(word))
    reached = np.zeros((size, n), word)
    reached[source // size, np.arange(n)] = word(1) << (source % size).astype(word)
    return free, reached


def _spread(reached: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The cells of bit sets and all their free neighbours."""
    one = reached.dtype.type(1)
    grown = reached | (reached << one) | (reached >> one)
    grown[1:] |= reached[:-1]
    grown[:-1] |= reached[1:]
    return grown & free


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
    size = walls.shape[1]
    free, reached = _bits(walls, start)
    for _ in range(limit):
        grown = _spread(reached, free)
        if np.array_equal(grown, reached):
            break
        reached = grown
    columns = (targets % size).astype(reached.dtype)
    hits = reached[targets // size, np.arange(len(start))[:, None]] >> columns & reached.dtype.type(1)
    return hits.astype(bool).all(axis=1)


def distances(walls: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Steps from every cell to the source, ``int16[n, size * size]``; ``UNREACHABLE`` where there is no path.

    Args:
        walls: ``bool[n, size, size]``.
        source: ``int[n]``, cells.
    """
    n, size, _ = walls.shape
    free, reached = _bits(walls, source)
    columns = np.arange(size).astype(reached.dtype)[:, None, None]
    steps = np.full((size, size, n), UNREACHABLE)  # column, row, level
    new, step = reached, 0
    while new.any():
        steps[(new >> columns & reached.dtype.type(1)).astype(bool)] = step
        grown = _spread(reached, free)
        new = grown & ~reached
        reached, step = grown, step + 1
    return steps.transpose(2, 1, 0).reshape(n, -1)
