"""Speed of batched worlds, beside the named peer (MiniGrid) and the limit (the same rules, compiled).

``python benchmarks/world_speed.py`` prints one table, and whether each required figure holds. Contenders take
turns and the best turn of each counts, so other jobs on the machine move ratios little. Each has its own
process, as with a user: what others leave in a shared heap decides whether new arrays cost page faults (x 3).
"""

import argparse
import itertools
import os
import zlib
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, NamedTuple

import gymnasium as gym
import minigrid  # noqa: F401 (registers its ids)
import numpy as np
from numba import njit

import astray  # noqa: F401 (registers its ids)

WORLD, PEER = "astray/CheeseCorner-v0", "MiniGrid-DoorKey-8x8-v0"
SIZE, SHIFT, DENSITY = 11, 0.5, 0.25
LAYOUTS = {"open": 3 * SIZE, "maze": 6 * SIZE, "walls": 6 * SIZE}
"""Layout to time limit: the world's defaults."""
MANY = 1024
REQUIRED = [  # ratio, at least, at most
    (f"open, B={MANY} / DoorKey-8x8", 400, np.inf),
    (f"maze, B={MANY} / DoorKey-8x8", 200, np.inf),
    ("numba / open", 0, 6),
    ("numba / maze", 0, 6),
    ("text / planes", 0.1, np.inf),
    ("bytes / planes", 0.1, np.inf),
]

# ---- the limit: the same rules, one row at a time, compiled
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
CORNER, START, CHEESE, MOVED, ORDER, WALLS, MAZE = (
    np.uint64(zlib.crc32(field.encode()) << 32)
    for field in ("corner", "start", "cheese", "shift", "order", "walls", "maze")
)
CELLS, ROOMS = SIZE * SIZE, (SIZE + 1) // 2
CORNERS = np.array([0, SIZE - 1, CELLS - SIZE, CELLS - 1])
ROW, COLUMN = np.divmod(np.arange(CELLS), SIZE)
NORTH_SOUTH = [np.clip(ROW + step, 0, SIZE - 1) * SIZE + COLUMN for step in (-1, 1)]
WEST_EAST = [ROW * SIZE + np.clip(COLUMN + step, 0, SIZE - 1) for step in (-1, 1)]
MOVES = np.stack([*NORTH_SOUTH, *WEST_EAST], axis=1)
ROOM = np.arange(ROOMS * ROOMS).reshape(ROOMS, ROOMS)
DOORS = np.concatenate(
    [np.stack([a.ravel(), b.ravel()], 1) for a, b in ((ROOM[:, :-1], ROOM[:, 1:]), (ROOM[:-1], ROOM[1:]))]
)


class Rows(NamedTuple):
    """The state of every row, as arrays."""

    episode: np.ndarray
    steps: np.ndarray
    agent: np.ndarray
    cheese: np.ndarray
    corner: np.ndarray
    order: np.ndarray
    fingerprint: np.ndarray
    visits: np.ndarray
    base: np.ndarray  # the planes without the agent


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
def draw_cell(key, field, besides, maze):
    """A random cell (in a maze, room) other than ``besides``."""
    if not maze:
        cell = int(uniform(key, field, 0) * (CELLS - 1))
        return cell + (cell >= besides)
    room = int(uniform(key, field, 0) * (ROOMS * ROOMS - 1))
    room += room >= besides // SIZE // 2 * ROOMS + besides % SIZE // 2
    return room // ROOMS * 2 * SIZE + room % ROOMS * 2


@njit
def draw_maze(key, walls):
    """Kruskal's algorithm with union-find."""
    walls[:] = 1
    parent = np.arange(ROOMS * ROOMS)
    weight = np.empty(len(DOORS))
    for d in range(len(DOORS)):
        weight[d] = uniform(key, MAZE, d)
    for room in range(ROOMS * ROOMS):
        walls[room // ROOMS * 2 * SIZE + room % ROOMS * 2] = 0
    for d in np.argsort(weight):
        a, b = first, second = DOORS[d]
        while parent[a] != a:
            parent[a] = a = parent[parent[a]]
        while parent[b] != b:
            parent[b] = b = parent[parent[b]]
        if a != b:
            parent[b] = a
            walls[(first // ROOMS + second // ROOMS) * SIZE + first % ROOMS + second % ROOMS] = 0


@njit
def reachable(walls, start, cheese, corner, limit):
    """Breadth-first search for both goals."""
    steps = np.full(CELLS, -1)
    queue = np.empty(CELLS, np.int64)
    queue[0], steps[start], head, tail = start, 0, 0, 1
    while head < tail and (steps[cheese] < 0 or steps[corner] < 0):
        cell = queue[head]
        head += 1
        for action in range(4 * (steps[cell] < limit)):
            target = MOVES[cell, action]
            if not walls[target] and steps[target] < 0:
                queue[tail], steps[target] = target, steps[cell] + 1
                tail += 1
    return steps[cheese] >= 0 and steps[corner] >= 0


@njit
def start_episode(rows, i, layout, limit):
    """Draws the next level of row i, whose env seed is i, until one is solvable."""
    rows.episode[i] += 1
    rows.steps[i] = 0
    rows.visits[i, 0] = rows.visits[i, 1] = -1
    planes = rows.base[i]
    planes[:] = 0
    walls = planes[:CELLS]
    seed_key = mix(mix(np.uint64(i) + GOLDEN) ^ (np.uint64(rows.episode[i]) * GOLDEN + np.uint64(1)))
    attempt = 0
    while True:
        key = mix(seed_key ^ (np.uint64(attempt) * GOLDEN + np.uint64(2)))
        corner = CORNERS[int(uniform(key, CORNER, 0) * 4)]
        start = draw_cell(key, START, corner, layout == "maze")
        anywhere = draw_cell(key, CHEESE, start, layout == "maze")
        cheese = anywhere if uniform(key, MOVED, 0) < SHIFT else corner
        if layout == "maze":
            draw_maze(key, walls)
        elif layout == "walls":
            for cell in range(CELLS):
                walls[cell] = uniform(key, WALLS, cell) < DENSITY
            walls[start] = walls[anywhere] = walls[corner] = 0
        if layout == "open" or reachable(walls, start, cheese, corner, limit):
            break
        attempt += 1
    rows.agent[i], rows.cheese[i], rows.corner[i] = start, cheese, corner
    rows.order[i] = int(uniform(key, ORDER, 0) * 2)
    planes[2 * CELLS + cheese] = planes[3 * CELLS + corner] = 1
    fingerprint = np.uint64(0)
    for word in range(0, CELLS, 64):  # as numpy.packbits and a view as uint64 have it
        bits = np.uint64(0)
        for cell in range(word, min(word + 64, CELLS)):
            bits |= np.uint64(walls[cell]) << np.uint64((cell - word) ^ 7)
        fingerprint = mix((fingerprint ^ bits) + GOLDEN)
    for part in (start, cheese, corner):
        fingerprint = mix((fingerprint ^ np.uint64(part)) + GOLDEN)
    rows.fingerprint[i] = fingerprint


@njit
def show(rows, i, ate, entered, seen):
    """Writes what is seen of row i."""
    for j in range(4 * CELLS):
        seen.planes[i, j] = rows.base[i, j]
    seen.planes[i, CELLS + rows.agent[i]] = 1
    seen.events[i, 0], seen.events[i, 1] = ate, entered
    seen.goals[i, 0], seen.goals[i, 1] = rows.visits[i, 0], rows.visits[i, 1]
    seen.level[i] = rows.fingerprint[i]


@njit
def step_all(rows, actions, layout, limit, seen, last, reward, terminated, truncated):
    """One step of every row, with autoreset in the same step; returns whether any episode is over."""
    any_over = False
    for i in range(len(actions)):
        if not 0 <= actions[i] < 4:
            raise ValueError("actions must lie in 0..3")
        agent = rows.agent[i]
        target = MOVES[agent, actions[i]]
        if rows.base[i, target]:
            target = agent
        rows.agent[i] = target
        ate, entered = target == rows.cheese[i], target == rows.corner[i] and target != agent
        step = rows.steps[i] = rows.steps[i] + 1
        if ate and rows.visits[i, 0] < 0:
            rows.visits[i, 0] = step
        if entered and rows.visits[i, 1] < 0:
            rows.visits[i, 1] = step
        reward[i], terminated[i], truncated[i] = ate, ate, step >= limit and not ate
        if ate or truncated[i]:
            any_over = True
            show(rows, i, ate, entered, last)
            start_episode(rows, i, layout, limit)
            ate = entered = False
        show(rows, i, ate, entered, seen)
    return any_over


class CompiledLoop:
    """CheeseCorner as a serial numba loop behind the same ``reset`` and ``step``."""

    def __init__(self, layout: str, num_envs: int):
        self.num_envs, self.layout, self.limit = num_envs, layout, LAYOUTS[layout]

    def reset(self, seed: int = 0) -> None:
        """Starts over; row i has env seed i, so ``seed`` must be 0."""
        assert seed == 0
        b = self.num_envs
        numbers = np.full((6, b), -1)  # episode -1, so that 0 comes first; the rest is set by start_episode
        visits, base = np.zeros((b, 2), np.int64), np.zeros((b, 4 * CELLS), np.uint8)
        self.rows = Rows(*numbers, np.zeros(b, np.uint64), visits, base)
        for i in range(b):
            start_episode(self.rows, i, self.layout, self.limit)

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        """One step, into fresh arrays."""
        b = self.num_envs
        seen, last = (
            Seen(
                np.empty((b, 4 * CELLS), "u1"),
                np.empty((b, 2), "?"),
                np.empty((b, 2), "i8"),
                np.empty(b, "u8"),
            )
            for _ in range(2)
        )
        reward, terminated, truncated = np.empty(b), np.empty(b, bool), np.empty(b, bool)
        (planes, *_), info = seen, seen._asdict()
        if step_all(self.rows, actions, self.layout, self.limit, seen, last, reward, terminated, truncated):
            info |= {"_final_obs": terminated | truncated, "final_info": last._asdict()}
        return planes.reshape(b, 4, SIZE, SIZE), reward, terminated, truncated, info


def check_same(layout: str, num_envs: int = 64, steps: int = 200) -> None:
    """The limit does the same work: what it returns equals Astray's, over several episodes of every row."""
    world, loop = make_world(layout, num_envs), CompiledLoop(layout, num_envs)
    world.reset(seed=0)
    loop.reset(seed=0)
    for actions in np.random.default_rng(0).integers(4, size=(steps, num_envs)):
        (*arrays, info), (*limit_arrays, limit_info) = world.step(actions), loop.step(actions)
        pairs = list(zip(arrays, limit_arrays, strict=True))
        pairs += [(info[name], limit_info[name]) for name in ("events", "goals", "level")]
        if "_final_obs" in info:
            over, last, limit_last = info["_final_obs"], info["final_info"], limit_info["final_info"]
            pairs += [(np.stack(info["final_obs"][over]).reshape(over.sum(), -1), limit_last["planes"][over])]
            pairs += [(last[name][over], limit_last[name][over]) for name in ("events", "goals", "level")]
        for array, limit_array in pairs:
            np.testing.assert_array_equal(array, limit_array)


# ---- contenders
def make_world(layout: str, num_envs: int, observation: str = "planes") -> gym.vector.VectorEnv:
    """Astray's batch."""
    arguments = {"size": SIZE, "layout": layout, "shift": SHIFT, "observation": observation}
    return gym.make_vec(WORLD, num_envs, autoreset_mode="same_step", **arguments)


def batch(make: Callable[..., Any], *arguments: Any) -> Callable[[], int]:
    """A function that plays one step of all rows by random actions and returns how many steps that is."""
    if make is CompiledLoop:
        check_same(arguments[0])
    env = make(*arguments)
    env.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).integers(4, size=(256, env.num_envs)))

    def run() -> int:
        env.step(next(actions))
        return env.num_envs

    return run


def peer() -> Callable[[], int]:
    """The same with one environment of MiniGrid, reset when over."""
    env = gym.make(PEER, disable_env_checker=True)
    env.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).integers(env.action_space.n, size=4096).tolist())

    def run() -> int:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()
        return 1

    return run


def serve(connection: Connection, contender: Callable[..., Callable[[], int]], *arguments: Any) -> None:
    """A contender's process: answers each number of seconds with the steps per second of a turn that long."""
    run = contender(*arguments)
    run()
    connection.send("ready")
    while seconds := connection.recv():
        steps, begin = 0, perf_counter()
        while (elapsed := perf_counter() - begin) < seconds:
            steps += run()
        connection.send(steps / elapsed)


def measure(contenders: dict[str, tuple[Any, ...]], turns: int, seconds: float) -> dict[str, float]:
    """Steps per second in each contender's best turn."""
    spawn, connections = get_context("spawn"), {}
    for name, contender in contenders.items():
        connections[name], other = spawn.Pipe()
        spawn.Process(target=serve, args=(other, *contender), daemon=True).start()
        other.close()
        connections[name].recv()
    best = dict.fromkeys(contenders, 0.0)
    for _ in range(turns):
        for name, connection in connections.items():
            connection.send(seconds)
            best[name] = max(best[name], connection.recv())
    for connection in connections.values():
        connection.send(0)
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7, help="turns of every contender; the best one counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    options = parser.parse_args()

    contenders: dict[str, tuple[Any, ...]] = {"DoorKey-8x8": (peer,)}
    for num_envs in (1, 64, MANY, 8192):
        contenders[f"open, B={num_envs}"] = (batch, make_world, "open", num_envs)
    for layout in ("maze", "walls"):
        contenders[f"{layout}, B={MANY}"] = (batch, make_world, layout, MANY)
    for observation in ("text", "bytes"):
        contenders[f"open, B={MANY}, {observation}"] = (batch, make_world, "open", MANY, observation)
    for layout in LAYOUTS:
        contenders[f"numba {layout}, B={MANY}"] = (batch, CompiledLoop, layout, MANY)
    speed = measure(contenders, options.turns, options.seconds)

    ratios = {f"{name} / DoorKey-8x8": speed[name] / speed["DoorKey-8x8"] for name in speed}
    ratios |= {f"numba / {x}": speed[f"numba {x}, B={MANY}"] / speed[f"{x}, B={MANY}"] for x in LAYOUTS}
    ratios |= {f"{x} / planes": speed[f"open, B={MANY}, {x}"] / speed[f"open, B={MANY}"] for x in ("text", "bytes")}
    print(
        f"CheeseCorner {SIZE} x {SIZE}, shift {SHIFT}, planes, random actions, a new level at every reset;\n"
        "one MiniGrid DoorKey-8x8; a numba loop that returned the same arrays.\n"
        f"Best of {options.turns} turns of {options.seconds} s, "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n"
    )
    print("| | steps/s | / DoorKey-8x8 | numba / it | / planes |\n|---|--:|--:|--:|--:|")
    for name in speed:
        what, _, observation = name.partition(f", B={MANY}")
        limit, share = ratios.get(f"numba / {what}"), ratios.get(f"{observation.removeprefix(', ')} / planes")
        cells = [f"{speed[name]:,.0f}", f"{ratios[f'{name} / DoorKey-8x8']:,.1f}"]
        cells += [f"{limit:.1f}" if limit and not observation else "", f"{share:.2f}" if share else ""]
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| required | measured | |\n|---|--:|---|")
    for name, at_least, at_most in REQUIRED:
        bound = f">= {at_least:g}" if at_least else f"<= {at_most:g}"
        holds = at_least <= ratios[name] <= at_most
        print(f"| {name} {bound} | {ratios[name]:.2f} | {'holds' if holds else 'MISSED'} |")


if __name__ == "__main__":
    main()
