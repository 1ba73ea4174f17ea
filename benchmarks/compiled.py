"""The limit of batched worlds: the rules of two of them as serial loops over rows, compiled with numba.

A loop is only a limit if it does the same work, so ``check_same`` proves first that it returns the same arrays.
"""

import zlib
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numba import njit

from astray.envs.grid import corner_cells, neighbours

SHIFT, DENSITY = 0.5, 0.25
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
(CORNER, START, CHEESE, MOVED, ORDER, WALLS, MAZE, DIRECTION, LEDGES, OBSTACLES, KINDS) = (
    np.uint64(zlib.crc32(field.encode()) << 32)
    for field in (
        *("corner", "start", "cheese", "shift", "order", "walls", "maze"),
        *("direction", "ledges", "obstacles", "kinds"),
    )
)


class Rows(NamedTuple):
    """The state of every row, as arrays."""

    episode: np.ndarray
    steps: np.ndarray
    agent: np.ndarray
    wanted: np.ndarray  # the cell of the intended goal
    proxy: np.ndarray
    order: np.ndarray
    fingerprint: np.ndarray
    visits: np.ndarray
    base: np.ndarray  # the planes without the agent, one row after another


class Seen(NamedTuple):
    """What a step shows of every row, as arrays."""

    planes: np.ndarray
    events: np.ndarray
    goals: np.ndarray
    level: np.ndarray


@njit
def mix(x):
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit
def uniform(key, field, index):
    """A number in [0, 1)."""
    return (mix(key ^ mix((field + np.uint64(index + 1)) * GOLDEN)) >> np.uint64(11)) * 2.0**-53


@njit
def hashed(key, part):
    """A fingerprint after one more of a level's numbers."""
    return mix((key ^ np.uint64(part)) + GOLDEN)


# ---- CheeseCorner
class Room(NamedTuple):
    """The arguments of CheeseCorner."""

    size: int
    limit: int
    walled: bool
    maze: bool
    corners: np.ndarray
    moves: np.ndarray
    doors: np.ndarray


def room(size: int, layout: str) -> Room:
    """A room of one layout, with the world's default time limit."""
    side = (size + 1) // 2
    number = np.arange(side * side).reshape(side, side)
    doors = [
        np.stack([a.ravel(), b.ravel()], 1) for a, b in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:]))
    ]
    limit = (3 if layout == "open" else 6) * size
    return Room(
        size, limit, layout == "walls", layout == "maze", corner_cells(size), neighbours(size), np.concatenate(doors)
    )


@njit
def draw_cell(room, key, field, besides):
    """A random cell (in a maze, a random one in even row and column) other than ``besides``."""
    size = room.size
    if not room.maze:
        cell = int(uniform(key, field, 0) * (size * size - 1))
        return cell + (cell >= besides)
    side = (size + 1) // 2
    cell = int(uniform(key, field, 0) * (side * side - 1))
    cell += cell >= besides // size // 2 * side + besides % size // 2
    return cell // side * 2 * size + cell % side * 2


@njit
def draw_maze(room, key, walls):
    """Kruskal's algorithm with union-find."""
    size, side, doors = room.size, (room.size + 1) // 2, room.doors
    walls[:] = 1
    parent = np.arange(side * side)
    weight = np.empty(len(doors))
    for d in range(len(doors)):
        weight[d] = uniform(key, MAZE, d)
    for cell in range(side * side):
        walls[cell // side * 2 * size + cell % side * 2] = 0
    for d in np.argsort(weight):
        a, b = first, second = doors[d]
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b:
            parent[b] = a
            walls[(first // side + second // side) * size + first % side + second % side] = 0


@njit
def reachable(room, walls, start, cheese, corner):
    """Breadth-first search for both goals."""
    cells = room.size * room.size
    steps = np.full(cells, -1)
    queue = np.empty(cells, np.int64)
    queue[0], steps[start], head, tail = start, 0, 0, 1
    while head < tail and (steps[cheese] < 0 or steps[corner] < 0):
        cell = queue[head]
        head += 1
        for action in range(4 * (steps[cell] < room.limit)):
            target = room.moves[cell, action]
            if not walls[target] and steps[target] < 0:
                queue[tail], steps[target] = target, steps[cell] + 1
                tail += 1
    return steps[cheese] >= 0 and steps[corner] >= 0


@njit
def draw_room(room, rows, i, key):
    """Draws a level of row i; returns whether it is solvable."""
    cells, planes = room.size * room.size, rows.base[i]
    walls = planes[:cells]
    corner = room.corners[int(uniform(key, CORNER, 0) * 4)]
    start = draw_cell(room, key, START, corner)
    anywhere = draw_cell(room, key, CHEESE, start)
    cheese = anywhere if uniform(key, MOVED, 0) < SHIFT else corner
    if room.maze:
        draw_maze(room, key, walls)
    elif room.walled:
        for cell in range(cells):
            walls[cell] = uniform(key, WALLS, cell) < DENSITY
        walls[start] = walls[anywhere] = walls[corner] = 0
    if (room.maze or room.walled) and not reachable(room, walls, start, cheese, corner):
        return False
    rows.agent[i], rows.wanted[i], rows.proxy[i] = start, cheese, corner
    rows.order[i] = int(uniform(key, ORDER, 0) * 2)
    planes[2 * cells + cheese] = planes[3 * cells + corner] = 1
    fingerprint = np.uint64(0)
    for word in range(0, cells, 64):  # as numpy.packbits and a view as uint64 have it
        bits = np.uint64(0)
        for cell in range(word, min(word + 64, cells)):
            bits |= np.uint64(walls[cell]) << np.uint64((cell - word) ^ 7)
        fingerprint = hashed(fingerprint, bits)
    for part in (start, cheese, corner):
        fingerprint = hashed(fingerprint, part)
    rows.fingerprint[i] = fingerprint
    return True


@njit
def move_in_room(room, planes, agent, action):
    """Where a move leads, and whether it kills."""
    target = room.moves[agent, action]
    return (agent if planes[target] else target), False


# ---- CoinEnd
class Course(NamedTuple):
    """The arguments of CoinEnd."""

    length: int
    limit: int
    ledges: int
    obstacles: int
    columns: np.ndarray


def course(length: int) -> Course:
    """A level of CoinEnd with the world's defaults."""
    return Course(length, 2 * length, 3, 3, np.array([-1, 1, -2, 2, 0]))


@njit
def draw_course(course, rows, i, key):
    """Draws a level of row i; by the default time limit all are solvable."""
    length, planes = course.length, rows.base[i]
    cells = 2 * length
    to_right = int(uniform(key, DIRECTION, 0) * 2) == 1
    start = int(uniform(key, START, 0) * (length // 2))
    start, end = (start, length - 1) if to_right else (length - 1 - start, 0)
    weight, free = np.empty(length), np.ones(length, np.bool_)
    for column in range(length):
        weight[column] = uniform(key, LEDGES, column)
    free[start] = free[end] = False
    first = -1
    for _ in range(course.ledges):
        ledge = lowest(weight, free)
        first = ledge if first < 0 else first
        free[ledge] = False
        planes[4 * cells + ledge] = 1
    for column in range(length):
        weight[column] = uniform(key, OBSTACLES, column)
    for number in range(course.obstacles):
        column = lowest(weight, free)
        if column < 0:
            break
        kind = int(uniform(key, KINDS, number) * 3)
        planes[(5 + kind) * cells + length + column] = 1
        free[max(0, column - 1) : column + 2] = False
    coin = first if uniform(key, MOVED, 0) < SHIFT else length + end
    rows.agent[i], rows.wanted[i], rows.proxy[i] = length + start, coin, length + end
    rows.order[i] = int(uniform(key, ORDER, 0) * 2)
    planes[2 * cells + coin] = planes[3 * cells + length + end] = 1
    fingerprint = np.uint64(0)
    for part in (length + start, coin, length + end):
        fingerprint = hashed(fingerprint, part)
    for plane in range(4, 8):  # each kind's cells in ascending order, then -1 up to as many as there may be
        count = 0
        for cell in range(cells):
            if planes[plane * cells + cell]:
                fingerprint = hashed(fingerprint, cell)
                count += 1
        for _ in range(count, course.ledges if plane == 4 else course.obstacles):
            fingerprint = hashed(fingerprint, -1)
    rows.fingerprint[i] = fingerprint
    return True


@njit
def lowest(weight, free):
    """The free column of lowest weight, or -1."""
    found = -1
    for column in range(len(weight)):
        if free[column] and (found < 0 or weight[column] < weight[found]):
            found = column
    return found


@njit
def move_on_course(course, planes, agent, action):
    """Where a run, jump or climb leads, and whether it kills."""
    length = course.length
    cells, column = 2 * length, agent % length
    if action == 4:
        return (column if planes[4 * cells + column] else agent), False
    to = min(max(column + course.columns[action], 0), length - 1)
    target = length + to
    if to == column or planes[7 * cells + target]:
        target = agent
    return target, bool(planes[5 * cells + target] or planes[6 * cells + target])


# ---- both
@njit
def start_episode(draw, arguments, rows, i):
    """Draws the next level of row i, whose env seed is i, until one is solvable."""
    rows.episode[i] += 1
    rows.steps[i] = 0
    rows.visits[i, 0] = rows.visits[i, 1] = -1
    rows.base[i] = 0
    seed_key = mix(mix(np.uint64(i) + GOLDEN) ^ (np.uint64(rows.episode[i]) * GOLDEN + np.uint64(1)))
    attempt = 0
    while not draw(arguments, rows, i, mix(seed_key ^ (np.uint64(attempt) * GOLDEN + np.uint64(2)))):
        attempt += 1


@njit
def start_all(draw, arguments, rows):
    """Starts the first episode of every row."""
    for i in range(len(rows.agent)):
        start_episode(draw, arguments, rows, i)


@njit
def show(rows, cells, i, took, entered, died, seen, place):
    """Writes what is seen of row i to a place."""
    for j in range(rows.base.shape[1]):
        seen.planes[place, j] = rows.base[i, j]
    seen.planes[place, cells + rows.agent[i]] = 1
    seen.events[place, 0], seen.events[place, 1] = took, entered
    if seen.events.shape[1] == 3:
        seen.events[place, 2] = died
    seen.goals[place, 0], seen.goals[place, 1] = rows.visits[i, 0], rows.visits[i, 1]
    seen.level[place] = rows.fingerprint[i]


@njit
def step_all(draw, move, arguments, kinds, cells, rows, actions, seen, last, reward, terminated, truncated):
    """One step of every row, with autoreset in the same step; returns how many episodes are over."""
    over = 0
    for i in range(len(actions)):
        if not 0 <= actions[i] < kinds:
            raise ValueError("an action is none of the world's")
        agent = rows.agent[i]
        target, died = move(arguments, rows.base[i], agent, actions[i])
        rows.agent[i] = target
        took, entered = target == rows.wanted[i], target == rows.proxy[i] and target != agent
        step = rows.steps[i] = rows.steps[i] + 1
        if took and rows.visits[i, 0] < 0:
            rows.visits[i, 0] = step
        if entered and rows.visits[i, 1] < 0:
            rows.visits[i, 1] = step
        reward[i], terminated[i] = took, took or died
        truncated[i] = step >= arguments.limit and not terminated[i]
        if terminated[i] or truncated[i]:
            show(rows, cells, i, took, entered, died, last, over)
            over += 1
            start_episode(draw, arguments, rows, i)
            took = entered = died = False
        show(rows, cells, i, took, entered, died, seen, i)
    return over


class CompiledLoop:
    """A world as a serial loop behind the same ``reset`` and ``step``; for what is not given, by its defaults."""

    def __init__(self, world: str, num_envs: int, size: int = 5, layout: str = "open", length: int = 12):
        self.num_envs = num_envs
        if world == "cheese-corner":
            self._arguments, self._draw, self._move = room(size, layout), draw_room, move_in_room
            self.actions, self._events, self._shape = 4, 2, (4, size, size)
        else:
            self._arguments, self._draw, self._move = course(length), draw_course, move_on_course
            self.actions, self._events, self._shape = 5, 3, (8, 2, length)
        self._cells = self._shape[1] * self._shape[2]

    def reset(self, seed: int = 0) -> None:
        """Starts over; row i has env seed i, so ``seed`` must be 0."""
        assert seed == 0
        b = self.num_envs
        numbers = np.full((6, b), -1)  # episode -1, so that 0 comes first; the rest is set by start_episode
        base = np.zeros((b, self._shape[0] * self._cells), np.uint8)
        self.rows = Rows(*numbers, np.zeros(b, np.uint64), np.zeros((b, 2), np.int64), base)
        self._last = self._seen()
        start_all(self._draw, self._arguments, self.rows)

    def _seen(self) -> Seen:
        b = self.num_envs
        planes = np.empty((b, self._shape[0] * self._cells), np.uint8)
        return Seen(planes, np.empty((b, self._events), bool), np.empty((b, 2), np.int64), np.empty(b, np.uint64))

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        """One step, into fresh arrays; the last observations of an episode are those of its rows, one after another."""
        b = self.num_envs
        seen, last = self._seen(), self._last
        reward, terminated, truncated = np.empty(b), np.empty(b, bool), np.empty(b, bool)
        given = self._draw, self._move, self._arguments, self.actions, self._cells, self.rows, actions
        info = seen._asdict()
        if over := step_all(*given, seen, last, reward, terminated, truncated):
            final = {name: array[:over].copy() for name, array in last._asdict().items()}
            info |= {"_final_obs": terminated | truncated, "final_info": final}
        return seen.planes.reshape(b, *self._shape), reward, terminated, truncated, info


def check_same(world: gym.vector.VectorEnv, loop: CompiledLoop, steps: int = 200) -> None:
    """What the loop returns equals what the world returns, over several episodes of every row."""
    world.reset(seed=0)
    loop.reset(seed=0)
    for actions in np.random.default_rng(0).integers(loop.actions, size=(steps, loop.num_envs)):
        (*arrays, info), (*loop_arrays, loop_info) = world.step(actions), loop.step(actions)
        pairs = list(zip(arrays, loop_arrays, strict=True))
        pairs += [(info[name], loop_info[name]) for name in ("events", "goals", "level")]
        if "_final_obs" in info:
            over, last, loop_last = info["_final_obs"], info["final_info"], loop_info["final_info"]
            pairs += [(over, loop_info["_final_obs"])]
            pairs += [(np.stack(info["final_obs"][over]).reshape(over.sum(), -1), loop_last["planes"])]
            pairs += [(last[name][over], loop_last[name]) for name in ("events", "goals", "level")]
        for array, loop_array in pairs:
            np.testing.assert_array_equal(array, loop_array)
