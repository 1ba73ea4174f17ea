"""Square rooms: layouts, moves, and what else an agent in a room may want."""

from typing import Any, ClassVar

import numpy as np

from astray.envs.board import BoardWorld
from astray.envs.errors import InputError, choose
from astray.envs.levels import Draws, Levels, take
from astray.envs.solve import UNREACHABLE, distances, within_reach

LAYOUTS = ("open", "walls", "maze")
CORNERS = ("north-west", "north-east", "south-west", "south-east")
DIRECTIONS = ("north", "south", "west", "east")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Rows and columns that a step in each direction leads on."""
MAX_SIZE = 63
MAX_OTHERS = 128


def _blocked_sentence(number: int) -> str:
    names = [direction for i, direction in enumerate(DIRECTIONS) if number >> i & 1]
    return f" Blocked: {', '.join(names) or 'nothing'}."


BLOCKED = [_blocked_sentence(number) for number in range(16)]
"""The sentence for each set of blocked moves, as a number whose bit i is direction i."""


def neighbours(size: int) -> np.ndarray:
    """The cell that each move leads to in an empty room, ``int64[size * size, 4]``; moves into the border stay."""
    row, column = np.divmod(np.arange(size * size), size)
    return np.stack([np.clip(row + r, 0, size - 1) * size + np.clip(column + c, 0, size - 1) for r, c in MOVES], axis=1)


def corner_cells(size: int) -> np.ndarray:
    """The cells of ``CORNERS``, ``int64[4]``."""
    last = size - 1
    return np.array([0, last, last * size, last * size + last])


def maze_walls(draws: Draws, size: int, lean: np.ndarray | float = 0.0) -> np.ndarray:
    """Perfect mazes, ``bool[n, size, size]``: rooms at even rows and columns, joined by Kruskal's algorithm.

    Every level shuffles the doors by random weights and opens each that joins two parts not joined before.

    Args:
        draws: of n levels.
        size: side of the maze in cells, odd.
        lean: added to the weights (in [0, 1)) of doors between north and south, one number or ``float64[n]``: above 0
            more doors join west and east, below 0 fewer.
    """
    side = (size + 1) // 2
    rooms = np.arange(side * side).reshape(side, side)
    doors = np.concatenate(
        [
            np.stack([rooms[:, :-1], rooms[:, 1:]], -1).reshape(-1, 2),
            np.stack([rooms[:-1], rooms[1:]], -1).reshape(-1, 2),
        ]
    )
    row, column = np.divmod(np.arange(side * side), side)
    room_cell = 2 * row * size + 2 * column
    n = len(draws)
    each = np.arange(n)
    walls = np.ones((n, size * size), bool)
    walls[:, room_cell] = False
    between = room_cell[doors].sum(axis=1) // 2
    # Which part each room belongs to, room by level: long inner loops, and integers as short as the rooms allow.
    number = np.int8 if side * side <= 128 else np.int16
    part = np.repeat(np.arange(side * side, dtype=number)[:, None], n, axis=1)
    weights = draws.uniform("maze", len(doors))
    weights[:, len(doors) // 2 :] += np.reshape(lean, (-1, 1))
    for door in np.argsort(weights, axis=1).T:
        first, second = doors[door].T
        a, b = part[first, each], part[second, each]
        walls[each, between[door]] &= a == b
        part ^= (part == b) * (a ^ b)  # what was b becomes a
    return walls.reshape(n, size, size)


class GridWorld(BoardWorld):
    """A square room of ``size`` x ``size`` cells, where an agent makes one step at a time.

    Attributes:
        endings: level arrays of the things that end the episode when they are entered.
    """

    action_texts: ClassVar[tuple[str, ...]] = tuple(f"go {direction}" for direction in DIRECTIONS)
    endings: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {"layout": "walls", "size": 6},
        {"layout": "maze", "size": 7},
    )

    def __init__(
        self,
        num_envs: int = 1,
        *,
        size: int = 5,
        layout: str = "open",
        density: float = 0.25,
        max_steps: int | None = None,
        **arguments: Any,
    ):
        if not isinstance(size, int | np.integer) or not 3 <= size <= MAX_SIZE:
            raise InputError(f"size={size} must be a whole number in 3..{MAX_SIZE}")
        self.size = size
        self.layout = choose("layout", layout, LAYOUTS)
        if layout == "maze" and size % 2 == 0:
            raise InputError(f"size={size} must be odd with layout='maze', so that corners are rooms")
        if not 0 <= density < 1:
            raise InputError(f"density={density} is the share of walls, so it must lie in [0, 1)")
        self.density = density
        self.text_is_local = layout != "open"
        if max_steps is None:
            # 3 * size lets every cell of an open room be reached with steps to spare; detours around walls need more.
            max_steps = (3 if layout == "open" else 6) * size
        super().__init__(num_envs, height=size, width=size, max_steps=max_steps, **arguments)
        self._moves = neighbours(size).ravel()
        # What a goal so many steps away is worth; no way is longer than the room has cells.
        self._worth = np.append(self.discount ** np.arange(size * size), 0.0)
        self._other_ways: tuple[np.ndarray, np.ndarray] | None = None

    # ---------------------------------------------------------------- levels
    @property
    def rules(self) -> dict[str, Any]:
        """What a level's class and margin depend on besides the level."""
        return {"size": self.size, "layout": self.layout} | super().rules

    def walls(self, draws: Draws, keep_free: np.ndarray) -> np.ndarray:
        """The layout's walls, ``bool[n, size, size]``, with the cells ``keep_free`` (``int[n, k]``) opened."""
        n = len(draws)
        if self.layout == "open":
            return np.zeros((n, self.size, self.size), bool)
        if self.layout == "maze":
            return maze_walls(draws, self.size)
        walls = draws.uniform("walls", self.size**2) < self.density
        walls[np.arange(n)[:, None], keep_free] = False
        return walls.reshape(n, self.size, self.size)

    def draw_cell(self, draws: Draws, field: str, *besides: np.ndarray) -> np.ndarray:
        """A random cell, ``int64[n]``, other than the given ones (``int64[n]`` each, all different).

        In a maze a random room, which is never a wall.
        """
        side = (self.size + 1) // 2 if self.layout == "maze" else self.size
        cell = draws.integers(field, side * side - len(besides))
        taken = np.sort(np.stack(besides, 1), axis=1).T if besides else np.zeros((0, len(draws)), np.int64)
        for other in taken:
            if self.layout == "maze":
                other = other // self.size // 2 * side + other % self.size // 2
            cell += cell >= other
        if self.layout == "maze":
            cell = cell // side * 2 * self.size + cell % side * 2
        return cell

    def solvable(self, levels: Levels) -> np.ndarray:
        """Whether everything in the room can be reached in time, ``bool[n]``."""
        if self.layout == "open" and self.max_steps >= 2 * (self.size - 1):
            return np.ones(len(levels["start"]), bool)
        n = len(levels["start"])
        targets = np.concatenate([levels[name].reshape(n, -1) for name in self.things.values()], axis=1)
        targets = np.where(targets < 0, levels["start"][:, None], targets)
        return within_reach(levels["walls"], levels["start"], targets, self.max_steps)

    def complete(self, levels: Levels, told: dict[str, str]) -> Levels:
        """Refuses walls in an open room."""
        if self.layout == "open" and levels["walls"].any():
            raise InputError("level: a world with layout='open' has no walls, use layout='walls'")
        return super().complete(levels, told)

    # ---------------------------------------------------------------- moving
    def start(self, levels: Levels) -> dict[str, np.ndarray]:
        """The agent at its first cell."""
        return {"agent": levels["start"].copy()}

    def begin(self, rows: np.ndarray) -> None:
        """Starts some rows."""
        self._other_ways = None
        super().begin(rows)

    def destination(self, cells: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where a move leads, ``int64[B]``: the same cell if a wall or the border is in the way."""
        target = self._moves.take(cells * len(DIRECTIONS) + actions)
        if self.layout == "open":
            return target
        blocked = self.level["walls"].reshape(self.num_envs, -1)[self._each_row, target]
        return np.where(blocked, cells, target)

    # ---------------------------------------------------------------- what else an agent may want
    def steps_to(self, levels: Levels, targets: np.ndarray) -> np.ndarray:
        """Steps from every cell to targets, ``int16[n, k, size * size]``; ``UNREACHABLE`` where there is no way.

        A way enters nothing that ends the episode, unless that is where it leads.

        Args:
            levels: n levels.
            targets: ``int[n, k]``, cells.
        """
        n, k = targets.shape
        walls = np.repeat(levels["walls"].reshape(n, 1, -1), k, axis=1)
        for name in self.endings:
            level, goal = np.nonzero(levels[name][:, None] != targets)
            walls[level, goal, levels[name][level]] = True
        steps = distances(walls.reshape(-1, self.size, self.size), targets.ravel())
        return steps.reshape(n, k, -1)

    def other_goals(self, levels: Levels) -> np.ndarray:
        """Cells that an agent could want to be at though nothing is there, ``int64[n, k]``; -1 beyond the last one.

        All free cells in reach that hold none of the world's things; in a room with more than ``MAX_OTHERS`` of them
        so many, evenly spread, to bound time and memory.
        """
        n = len(levels["start"])
        # Walking back takes as many steps as walking there.
        eligible = self.steps_to(levels, levels["start"][:, None])[:, 0] < UNREACHABLE
        for name in self.things.values():
            cells = levels[name].reshape(n, -1)
            level, which = np.nonzero(cells >= 0)
            eligible[level, cells[level, which]] = False
        count = eligible.sum(axis=1, keepdims=True)
        place = np.arange(min(MAX_OTHERS, count.max(initial=0)))
        chosen = np.where(count > MAX_OTHERS, place * count // MAX_OTHERS, place)
        cells = np.argsort(~eligible, axis=1, kind="stable")
        return np.where(chosen < count, np.take_along_axis(cells, chosen, axis=1), -1)

    def other_values(self) -> np.ndarray:
        """What each move is worth for being at other cells (``other_goals``), ``float64[B, K, A]``.

        ``discount ** steps`` from where the move leads, so that after the cell was reached it counts to stay near.
        """
        if self._other_ways is None:  # once per level
            targets = self.other_goals(self.level)
            self._other_ways = self.steps_to(self.level, np.maximum(targets, 0)), targets < 0
        ways, none = self._other_ways
        agent = self.state["agent"]
        moved = np.stack([self.moved(agent, np.full(self.num_envs, a)) for a in range(len(self.action_texts))], axis=1)
        worth = self._worth[np.minimum(np.take_along_axis(ways, moved[:, None], axis=2), self.size**2)]
        return np.where(none[:, :, None], np.nan, worth)

    def moved(self, cells: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where an action leads, ``int64[B]``; a world with other actions than moves says which of them stay."""
        return self.destination(cells, actions)

    def every_start(self, levels: Levels, index: int) -> tuple[np.ndarray, Levels]:
        """One level from every free cell that holds no thing.

        Returns:
            The cells, ``int64[n]``, and the level with each as its start (and its fingerprint as it was).
        """
        free = ~levels["walls"][index].ravel()
        things = np.concatenate([levels[name][index].ravel() for name in self.things.values()])
        free[things[things >= 0]] = False
        starts = np.flatnonzero(free)
        return starts, take(levels, np.full(len(starts), index)) | {"start": starts}

    # ---------------------------------------------------------------- showing
    def told_in_order(self, rows: np.ndarray, *parts: list[str]) -> list[str]:
        """One text per row from a part for each of ``mentions``, which begin with a blank, and the blocked moves."""
        told = zip(self.in_order(rows, *parts), self.blocked_words(rows), strict=True)
        return [text.removeprefix(" ") + blocked for text, blocked in told]

    @property
    def max_blocked_length(self) -> int:
        """The length of the longest of ``blocked_words``, in characters."""
        return 0 if self.layout == "open" else max(map(len, BLOCKED))

    def blocked_words(self, rows: np.ndarray) -> list[str]:
        """Which moves lead nowhere: "Blocked: north, east."; nothing in an open room, where all can be inferred."""
        if self.layout == "open":
            return [""] * len(rows)
        agent = self.state["agent"]
        stuck = [self.destination(agent, np.full(self.num_envs, a)) == agent for a in range(len(DIRECTIONS))]
        return [BLOCKED[number] for number in (np.stack(stuck, axis=1)[rows] @ [1, 2, 4, 8]).tolist()]
