"""Maps: an agent among things that lie on cells, as lines of characters that can be read back."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from astray.envs.errors import InputError, choose
from astray.envs.levels import Levels, take
from astray.envs.world import World


class MapWorld(World):
    """A world on ``height`` x ``width`` cells, numbered row by row from the upper left.

    Levels hold ``start`` (the agent's first cell), an array of cells for each of ``things`` (``int[n]``, or
    ``int[n, k]`` with -1 beyond the last one), and ``walls`` (``bool[n, height, width]``) where there are any. The
    state holds ``agent``, its cell.

    Attributes:
        things: glyph to level array: what lies there.
        both: glyph to the two glyphs that it stands for, where two things share a cell.
        unmapped: the things that have no glyph on the map; what stands below it tells where they are.
        mentions: things whose order of mention is drawn per level, or none.
        renamed: what may be called by another word in the text.
        compass: the words for up, down, left and right.
        walled: whether there may be walls, and levels hold ``walls``.
    """

    things: ClassVar[dict[str, str]]
    both: ClassVar[dict[str, str]] = {}
    unmapped: ClassVar[tuple[str, ...]] = ()
    mentions: ClassVar[tuple[str, ...]] = ()
    renamed: ClassVar[tuple[str, ...]] = ()
    compass: ClassVar[tuple[str, str, str, str]] = ("north", "south", "west", "east")
    walled: ClassVar[bool] = True
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
        super().__init__(num_envs, **arguments)

    # ---------------------------------------------------------------- what a map needs
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

    # ---------------------------------------------------------------- maps
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
        walls = self.level["walls"][row] if self.walled else None
        placed = {name: self.cells(name)[row] for name in self.mapped.values()}
        return walls, self.glyph_cells(placed), int(self.state["agent"][row])

    def ascii(self, row: int = 0) -> str:
        """The board as it is now."""
        return self.picture(*self._now(row))

    def map_text(self, row: int) -> str:
        """The map that a language model reads, with this world's swapped glyphs."""
        swapped = {old.lower(): new.lower() for old, new in self.shown.items()} | self.shown
        return "".join(swapped.get(glyph, glyph) for glyph in self.picture(*self._now(row)))

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
            wall = ", # wall" if self.walled else ""
            found.append(f"{', '.join(parts)}, A you, a small letter you on it{wall}.{upwards}")
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

    # ---------------------------------------------------------------- levels as text
    def level_text(self, levels: Levels, index: int) -> str:
        """A map, and below it what else belongs to the level."""
        level = take(levels, slice(index, index + 1))
        walls = level["walls"][0] if self.walled else None
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
        if self.walled:
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
