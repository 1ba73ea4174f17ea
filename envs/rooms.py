"""Rooms: two locked doors and their keys on the way to an exit, which hardly anything finds by chance."""

from typing import Any, ClassVar

import numpy as np

from astray.envs.board import BoardWorld
from astray.envs.errors import InputError
from astray.envs.grid import DIRECTIONS, MOVES, maze_walls
from astray.envs.levels import Draws, Levels
from astray.envs.solve import UNREACHABLE, distances

DOORS = ("red_door", "blue_door")
KEYS = ("red_key", "blue_key")
TAKE, UNLOCK, RADIO = range(len(MOVES), len(MOVES) + 3)
LEAN = 0.5
"""What is added to a random weight in [0, 1) so that a maze leans one way."""
MAX_SIZE = 16
NOISE_BITS = 8


class Rooms(BoardWorld):
    """Find the way out through two locked doors, whose keys lie in other rooms.

    ## Description
    A maze of rooms. Two doors on the way from the start to the exit are locked, one red and one blue; each has a key,
    which lies in a room that can be reached before that door. One reward at the end, where random actions lead in one
    episode of 200 (size 3) or 400 (size 4): a world for exploration bonuses, after the sparse tasks of Pathak et al.
    2017 and the doors and keys of MiniGrid's DoorKey. ``radio=True`` adds what misleads them: a radio that says
    something new and meaningless whenever it is turned on (the noisy television of Burda et al. 2019, in the agent's
    own hands).

    ## Goals
    Intended: ``exit`` (the event ``reached_exit``, which is what the reward pays for). There is no proxy goal.
    Further events: ``took_key``, ``unlocked_door``, ``turned_on_radio``.

    ## Shift
    The shift is of layouts, not of goals: with probability ``shift`` the first door on the way is the blue one and
    the maze leans north-south, else the first door is red and the maze leans west-east. With one goal every level is
    *ambiguous* and *distinguishing* at once; so that tests can keep the two kinds apart, a level whose first door is
    red is called ambiguous, any other distinguishing, and every margin is 0. The decorrelated training distribution
    is ``shift=1``, where all levels are of the other kind.

    ## Actions
    | number | text | effect |
    |---|---|---|
    | 0 | go north | to the next room, through an open doorway or an unlocked door |
    | 1 | go south | |
    | 2 | go west | |
    | 3 | go east | |
    | 4 | take the key | takes the key that lies in this room |
    | 5 | unlock a door | unlocks the locked doors of this room whose key is held |
    | 6 | turn on the radio | it says something, if it is in this room |

    Keys are kept. Where there is nothing to do, nothing happens.

    ## Observation
    ``text`` (``bytes`` is the same as UTF-8), style "relative", counts in rooms: ``Exit: 1 north, 2 east. Red key: held.
    Blue key: here. Red door: open. Blue door: here, to the east. Doorways here: south, east (blue door, locked).`` A
    door is told from the nearer of its rooms. This is enough to walk but not to plan. Style "map" shows every room,
    with walls and doorways as cells between them::

        E exit, B blue door, T radio, K red key, Q blue key, R red door, A you, a small letter you on it, # wall. North is up.
        EBQ..
        ####.
        .....
        R####
        ..A.K
        Held: nothing.

    With ``radio=True`` the relative text also tells where the radio is, and after it was turned on, until the next
    action, both styles end with ``The radio says 5037 8975.`` This noise is a function of the env's seed, the episode and
    the step, and no part of the state.

    ``planes``: walls, agent, exit, blue door, radio, red key, blue key, red door (locked doors and keys that nobody
    took), then full planes for "red key held", "blue key held": ``uint8[10, side, side]`` with ``side = 2 * size - 1``.
    With ``radio=True`` 8 more planes of noise while the radio speaks, zeros else. ``egocentric``: the same around the
    agent, without the agent, ``uint8[9 or 17, 2 * side - 1, 2 * side - 1]``.

    ## Rewards
    1 at the exit, else 0. Values are discounted by 0.97 per step: an exit that is d steps away is worth
    0.97 ** (d - 1), and nothing if d exceeds ``max_steps``.

    ## Episode end
    Termination: the exit is reached. Truncation: after ``max_steps`` steps.

    ## Arguments
    | name | default | meaning |
    |---|---|---|
    | size | 3 | rooms per side |
    | radio | False | whether a radio stands in some room |
    | shift | 0.0 | probability of the other kind of level |
    | split | "all" | "train", "test" (a quarter of all levels, by fingerprint) or "all" |
    | num_levels | None | how many different levels there are, those of env seed 0; None: as many as can be drawn |
    | observation | "text" | "text", "bytes", "planes", "egocentric" |
    | style | "relative" | "relative" or "map" |
    | order | "drawn" | only "drawn": things are always told in the same order |
    | names | {} | other words in the text, as {"exit": "stairs"}; also of "red_key", "blue_door", "radio", ... |
    | glyphs | {} | other glyphs in the text's map, as {"K": "Q", "Q": "K"} |
    | rotation | 0 | quarter turns of every level, clockwise |
    | reflection | False | whether west and east change places, before the turns |
    | ghosts | False | whether visits to an invisible twin of each thing are counted, as further events |
    | max_steps | 6 x size x size | time limit |

    Levels are drawn again unless going for the first key, the first door, the second key, the second door and the
    exit, one after another, takes no more than ``max_steps``.

    ## Version history
    v0: first version.
    """  # noqa: E501 (the map's first line is as the world writes it)

    action_texts = (
        *(f"go {direction}" for direction in DIRECTIONS),
        "take the key",
        "unlock a door",
        "turn on the radio",
    )
    event_names = ("reached_exit", "took_key", "unlocked_door", "turned_on_radio")
    goals: ClassVar = {"exit": "reached_exit"}
    event_rewards: ClassVar = {"reached_exit": 1.0}
    shift_kind = "none"
    # In this order the colours of pictures fit the words.
    things: ClassVar = {"E": "exit", "B": "blue_door", "T": "radio", "K": "red_key", "Q": "blue_key", "R": "red_door"}
    vanishing = (*KEYS, *DOORS)
    renamed = tuple(things.values())
    variants: ClassVar = ({"size": 4}, {"radio": True})
    text_is_local = True

    def __init__(
        self, num_envs: int = 1, *, size: int = 3, radio: bool = False, max_steps: int | None = None, **arguments: Any
    ):
        if not isinstance(size, int | np.integer) or not 3 <= size <= MAX_SIZE:
            raise InputError(f"size={size} must be a whole number in 3..{MAX_SIZE}")
        self.size, self.radio = int(size), bool(radio)
        side = 2 * self.size - 1
        self.status_count = 2 + NOISE_BITS * self.radio  # pyright: ignore[reportAttributeAccessIssue]
        max_steps = 6 * self.size**2 if max_steps is None else max_steps
        super().__init__(num_envs, height=side, width=side, max_steps=max_steps, **arguments)
        self._doorways, self._rooms = ways_between(side)
        # Whether a doorway is one of a room's, also for the door -1, which is none: the last cell is a room.
        self._beside = np.zeros((side * side, side * side), bool)
        self._beside[np.arange(side * side)[:, None], self._doorways[:, : len(MOVES)]] = True
        self._beside[:, -1] = False
        self._told_of = ("exit", *KEYS, *DOORS, *(("radio",) if self.radio else ()))
        self.instruction = (
            f"You are in a maze of rooms with locked doors. You want to get to the {self.names['exit']}; a door is "
            f"unlocked with the key of its colour. Each turn you choose one action: {self.choices}."
        )

    @property
    def capacity(self) -> dict[str, int]:
        """One radio, or none."""
        return {"radio": 1}

    @property
    def rules(self) -> dict[str, Any]:
        """What a level's class and margin depend on besides the level."""
        return {"size": self.size} | super().rules

    # ---------------------------------------------------------------- levels
    def sample(self, draws: Draws) -> Levels:
        """Draws a maze, start, exit, doors and keys; the shift says which is first, and which way the maze leans."""
        n, each, side = len(draws), np.arange(len(draws)), self.width
        shifted = draws.uniform("shift") < self.shift
        walls = maze_walls(draws, side, np.where(shifted, -LEAN, LEAN))
        rooms = room_cells(side)
        start = rooms[draws.integers("start", len(rooms))]
        # The exit is a room that is farthest from the start, so that there is a way to speak of.
        far = distances(walls, start)[:, rooms]
        exit_ = rooms[np.where(far == far.max(axis=1, keepdims=True), draws.uniform("exit", len(rooms)), -1).argmax(1)]
        way = Way(walls, start, exit_)
        # Before the first door there must be another room than the start. In a maze of nine or more rooms there is
        # one before the last door but one: either the way has a third door, or the start has a second neighbour.
        turnoff = way.turnoff[:, rooms]
        earliest = (turnoff == 0).sum(axis=1) < 2
        first = earliest + draws.integers("first door", way.length - 1 - earliest)
        second = first + 1 + draws.integers("second door", way.length - 1 - first)
        lottery = draws.uniform("keys and radio", 3 * len(rooms)).reshape(n, 3, -1)
        free = (rooms != start[:, None]) & (rooms != exit_[:, None])
        found = []
        for number, last in enumerate((first, second, np.full(n, way.length.max()))):
            chosen = np.where(free & (turnoff <= last[:, None]), lottery[:, number], -1).argmax(axis=1)
            free[each, chosen] = False
            found.append(rooms[chosen])
        placed = {"exit": exit_, "radio": found[2][:, None] if self.radio else np.full((n, 1), -1)}
        for (red, blue), (one, two) in ((DOORS, (way.doorway(first), way.doorway(second))), (KEYS, found[:2])):
            placed |= {red: np.where(shifted, two, one), blue: np.where(shifted, one, two)}
        return {"walls": walls, "start": start} | {name: placed[name] for name in self.things.values()}

    def _plan(self, levels: Levels) -> tuple["Way", np.ndarray, np.ndarray, np.ndarray]:
        """The way from start to exit; doors and keys in the order of the way; and whether the red door is first."""
        way = Way(levels["walls"], levels["start"], levels["exit"])
        keys, doors = red_and_blue(levels, KEYS), red_and_blue(levels, DOORS)
        place = way.from_start[np.arange(len(doors))[:, None], doors]
        red_first = place[:, 0] < place[:, 1]
        in_order = np.where(red_first[:, None], [0, 1], [1, 0])
        doors, keys = (np.take_along_axis(cells, in_order, axis=1) for cells in (doors, keys))
        return way, doors, keys, red_first

    def solvable(self, levels: Levels) -> np.ndarray:
        """Whether key, door, key, door and exit can be reached in this order and in time, ``bool[n]``."""
        way, doors, keys, _ = self._plan(levels)
        each = np.arange(len(doors))[:, None]
        door = way.from_start[each, doors] // 2
        turnoff, aside = way.turnoff[each, keys], way.aside[each, keys]
        good = way.passes(doors).all(axis=1) & (turnoff <= door).all(axis=1) & way.is_tree
        # In rooms along the way, and aside from it to a key and back.
        to_first = turnoff[:, 0] + aside[:, 0]
        to_second = np.abs(turnoff[:, 1] - door[:, 0]) + aside[:, 1]
        back = door - turnoff + aside
        steps = to_first + back[:, 0] + to_second + back[:, 1] + way.length - door[:, 1] + 2 * len(DOORS)
        return good & (steps <= self.max_steps)

    def classify(self, levels: Levels) -> tuple[np.ndarray, np.ndarray]:
        """Levels whose first door is red are called "ambiguous", the others "distinguishing"; margins are 0."""
        red_first = self._plan(levels)[3]
        return np.where(red_first, "ambiguous", "distinguishing"), np.zeros(len(red_first))

    def complete(self, levels: Levels, told: dict[str, str]) -> Levels:
        """Refuses a maze that is none, things that are not where they can be, and a radio too many or too few."""
        walls = levels["walls"][0]
        odd = np.arange(self.width) % 2 == 1
        if walls[~odd][:, ~odd].any() or not walls[odd][:, odd].all():
            raise InputError("level: lines and columns 1, 3, ... cross in rooms, and 2, 4, ... in walls (#)")
        for name in ("start", *self.things.values()):
            row, column = np.divmod(levels[name].ravel()[0], self.width)
            between = row % 2 + column % 2
            if levels[name].ravel()[0] >= 0 and between != (name in DOORS):
                place = f"line {row + 1}, column {column + 1}"
                kind = "doorway" if name in DOORS else "room"
                raise InputError(f"level: {place}: the {name.replace('_', ' ')} must be in a {kind}")
        if (levels["radio"][0, 0] >= 0) != self.radio:
            raise InputError(f"level: a world with radio={self.radio} needs {'one' if self.radio else 'no'} radio (T)")
        way, doors, keys, _ = self._plan(levels)
        if not way.is_tree[0]:
            raise InputError("level: from each room there must be exactly one way to every other")
        if not way.passes(doors).all():
            raise InputError("level: both doors (R, B) must lie on the way from the start to the exit")
        if (way.turnoff[0, keys[0]] > way.from_start[0, doors[0]] // 2).any():
            raise InputError("level: each key (K, Q) must lie before its door (R, B)")
        return super().complete(levels, told)

    # ---------------------------------------------------------------- moving
    def start(self, levels: Levels) -> dict[str, np.ndarray]:
        """The agent in its first room, no key held, both doors locked, the radio silent.

        Keys and doors are cells, red and blue, -1 for keys that are held and doors that are unlocked.
        """
        n = len(levels["start"])
        return {
            "agent": levels["start"].copy(),
            "keys": red_and_blue(levels, KEYS),
            "doors": red_and_blue(levels, DOORS),
            "station": np.zeros(n, np.int64),
        }

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One move, or something done in this room; the exit ends the episode."""
        state = self.state
        agent, keys, doors, station = state["agent"], state["keys"], state["doors"], state["station"]
        way = agent * len(self.action_texts) + actions
        doorway = self._doorways.take(way)
        shut = (doors == doorway[:, None]).any(axis=1)
        shut |= self.level["walls"].reshape(self.num_envs, -1)[self._each_row, doorway]
        target = np.where(shut, agent, self._rooms.take(way))
        out = target == self.level["exit"]
        events = np.zeros((self.num_envs, len(Rooms.event_names)), bool)
        events[:, 0] = out
        state["agent"], state["station"] = target, np.zeros(len(agent), np.int64)
        if not np.count_nonzero(actions >= len(MOVES)):
            return events, out
        row, door = ((actions == UNLOCK)[:, None] & (keys < 0) & self._beside[agent[:, None], doors]).nonzero()
        if len(row):
            doors[row, door], events[row, 2] = -1, True
        row, key = ((actions == TAKE)[:, None] & (keys == agent[:, None])).nonzero()
        if len(row):
            keys[row, key], events[row, 1] = -1, True
        row = ((actions == RADIO) & (self.level["radio"][:, 0] == agent)).nonzero()[0]
        if len(row):
            # Turned on again, it goes to the other of two stations, so that something has changed.
            state["station"][row], events[row, 3] = 1 + (station[row] == 1), True
        return events, out

    # ---------------------------------------------------------------- showing
    def cells(self, name: str) -> np.ndarray:
        """Where a thing is: keys until they are taken, doors while they are locked."""
        for names, state in ((KEYS, "keys"), (DOORS, "doors")):
            if name in names:
                return self.state[state][:, names.index(name)]
        return self.level[name]

    def _noise(self, rows: np.ndarray) -> Draws:
        """What a radio draws on: new in every step, and nothing that the rules know of."""
        seeds = self.seeds[rows] ^ self.level["fingerprint"][rows]
        return Draws(seeds, self.episode[rows] * 2**20 + self.steps[rows])

    def status(self, rows: np.ndarray) -> np.ndarray:
        """Whether the red and the blue key are held, and the bits of the radio, ``bool[n, 2]`` or ``bool[n, 10]``."""
        held = self.state["keys"].take(rows, axis=0) < 0
        if not self.radio:
            return held
        bits = self._noise(rows).uniform("radio bits", NOISE_BITS) < 0.5
        return np.hstack([held, bits & (self.state["station"][rows, None] > 0)])

    def offset_words(self, south: int, east: int) -> str:
        """Counted in rooms, for a doorway to a room beside it: "1 south, 2 west", "1 south, to the west", or "here"."""
        north_word, south_word, west_word, east_word = self.compass
        room = super().offset_words(int(south / 2), int(east / 2))
        if south % 2:
            return f"{room}, to the {south_word if south > 0 else north_word}"
        return f"{room}, to the {east_word if east > 0 else west_word}" if east % 2 else room

    def sentences(self, rows: np.ndarray) -> list[str]:
        """Exit, keys and doors as seen from the agent's room, then its doorways; or a map, and the keys held."""
        if self.style == "map":
            held = [[self.names[name] for name in np.array(KEYS)[mine]] for mine in self.state["keys"][rows] < 0]
            told = [
                f"{board}\nHeld: {', '.join(keys) or 'nothing'}."
                for board, keys in zip(self.map_sentences(rows), held, strict=True)
            ]
        else:
            places = zip(*(self._place_words(name, rows) for name in self._told_of), strict=True)
            told = [a + b for a, b in zip(map(" ".join, places), self._doorway_words(rows), strict=True)]
        if not self.radio:
            return told
        numbers = (self._noise(rows).uniform("radio words", 2) * 10_000).astype(int).tolist()
        speaking = (self.state["station"][rows] > 0).tolist()
        return [
            f"{text} The {self.names['radio']} says {one:04d} {two:04d}." if speaks else text
            for text, speaks, (one, two) in zip(told, speaking, numbers, strict=True)
        ]

    def _place_words(self, name: str, rows: np.ndarray) -> list[str]:
        """Where a thing is, or what became of it."""
        gone = "held" if name in KEYS else "open"
        there = (self.cells(name)[rows].reshape(len(rows)) >= 0).tolist()
        words = self.where(self.level[name][rows].reshape(len(rows)), rows)
        return [
            f"{self.names[name].capitalize()}: {place if here else gone}."
            for place, here in zip(words, there, strict=True)
        ]

    def _doorway_words(self, rows: np.ndarray) -> list[str]:
        """The ways out of the agent's room, and which of them are locked."""
        agent = self.state["agent"][rows]
        doorways = self._doorways[agent, : len(MOVES)]
        walls = self.level["walls"][rows].reshape(len(rows), -1)
        ways_out = ~np.take_along_axis(walls, doorways, axis=1) & (doorways != agent[:, None])
        locked = self.state["doors"][rows]
        lock = np.where(doorways[:, :, None] == locked[:, None], [1, 2], 0).max(axis=2)
        notes = ["", *(f" ({self.names[name]}, locked)" for name in DOORS)]
        return [
            f" Doorways here: {', '.join(self.compass[i] + notes[note[i]] for i in range(len(out)) if out[i])}."
            for out, note in zip(ways_out.tolist(), lock.tolist(), strict=True)
        ]

    @property
    def max_text_length(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The length of the longest sentence, in characters."""
        radio = len(f" The {self.names['radio']} says 0000 0000.") if self.radio else 0
        if self.style == "map":
            return self.max_map_length + len(f"\nHeld: {', '.join(self.names[name] for name in KEYS)}.") + radio
        room, doorway = len(self.offset_words(self.height - 1, self.width - 1)), self.max_where_length
        things = sum(len(f"{self.names[name]}: . ") + (doorway if name in DOORS else room) for name in self._told_of)
        locks = sum(len(f" ({self.names[name]}, locked)") for name in DOORS)
        return things + len(f"Doorways here: {', '.join(self.compass)}.") + locks + radio


class Way:
    """The way from start to exit in n mazes whose rooms form a tree, counted in rooms: the start is number 0.

    Attributes:
        from_start: ``int64[n, cells]``, steps of one cell from the start to every cell; ``UNREACHABLE`` in walls.
        length: ``int64[n]``, moves from start to exit; doorway k of the way joins its rooms k and k + 1.
        turnoff: ``int64[n, cells]``, at which room of the way somebody who goes to a room leaves it.
        aside: ``int64[n, cells]``, how many moves it is from there.
        is_tree: ``bool[n]``, whether the rooms do form a tree; nothing else holds if not.
    """

    def __init__(self, walls: np.ndarray, start: np.ndarray, exit_: np.ndarray):
        """Finds the ways through walls (``bool[n, side, side]``) from one cell to another (``int[n]`` each)."""
        each = np.arange(len(start))
        self.from_start = distances(walls, start).astype(np.int64)
        self._from_exit = distances(walls, exit_).astype(np.int64)
        self._cells = self.from_start[each, exit_]
        together = (self.from_start + self._cells[:, None] - self._from_exit) // 2
        self.length, self.turnoff, self.aside = self._cells // 2, together // 2, (self.from_start - together) // 2
        # A tree has one doorway less than rooms, and leads to all of them.
        count = 2 * ((walls.shape[1] + 1) // 2) ** 2 - 1
        free = (~walls).sum(axis=(1, 2))
        self.is_tree = (free == count) & ((self.from_start < UNREACHABLE).sum(axis=1) == count)

    def passes(self, cells: np.ndarray) -> np.ndarray:
        """Whether the way leads over cells (``int[n, k]``), ``bool[n, k]``."""
        each = np.arange(len(cells))[:, None]
        return self.from_start[each, cells] + self._from_exit[each, cells] == self._cells[:, None]

    def doorway(self, number: np.ndarray) -> np.ndarray:
        """The cell of the way's doorway of this number (``int[n]``), ``int64[n]``."""
        over = self.from_start + self._from_exit == self._cells[:, None]
        return (over & (self.from_start == 2 * number[:, None] + 1)).argmax(axis=1)


def red_and_blue(levels: Levels, names: tuple[str, str]) -> np.ndarray:
    """The cells of both ``KEYS`` or ``DOORS``, ``int[n, 2]``."""
    return np.array([levels[name] for name in names]).T


def room_cells(side: int) -> np.ndarray:
    """The cells of the rooms of a maze, ``int64[rooms]``: those in even rows and columns."""
    row, column = np.divmod(np.arange(side * side), side)
    return np.flatnonzero((row % 2 == 0) & (column % 2 == 0))


def ways_between(side: int) -> tuple[np.ndarray, np.ndarray]:
    """The doorway and the room that each action leads to, ``int64[cells, actions]`` each.

    Both are the cell itself where it leads nowhere: beyond the border, or for an action that is no move.
    """
    row, column = np.divmod(np.arange(side * side), side)
    doorways, rooms = (np.repeat(np.arange(side * side)[:, None], RADIO + 1, axis=1) for _ in range(2))
    for action, (down, right) in enumerate(MOVES):
        to_row, to_column = row + 2 * down, column + 2 * right
        inside = (to_row >= 0) & (to_row < side) & (to_column >= 0) & (to_column < side)
        doorways[inside, action] = ((row + down) * side + column + right)[inside]
        rooms[inside, action] = (to_row * side + to_column)[inside]
    return doorways, rooms
