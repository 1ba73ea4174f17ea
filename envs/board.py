"""Boards: maps in words, planes and pictures, from every side, and with ghosts."""

from typing import Any, ClassVar

import numpy as np

from astray.envs.errors import choose
from astray.envs.levels import Draws, Levels
from astray.envs.maps import MapWorld
from astray.envs.solve import UNREACHABLE, distances

CELL_PIXELS = 24
FLOOR = (236, 236, 236)
COLOURS = (
    (60, 60, 60),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
)
"""Walls, the agent, then the things in order (Okabe and Ito's colours, told apart by all)."""
GHOST_ATTEMPTS = 32


class BoardWorld(MapWorld):
    """A world on a map that is also told in words, planes and pictures, can be turned, and may be haunted.

    Every thing has a plane, after walls and agent.

    Attributes:
        vanishing: the things that do not lie still: ``cells`` says where they are now.
        status_count: how many planes ``status`` gives.
    """

    vanishing: ClassVar[tuple[str, ...]] = ()
    status_count: ClassVar[int] = 0
    observations = ("text", "bytes", "planes", "egocentric")

    def __init__(
        self,
        num_envs: int = 1,
        *,
        height: int,
        width: int,
        rotation: int = 0,
        reflection: bool = False,
        ghosts: bool = False,
        **arguments: Any,
    ):
        quarters = range(4) if height == width else (0,)
        self.rotation = choose("rotation", rotation, quarters)
        self.reflection = bool(choose("reflection", reflection, (False, True)))
        self.ghosts = bool(ghosts)
        if self.ghosts:
            self.event_names = (*type(self).event_names, *(f"visited_ghost_{name}" for name in self.things.values()))
        super().__init__(num_envs, height=height, width=width, **arguments)
        self._source = np.rot90(self._cell_numbers[:, :: -1 if reflection else 1], -rotation).ravel()
        self._offsets = self._all_offset_words()
        self.max_where_length = max(map(len, self._offsets))
        # What observations are copied from: all but the agent and the status.
        self._planes = np.zeros((num_envs, 2 + len(self.things) + self.status_count, height * width), np.uint8)
        self._painted: Levels = {}
        numbered = list(enumerate(self.things.values(), start=2))
        self._vanishing = [(channel, name) for channel, name in numbered if name in self.vanishing]
        self._still = [(channel, name) for channel, name in numbered if name not in self.vanishing]
        self._ghosts = np.full((num_envs, len(self.things)), -1)
        if self.observation == "egocentric":
            # The board in the middle of as much wall as an agent in its corner can see.
            shape = (num_envs, 1 + len(self.things) + self.status_count, 3 * height - 2, 3 * width - 2)
            self._surroundings = np.zeros(shape, np.uint8)
            self._surroundings[:, 0] = 1

    def status(self, rows: np.ndarray) -> np.ndarray:
        """What an agent knows beside the board, one plane of zeros or ones each, ``bool[n, S]``."""
        raise NotImplementedError

    # ---------------------------------------------------------------- levels
    @property
    def _cell_numbers(self) -> np.ndarray:
        return np.arange(self.height * self.width).reshape(self.height, self.width)

    def draw_order(self, draws: Draws) -> np.ndarray:
        """Which of ``mentions`` comes first, ``int64[n]``."""
        order = draws.integers("order", len(self.mentions))
        if self.order != "drawn":
            order[:] = self.mentions.index(self.order)
        return order

    def draw_levels(self, seeds: np.ndarray, episodes: np.ndarray) -> Levels:
        """The levels of these env seeds and episodes, turned as this world is.

        They are drawn, rejected and divided into train and test before they are turned, so that a turned world has
        the same levels.
        """
        return self.turned(super().draw_levels(seeds, episodes))

    def turned(self, levels: Levels) -> Levels:
        """Levels reflected (left and right change places), then rotated clockwise by quarter turns."""
        if not self.rotation and not self.reflection:
            return levels
        # One more place, so that -1 stays -1.
        target = np.append(np.argsort(self._source), -1)
        turned = levels | {name: target[levels[name]] for name in ("start", *self.things.values())}
        for name in self.capacity:
            turned[name] = in_ascending_order(turned[name])
        if self.walled:
            walls = levels["walls"].reshape(-1, self._source.size)
            turned["walls"] = walls.take(self._source, axis=1).reshape(levels["walls"].shape)
        return self.named(turned)

    def _twins(self, levels: Levels) -> np.ndarray:
        """A ghost of everything: cells drawn as the thing itself is, but where nothing is, ``int[n, things]``.

        A pure function of the level; -1 where ``GHOST_ATTEMPTS`` draws found no place.
        """
        n = len(levels["start"])
        here = np.stack([levels["start"], *(levels[name].reshape(n, -1)[:, 0] for name in self.things.values())], 1)
        free = self._walkable(levels)
        ghosts = np.full((n, len(self.things)), -1)
        for attempt in range(GHOST_ATTEMPTS):
            drawn = self.turned(self.named(self.sample(Draws(levels["fingerprint"], np.zeros(n, np.uint64), attempt))))
            for number, name in enumerate(self.things.values()):
                cell = drawn[name].reshape(n, -1)[:, 0]
                good = (ghosts[:, number] < 0) & free[np.arange(n), cell] & (cell[:, None] != here).all(axis=1)
                ghosts[good, number] = cell[good]
        return ghosts

    def _walkable(self, levels: Levels) -> np.ndarray:
        """The cells that can be walked to from the start, ``bool[n, cells]``; all of them where there are no walls."""
        if not self.walled:
            return np.ones((len(levels["start"]), self.height * self.width), bool)
        return distances(levels["walls"], levels["start"]) < UNREACHABLE

    # ---------------------------------------------------------------- moving
    def begin(self, rows: np.ndarray) -> None:
        """Starts some rows, and paints what lies still."""
        super().begin(rows)
        planes = self._planes
        planes[rows] = 0
        if self.walled:
            planes[rows, 0] = self.level["walls"].take(rows, axis=0).reshape(len(rows), -1)
        for _, name in self._vanishing:
            self._painted.setdefault(name, np.empty_like(self.level[name]))[rows] = -1
        # All at once, which in a small batch is much faster than one after another.
        still = [self.level[name].take(rows, axis=0).reshape(len(rows), -1) for _, name in self._still]
        if still:
            channel = np.repeat([number for number, _ in self._still], [cells.shape[1] for cells in still])
            cells = np.concatenate(still, axis=1)
            there, which = (cells >= 0).nonzero()
            planes[rows[there], channel[which], cells[there, which]] = 1
        if self.observation == "egocentric":
            board = np.delete(planes[rows], 1, axis=1).reshape(len(rows), -1, self.height, self.width)
            self._surroundings[rows, :, self._inside[0], self._inside[1]] = board
        if self.ghosts:
            self._ghosts[rows] = self._twins(self.levels_of(rows))

    @property
    def _inside(self) -> tuple[slice, slice]:
        """Where the board lies in its surroundings."""
        return slice(self.height - 1, 2 * self.height - 1), slice(self.width - 1, 2 * self.width - 1)

    def _paint_anew(self) -> None:
        """Paints those of the vanishing things that are no longer as they were painted, in all rows."""
        for channel, name in self._vanishing:
            cells, painted = self.cells(name), self._painted[name]
            if not np.count_nonzero(changed := cells != painted):
                continue
            rows = changed.nonzero()[0]  # a row with several changes occurs several times, which does no harm
            painted[rows] = cells[rows]
            self._planes[rows, channel] = 0
            _paint(self._planes, rows, channel, cells[rows])
            if self.observation == "egocentric":
                board = self._planes[rows, channel].reshape(-1, self.height, self.width)
                self._surroundings[rows, channel - 1, self._inside[0], self._inside[1]] = board

    def happen(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``advance``, and visits to ghosts."""
        if not self.ghosts:
            return self.advance(actions)
        before = self.state["agent"].copy()
        events, terminated = self.advance(actions)
        after = self.state["agent"]
        return np.hstack([events, (self._ghosts == after[:, None]) & (before != after)[:, None]]), terminated

    # ---------------------------------------------------------------- showing
    @property
    def plane_shape(self) -> tuple[int, int, int]:
        """``(2 + things + status, height, width)``; egocentric ``(1 + things + status, 2 height - 1, 2 width - 1)``."""
        channels = len(self.things) + self.status_count
        if self.observation == "egocentric":
            return (1 + channels, 2 * self.height - 1, 2 * self.width - 1)
        return (2 + channels, self.height, self.width)

    def planes(self, rows: np.ndarray) -> np.ndarray:
        """Walls, agent, the things, then the status: ``uint8[rows, 2 + things + status, height, width]``."""
        if self.vanishing:
            self._paint_anew()
        planes = self._planes.take(rows, axis=0)
        planes[self._each_row[: len(rows)], 1, self.state["agent"].take(rows)] = 1
        return self._with_status(planes.reshape(len(rows), -1, self.height, self.width), rows)

    def egocentric(self, rows: np.ndarray) -> np.ndarray:
        """The same without the agent, who is in the middle; beyond the board everything is wall."""
        if self.vanishing:
            self._paint_anew()
        down, right = 2 * self.height - 1, 2 * self.width - 1
        row, column = np.divmod(self.state["agent"][rows], self.width)
        views = np.lib.stride_tricks.sliding_window_view(self._surroundings, (down, right), axis=(2, 3))
        return self._with_status(views[rows, :, row, column], rows)

    def _with_status(self, planes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if self.status_count:
            row, which = self.status(rows).nonzero()
            if len(row):
                planes[row, which - self.status_count] = 1
        return planes

    def _all_offset_words(self) -> list[str]:
        """Words for every offset (down and right positive), one row after another, negative ones last in each."""
        rows, columns = ([*range(side), *range(1 - side, 0)] for side in (self.height, self.width))
        return [self.offset_words(south, east) for south in rows for east in columns]

    def offset_words(self, south: int, east: int) -> str:
        """What is so many cells south and east of the agent, in words: "1 south, 2 west", or "here"."""
        up, down, left, right = self.compass
        parts = []
        if south:
            parts.append(f"{abs(south)} {down if south > 0 else up}")
        if east:
            parts.append(f"{abs(east)} {right if east > 0 else left}")
        return ", ".join(parts) or "here"

    def where(self, cells: np.ndarray, rows: np.ndarray) -> list[str]:
        """Where cells (``int[rows]``) are as seen by the rows' agents: "1 south, 2 west", or "here"."""
        agent_row, agent_column = np.divmod(self.state["agent"][rows], self.width)
        row, column = np.divmod(cells, self.width)
        down, right = 2 * self.height - 1, 2 * self.width - 1
        numbers = (row - agent_row) % down * right + (column - agent_column) % right
        return [self._offsets[number] for number in numbers.tolist()]

    def in_order(self, rows: np.ndarray, *parts: list[str]) -> list[str]:
        """One text per row from a part for each of ``mentions``: the level's first, then the others in turn."""
        orders = self.level["order"][rows].tolist()
        return [
            "".join(part[order:] + part[:order]) for order, part in zip(orders, zip(*parts, strict=True), strict=True)
        ]

    def image(self, row: int = 0) -> np.ndarray:
        """One row's board in colour, ``uint8[24 * height, 24 * width, 3]``."""
        side = CELL_PIXELS
        picture = np.full((self.height, self.width, side, side, 3), FLOOR, np.uint8)
        for cells, shape, colour in self.layers(row):
            for cell in cells.tolist():
                picture[cell // self.width, cell % self.width, shape] = colour
        return picture.swapaxes(1, 2).reshape(self.height * side, self.width * side, 3)

    def layers(self, row: int) -> list[tuple[np.ndarray, np.ndarray, tuple[int, int, int]]]:
        """What a picture of one row is painted with: cells, a shape within a cell (``bool[24, 24]``), and a colour.

        Smaller squares lie on larger ones, and the agent comes last, so that it is seen on whatever it stands on.
        """
        observed = BoardWorld.planes(self, np.array([row]))[0, : 2 + len(self.things)]
        order = [0, *range(len(observed) - 1, 1, -1), 1]
        return [
            (np.flatnonzero(observed[number]), square(min(2 * place, CELL_PIXELS // 2 - 2)), COLOURS[number])
            for place, number in enumerate(order)
        ]


def square(inset: int) -> np.ndarray:
    """A square in the middle of a cell, so many pixels from its border, ``bool[24, 24]``."""
    inside = np.zeros((CELL_PIXELS, CELL_PIXELS), bool)
    inside[inset : CELL_PIXELS - inset, inset : CELL_PIXELS - inset] = True
    return inside


def _paint(planes: np.ndarray, rows: np.ndarray, channel: int, cells: np.ndarray) -> None:
    """Sets cells (``int[n]`` or ``int[n, k]``; -1 is none) of a channel of some rows to one."""
    if cells.ndim == 1:
        if not np.count_nonzero(cells < 0):
            planes[rows, channel, cells] = 1
            return
        cells = cells[:, None]
    there, which = np.nonzero(cells >= 0)
    planes[rows[there], channel, cells[there, which]] = 1


def in_ascending_order(cells: np.ndarray) -> np.ndarray:
    """Cells (``int[n, k]``) of each row in ascending order, -1 last: the one way to write down what lies where."""
    beyond = np.iinfo(cells.dtype).max
    ordered = np.sort(np.where(cells < 0, beyond, cells), axis=1)
    return np.where(ordered == beyond, -1, ordered)
