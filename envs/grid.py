"""Square rooms: layouts, moves, planes, and words for where things are."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from astray.envs.levels import Draws, Levels, take
from astray.envs.solve import UNREACHABLE, distances, within_reach
from astray.envs.world import InputError, World, choose

LAYOUTS = ("open", "walls", "maze")
CORNERS = ("north-west", "north-east", "south-west", "south-east")
DIRECTIONS = ("north", "south", "west", "east")
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Rows and columns that a step in each direction leads on."""
MAX_SIZE = 63
MAX_OTHERS = 128
CELL_PIXELS = 24
FLOOR = (236, 236, 236)
COLOURS = ((60, 60, 60), (213, 94, 0), (240, 228, 66), (0, 114, 178), (0, 158, 115))
"""Walls, then things from the last to the first, then the agent (Okabe and Ito's colours, told apart by all)."""


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


def maze_walls(draws: Draws, size: int) -> np.ndarray:
    """Perfect mazes, ``bool[n, size, size]``: rooms at even rows and columns, joined by Kruskal's algorithm.

    Every level shuffles the doors by random weights and opens each that joins two parts not joined before.
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
    for door in np.argsort(draws.uniform("maze", len(doors)), axis=1).T:
        first, second = doors[door].T
        a, b = part[first, each], part[second, each]
        walls[each, between[door]] &= a == b
        part ^= (part == b) * (a ^ b)  # what was b becomes a
    return walls.reshape(n, size, size)


class GridWorld(World):
    """A world in a square room of ``size`` x ``size`` cells, where an agent makes one step at a time.

    Levels hold ``walls`` (``bool[n, size, size]``) and ``start`` (the agent's first cell); the state holds ``agent``.
    Cells are numbered row by row from the north-west. A goal is reached by entering the cell of its name in the level;
    a world with other goals gives its own ``action_values``.

    Attributes:
        things: glyph to level array: what lies in the room, one plane each after walls and agent.
        endings: level arrays of the things that end the episode when they are entered.
    """

    action_texts: ClassVar[tuple[str, ...]] = tuple(f"go {direction}" for direction in DIRECTIONS)
    things: ClassVar[dict[str, str]]
    endings: ClassVar[tuple[str, ...]] = ()

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
        if max_steps is None:
            # 3 * size lets every cell of an open room be reached with steps to spare; detours around walls need more.
            max_steps = (3 if layout == "open" else 6) * size
        super().__init__(num_envs, max_steps=max_steps, **arguments)
        self._moves = neighbours(size).ravel()
        # What a goal so many steps away is worth; no way is longer than the room has cells.
        self._worth = np.append(self.discount ** np.arange(size * size), 0.0)
        self._ways: dict[str, np.ndarray] = {}
        self._offsets = self._offset_words()
        self.max_where_length = max(map(len, self._offsets))
        self._planes = np.zeros((num_envs, 2 + len(self.things), size * size), np.uint8)
        if self.observation == "egocentric":
            # The room in the middle of as much wall as an agent in its corner can see.
            self._surroundings = np.zeros((num_envs, 1 + len(self.things), 3 * size - 2, 3 * size - 2), np.uint8)
            self._surroundings[:, 0] = 1

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
        targets = np.stack([levels[name] for name in self.things.values()], axis=1)
        return within_reach(levels["walls"], levels["start"], targets, self.max_steps)

    # ---------------------------------------------------------------- moving
    def begin(self, rows: np.ndarray) -> None:
        """Puts the agents of some rows at their start."""
        self._ways = {}
        if not self.state:
            self.state = {"agent": self.level["start"].copy()}
        self.state["agent"][rows] = self.level["start"][rows]
        planes = self._planes
        planes[rows] = 0
        if self.layout != "open":
            planes[rows, 0] = self.level["walls"][rows].reshape(len(rows), self.size**2)
        for channel, name in enumerate(self.things.values(), start=2):
            planes[rows, channel, self.level[name][rows]] = 1
        if self.observation == "egocentric":
            room = np.delete(planes[rows], 1, axis=1).reshape(len(rows), 1 + len(self.things), self.size, self.size)
            inside = slice(self.size - 1, 2 * self.size - 1)
            self._surroundings[rows, :, inside, inside] = room

    def destination(self, cells: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where a move leads, ``int64[B]``: the same cell if a wall or the border is in the way."""
        target = self._moves.take(cells * len(DIRECTIONS) + actions)
        if self.layout == "open":
            return target
        blocked = self.level["walls"].reshape(self.num_envs, -1)[self._each_row, target]
        return np.where(blocked, cells, target)

    # ---------------------------------------------------------------- what goals are worth
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
            eligible[np.arange(n), levels[name]] = False
        count = eligible.sum(axis=1, keepdims=True)
        place = np.arange(min(MAX_OTHERS, count.max(initial=0)))
        chosen = np.where(count > MAX_OTHERS, place * count // MAX_OTHERS, place)
        cells = np.argsort(~eligible, axis=1, kind="stable")
        return np.where(chosen < count, np.take_along_axis(cells, chosen, axis=1), -1)

    def _values(self, ways: np.ndarray) -> np.ndarray:
        """What each move is worth, ``float64[B, k, A]``, given the steps from every cell (``int16[B, k, cells]``)."""
        agent = self.state["agent"]
        moved = np.stack([self.destination(agent, np.full(self.num_envs, a)) for a in range(len(DIRECTIONS))], axis=1)
        return self._worth[np.minimum(np.take_along_axis(ways, moved[:, None], axis=2), self.size**2)]

    def action_values(self) -> np.ndarray:
        """Discounted steps along shortest ways, ``float64[B, G, A]``."""
        if "goals" not in self._ways:  # once per level
            targets = np.stack([self.level[name] for name in self.goals], axis=1)
            self._ways["goals"] = self.steps_to(self.level, targets)
        return np.where(self.first_visit[:, :, None] < 0, self._values(self._ways["goals"]), 0.0)

    def other_values(self) -> np.ndarray:
        """What each move is worth for being at other cells (``other_goals``), ``float64[B, K, A]``.

        ``discount ** steps`` from where the move leads, so that after the cell was reached it counts to stay near.
        """
        if "others" not in self._ways:
            targets = self.other_goals(self.level)
            ways = self.steps_to(self.level, np.maximum(targets, 0))
            self._ways |= {"others": ways, "none": targets < 0}
        return np.where(self._ways["none"][:, :, None], np.nan, self._values(self._ways["others"]))

    def every_start(self, levels: Levels, index: int) -> tuple[np.ndarray, Levels]:
        """One level from every free cell that holds no thing.

        Returns:
            The cells, ``int64[n]``, and the level with each as its start (and its fingerprint as it was).
        """
        free = ~levels["walls"][index].ravel()
        free[[levels[name][index] for name in self.things.values()]] = False
        starts = np.flatnonzero(free)
        return starts, take(levels, np.full(len(starts), index)) | {"start": starts}

    # ---------------------------------------------------------------- showing
    @property
    def plane_shape(self) -> tuple[int, int, int]:
        """``(2 + things, size, size)``, or egocentric ``(1 + things, 2 * size - 1, 2 * size - 1)``."""
        if self.observation == "egocentric":
            return (1 + len(self.things), 2 * self.size - 1, 2 * self.size - 1)
        return (2 + len(self.things), self.size, self.size)

    def planes(self, rows: np.ndarray) -> np.ndarray:
        """Walls, agent, then the things: ``uint8[rows, 2 + things, size, size]``."""
        planes = self._planes.take(rows, axis=0)
        planes[np.arange(len(rows)), 1, self.state["agent"][rows]] = 1
        return planes.reshape(len(rows), -1, self.size, self.size)

    def egocentric(self, rows: np.ndarray) -> np.ndarray:
        """The same without the agent, who is in the middle: ``uint8[rows, 1 + things, 2 * size - 1, 2 * size - 1]``.

        Beyond the room everything is wall.
        """
        side = 2 * self.size - 1
        row, column = np.divmod(self.state["agent"][rows], self.size)
        views = np.lib.stride_tricks.sliding_window_view(self._surroundings, (side, side), axis=(2, 3))
        return views[rows, :, row, column]

    def _offset_words(self) -> list[str]:
        """Words for every offset (south and east positive), one row after another, negative ones at the end of each."""

        def words(south: int, east: int) -> str:
            parts = []
            if south:
                parts.append(f"{abs(south)} {'south' if south > 0 else 'north'}")
            if east:
                parts.append(f"{abs(east)} {'east' if east > 0 else 'west'}")
            return ", ".join(parts) or "here"

        offsets = [*range(self.size), *range(1 - self.size, 0)]
        return [words(south, east) for south in offsets for east in offsets]

    def where(self, cells: np.ndarray, rows: np.ndarray) -> list[str]:
        """Where cells (``int[rows]``) are as seen by the rows' agents: "1 south, 2 west", or "here"."""
        agent_row, agent_column = np.divmod(self.state["agent"][rows], self.size)
        row, column = np.divmod(cells, self.size)
        span = 2 * self.size - 1
        numbers = (row - agent_row) % span * span + (column - agent_column) % span
        return [self._offsets[number] for number in numbers.tolist()]

    def blocked_words(self, rows: np.ndarray) -> list[str]:
        """Which moves lead nowhere: "Blocked: north, east."; nothing in an open room, where all can be inferred."""
        if self.layout == "open":
            return [""] * len(rows)
        agent = self.state["agent"]
        stuck = [self.destination(agent, np.full(self.num_envs, a)) == agent for a in range(len(DIRECTIONS))]
        return [BLOCKED[number] for number in (np.stack(stuck, axis=1)[rows] @ [1, 2, 4, 8]).tolist()]

    # ---------------------------------------------------------------- pictures
    def image(self, row: int = 0) -> np.ndarray:
        """One row's room in colour, ``uint8[24 * size, 24 * size, 3]``: smaller squares lie on larger ones."""
        side = CELL_PIXELS
        picture = np.full((self.size, side, self.size, side, 3), FLOOR, np.uint8)
        walls, *things = self._planes[row].reshape(-1, self.size, self.size).astype(bool)
        agent = np.zeros(self.size**2, bool)
        agent[self.state["agent"][row]] = True
        # The agent comes last, so that it is seen on whatever it stands on.
        layers = [walls, *things[:0:-1], agent.reshape(self.size, self.size)]
        for number, (layer, colour) in enumerate(zip(layers, COLOURS, strict=False)):
            inset = slice(2 * number, side - 2 * number)
            for cell_row, cell_column in np.argwhere(layer):
                picture[cell_row, inset, cell_column, inset] = colour
        return picture.reshape(self.size * side, self.size * side, 3)

    @abstractmethod
    def glyphs(self, level: Levels) -> dict[int, str]:
        """Cell to character of what lies in the first level."""

    def picture(self, level: Levels, agent: int) -> str:
        """The room of the first level as lines of characters: ``#`` wall, ``.`` floor, ``A`` the agent."""
        cells = np.where(level["walls"][0].ravel(), "#", ".").astype(object)
        for cell, glyph in self.glyphs(level).items():
            cells[cell] = glyph
        cells[agent] = "A" if cells[agent] == "." else cells[agent].lower()
        return "\n".join("".join(row) for row in cells.reshape(self.size, self.size))
