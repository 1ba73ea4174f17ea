"""Boards: an agent among things that lie on cells, shown as words, maps, planes and pictures."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from astray.envs.errors import InputError, choose
from astray.envs.levels import Draws, Levels, take
from astray.envs.solve import UNREACHABLE, distances
from astray.envs.world import World

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


class BoardWorld(World):
    """A world on a board of ``height`` x ``width`` cells, numbered row by row from the upper left.

    Levels hold ``start`` (the agent's first cell), an array of cells for each of ``things`` (``int[n]``, or
    ``int[n, k]`` with -1 beyond the last one), and ``walls`` (``bool[n, height, width]``) where a board has any. The
    state holds ``agent``, its cell.

    Attributes:
        things: glyph to level array: what lies on the board, one plane each after walls and agent.
        both: glyph to the two glyphs that it stands for, where two things share a cell.
        vanishing: the things that do not lie still: ``cells`` says where they are now.
        unmapped: the things that have a plane but no glyph of their own on the map, and what stands below it instead.
        mentions: things whose order of mention is drawn per level, or none.
        renamed: what may be called by another word in the text.
        compass: the words for up, down, left and right.
        status_count: how many planes ``status`` gives.
    """

    things: ClassVar[dict[str, str]]
    both: ClassVar[dict[str, str]] = {}
    vanishing: ClassVar[tuple[str, ...]] = ()
    unmapped: ClassVar[tuple[str, ...]] = ()
    mentions: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[tuple[str, ...]] = ()
    compass: ClassVar[tuple[str, str, str, str]] = ("north", "south", "west", "east")
    status_count: ClassVar[int] = 0
    observations = ("text", "bytes", "planes", "egocentric")
    told = ("order",)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        height: int,
        width: int,
        order: str = "drawn",
        names: Mapping[str, str] | None = None,
        glyphs: Mapping[str, str] | None = None,
        rotation: int = 0,
        reflection: bool = False,
        ghosts: bool = False,
        **arguments: Any,
    ):
        self.height, self.width = height, width
        self.order = choose("order", order, ("drawn", *self.mentions))
        self.names = {name: name.replace("_", " ") for name in self.renamed}
        for name, word in (names or {}).items():
            choose("names", name, self.renamed)
            if not isinstance(word, str) or not word.isprintable() or not word.isascii() or not word.strip():
                raise InputError(f"names: {name!r} must be called by a word of printable ASCII, not {word!r}")
            self.names[name] = word
        self.mapped = {glyph: name for glyph, name in self.things.items() if name not in self.unmapped}
        mine = [*self.mapped, *self.both]
        self.shown = {glyph: glyph for glyph in mine} | dict(glyphs or {})
        if sorted(self.shown) != sorted(mine) or sorted(self.shown.values()) != sorted(mine):
            raise InputError(f"glyphs={glyphs!r} must swap some of {', '.join(map(repr, mine))} among each other")
        quarters = range(4) if height == width else (0,)
        if height != width and rotation == 0 and reflection not in (False, True):
            raise InputError(f"reflection={reflection!r} must be True or False")
        self.rotation, self.reflection = choose("rotation", rotation, quarters), bool(reflection)
        self.ghosts = bool(ghosts)
        if self.ghosts:
            self.event_names = (*type(self).event_names, *(f"visited_ghost_{name}" for name in self.things.values()))
        super().__init__(num_envs, **arguments)
        self._source = np.rot90(self._cell_numbers[:, :: -1 if reflection else 1], -rotation).ravel()
        self._offsets = self._all_offset_words()
        self.max_where_length = max(map(len, self._offsets))
        # What observations are copied from: all but the agent and the status.
        self._planes = np.zeros((num_envs, 2 + len(self.things) + self.status_count, height * width), np.uint8)
        self._painted: Levels = {}
        self._ghosts = np.full((num_envs, len(self.things)), -1)
        if self.observation == "egocentric":
            # The board in the middle of as much wall as an agent in its corner can see.
            shape = (num_envs, 1 + len(self.things) + self.status_count, 3 * height - 2, 3 * width - 2)
            self._surroundings = np.zeros(shape, np.uint8)
            self._surroundings[:, 0] = 1

    # ---------------------------------------------------------------- what a board says
    def cells(self, name: str) -> np.ndarray:
        """Where things are now, ``int[B]`` or ``int[B, k]``; -1 for what is not there."""
        return self.level[name]

    @property
    def capacity(self) -> dict[str, int]:
        """How many of each thing a level holds at most, where that is not one."""
        return {}

    def complete(self, levels: Levels, told: dict[str, str]) -> Levels:
        """A level of one row that was read from a map, with what else belongs to it.

        That is the order of mention, by default the first of ``mentions``, and whatever a world adds.

        Args:
            levels: ``walls``, ``start`` and the things.
            told: what stands below the map, by name.

        Raises:
            InputError: it is no level of this world.
        """
        if not self.mentions:
            return levels
        first = choose("level's first", told.get("first", self.mentions[0]), self.mentions)
        return levels | {"order": np.array([self.mentions.index(first)])}

    def told_below(self, levels: Levels, index: int) -> dict[str, str]:
        """What stands below the map of a level."""
        return {"first": self.mentions[levels["order"][index]]} if self.mentions else {}

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
        if "walls" in levels:
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
        if "walls" not in levels:
            return np.ones((len(levels["start"]), self.height * self.width), bool)
        return distances(levels["walls"], levels["start"]) < UNREACHABLE

    # ---------------------------------------------------------------- moving
    def begin(self, rows: np.ndarray) -> None:
        """Starts some rows, and paints what lies still."""
        super().begin(rows)
        level = self.levels_of(rows)
        planes = self._planes
        planes[rows] = 0
        if "walls" in level:
            planes[rows, 0] = level["walls"].reshape(len(rows), self.height * self.width)
        for channel, name in enumerate(self.things.values(), start=2):
            if name in self.vanishing:
                self._painted.setdefault(name, np.empty_like(self.level[name]))[rows] = -1
            else:
                _paint(planes, rows, channel, level[name])
        if self.observation == "egocentric":
            board = np.delete(planes[rows], 1, axis=1).reshape(len(rows), -1, self.height, self.width)
            self._surroundings[rows, :, self._inside[0], self._inside[1]] = board
        if self.ghosts:
            self._ghosts[rows] = self._twins(level)

    @property
    def _inside(self) -> tuple[slice, slice]:
        """Where the board lies in its surroundings."""
        return slice(self.height - 1, 2 * self.height - 1), slice(self.width - 1, 2 * self.width - 1)

    def _paint_anew(self) -> None:
        """Paints those of the vanishing things that are no longer as they were painted, in all rows."""
        for channel, name in enumerate(self.things.values(), start=2):
            if name not in self.vanishing:
                continue
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

    @property
    def legends(self) -> list[str]:
        """What the glyphs of a map mean, for each order of mention."""
        up = self.compass[0].capitalize()
        upwards = f" {up} is up." if up != "Up" else ""
        glyph_of = {name: glyph for glyph, name in self.mapped.items()}
        rest = [name for name in self.mapped.values() if name not in self.mentions]
        found = []
        for order in range(max(1, len(self.mentions))):
            names = [*self.mentions[order:], *self.mentions[:order], *rest]
            parts = [f"{self.shown[glyph_of[name]]} {self.names.get(name, name)}" for name in names]
            for glyph, two in self.both.items():
                named = " and ".join(self.names.get(self.things[one], self.things[one]) for one in two)
                parts.append(f"{self.shown[glyph]} {named if len(self.both) > 1 else 'both'}")
            found.append(f"{', '.join(parts)}, A you, a small letter you on it, # wall.{upwards}")
        return found

    def map_sentences(self, rows: np.ndarray) -> list[str]:
        """A legend and a map for each of some rows."""
        orders = self.level["order"][rows].tolist() if self.mentions else [0] * len(rows)
        legends = self.legends
        return [f"{legends[order]}\n{self.map_text(row)}" for order, row in zip(orders, rows.tolist(), strict=True)]

    @property
    def max_map_length(self) -> int:
        """The length of a legend and a map, in characters."""
        return len(self.legends[0]) + self.height * (self.width + 1)

    def image(self, row: int = 0) -> np.ndarray:
        """One row's board in colour, ``uint8[24 * height, 24 * width, 3]``: smaller squares lie on larger ones."""
        side = CELL_PIXELS
        picture = np.full((self.height, side, self.width, side, 3), FLOOR, np.uint8)
        observed = BoardWorld.planes(self, np.array([row]))[0, : 2 + len(self.things)].astype(bool)
        # The agent comes last, so that it is seen on whatever it stands on.
        order = [0, *range(len(observed) - 1, 1, -1), 1]
        for place, number in enumerate(order):
            inset = slice(min(2 * place, side // 2 - 2), side - min(2 * place, side // 2 - 2))
            for cell_row, cell_column in np.argwhere(observed[number]):
                picture[cell_row, inset, cell_column, inset] = COLOURS[number]
        return picture.reshape(self.height * side, self.width * side, 3)

    # ---------------------------------------------------------------- levels as maps
    def glyph_cells(self, placed: Mapping[str, np.ndarray]) -> dict[int, str]:
        """Cell to glyph of things (name to cells), one level's."""
        found: dict[int, str] = {}
        for glyph, name in self.mapped.items():
            for cell in placed[name].ravel().tolist():
                if cell >= 0:
                    pair = {found[cell], glyph} if cell in found else set()
                    found[cell] = next((both for both, two in self.both.items() if set(two) == pair), glyph)
        return found

    def glyphs(self, level: Levels) -> dict[int, str]:
        """Cell to character of what lies in the first level."""
        return self.glyph_cells({name: level[name][:1] for name in self.mapped.values()})

    def picture(self, walls: np.ndarray | None, glyphs: Mapping[int, str], agent: int) -> str:
        """A map: ``#`` wall, ``.`` floor, ``A`` the agent; a lower-case glyph is the agent on that thing."""
        cells = ["."] * (self.height * self.width)
        if walls is not None:
            cells = ["#" if wall else "." for wall in walls.ravel().tolist()]
        for cell, glyph in glyphs.items():
            cells[cell] = glyph
        cells[agent] = "A" if cells[agent] == "." else cells[agent].lower()
        return "\n".join("".join(cells[begin : begin + self.width]) for begin in range(0, len(cells), self.width))

    def _now(self, row: int) -> tuple[np.ndarray | None, dict[int, str], int]:
        walls = self.level["walls"][row] if "walls" in self.level else None
        placed = {name: self.cells(name)[row] for name in self.mapped.values()}
        return walls, self.glyph_cells(placed), int(self.state["agent"][row])

    def ascii(self, row: int = 0) -> str:
        """The board as it is now."""
        return self.picture(*self._now(row))

    def map_text(self, row: int) -> str:
        """The map that a language model reads, with this world's swapped glyphs."""
        swapped = {old.lower(): new.lower() for old, new in self.shown.items()} | self.shown
        return "".join(swapped.get(glyph, glyph) for glyph in self.picture(*self._now(row)))

    def level_text(self, levels: Levels, index: int) -> str:
        """A map, and below it what else belongs to the level."""
        level = take(levels, slice(index, index + 1))
        walls = level["walls"][0] if "walls" in level else None
        below = [f"{name}: {value}" for name, value in self.told_below(levels, index).items()]
        return "\n".join([self.picture(walls, self.glyphs(level), int(level["start"][0])), *below])

    def parse_level(self, level: str) -> Levels:
        """Reads what ``level_text`` writes; what stands below the map may be left out.

        Raises:
            InputError: it is no level of this world; names line and column where there is one.
        """
        lines = [line.rstrip() for line in level.strip("\n").splitlines()]
        board = [line for line in lines if ":" not in line]
        cells = self._read(board)
        made: Levels = {}
        if "walls" in self.sample(Draws(np.zeros(1, np.uint64), np.zeros(1, np.uint64))):
            made["walls"] = (cells == "#")[None]
        elif (cells == "#").any():
            row, column = np.argwhere(cells == "#")[0] + 1
            raise InputError(f"level: line {row}, column {column}: this world has no walls")
        flat = cells.ravel()
        made["start"] = self._exactly(flat, "A", "A")
        for glyph, name in self.mapped.items():
            glyphs = glyph + "".join(both for both, two in self.both.items() if glyph in two)
            made[name] = self._exactly(flat, glyph, glyphs, self.capacity.get(name))
        pairs = [line.partition(":") for line in lines if ":" in line]
        return self.checked(self.complete(made, {name.strip(): value.strip() for name, _, value in pairs}))

    def _read(self, board: list[str]) -> np.ndarray:
        """A map's characters, ``str[height, width]``."""
        if len(board) != self.height:
            raise InputError(f"level: the map has {len(board)} lines, but this world has {self.height}")
        known = {"#", ".", "A", *self.mapped, *self.both}
        for number, line in enumerate(board, start=1):
            if len(line) != self.width:
                raise InputError(
                    f"level: line {number} has {len(line)} characters, but this world is {self.width} wide"
                )
            for column, glyph in enumerate(line, start=1):
                if glyph not in known:
                    names = [f"{own} {name}" for own, name in self.mapped.items()]
                    names += [f"{own} ({' and '.join(two)})" for own, two in self.both.items()]
                    raise InputError(
                        f"level: line {number}, column {column}: {glyph!r} is none of # wall, . floor, A agent, "
                        f"{', '.join(names)}"
                    )
        return np.array([list(line) for line in board])

    def _exactly(self, cells: np.ndarray, glyph: str, glyphs: str, capacity: int | None = None) -> np.ndarray:
        """The cells of a glyph: ``int[1]``, or padded ``int[1, capacity]``."""
        found = np.flatnonzero(np.isin(cells, list(glyphs)))
        if capacity is None and len(found) != 1:
            raise InputError(f"level: it needs one {glyph}, but the map has {len(found)}")
        if capacity is None:
            return found
        if len(found) > capacity:
            raise InputError(f"level: it has {len(found)} {glyph}, but this world holds at most {capacity}")
        return np.append(found, np.full(capacity - len(found), -1))[None]


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
