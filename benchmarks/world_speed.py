"""Speed of batched worlds: steps per second against the named peer (MiniGrid) and the limit (a compiled loop).

``python benchmarks/world_speed.py`` prints one table and whether each required figure holds. All contenders take turns
in one process and the best of their rounds counts, so that other jobs on the machine move the ratios little.
"""

import argparse
import itertools
import os
import zlib
from collections.abc import Callable
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

# ------------------------------------------------------------------- the limit: the same rules, one row at a time
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
CORNER, START, CHEESE, MOVED, ORDER, WALLS, MAZE = (
    np.uint64(zlib.crc32(field.encode()) << 32)
    for field in ("corner", "start", "cheese", "shift", "order", "walls", "maze")
)
CELLS, ROOMS = SIZE * SIZE, (SIZE + 1) // 2
CORNERS = np.array([0, SIZE - 1, CELLS - SIZE, CELLS - 1])
ROOM_NUMBERS = np.arange(ROOMS * ROOMS).reshape(ROOMS, ROOMS)
ROW, COLUMN = np.divmod(np.arange(CELLS), SIZE)
MOVES = np.stack(
    [
        np.maximum(ROW - 1, 0) * SIZE + COLUMN,
        np.minimum(ROW + 1, SIZE - 1) * SIZE + COLUMN,
        ROW * SIZE + np.maximum(COLUMN - 1, 0),
        ROW * SIZE + np.minimum(COLUMN + 1, SIZE - 1),
    ],
    axis=1,
)
DOORS = np.concatenate(
    [
        np.stack([ROOM_NUMBERS[:, :-1].ravel(), ROOM_NUMBERS[:, 1:].ravel()], 1),
        np.stack([ROOM_NUMBERS[:-1].ravel(), ROOM_NUMBERS[1:].ravel()], 1),
    ]
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


class Step(NamedTuple):
    """What one step returns, as ``WorldVectorEnv.step`` does with ``autoreset_mode="same_step"``."""

    planes: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    events: np.ndarray
    goals: np.ndarray
    level: np.ndarray
    last_planes: np.ndarray
    last_events: np.ndarray
    last_goals: np.ndarray
    last_level: np.ndarray


@njit
def mix(x):  # noqa: D103
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit
def uniform(key, field, index):  # noqa: D103
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
    """Draws the next level of row i (of env seed i), until one is solvable."""
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
def start_all(rows, layout, limit):  # noqa: D103
    for i in range(len(rows.agent)):
        start_episode(rows, i, layout, limit)


@njit
def step_all(rows, out, actions, layout, limit):
    """One step of every row, with autoreset in the same step."""
    any_over = False
    for i in range(len(actions)):
        if not 0 <= actions[i] < 4:
            raise ValueError("actions must lie in 0..3")
        agent = rows.agent[i]
        target = MOVES[agent, actions[i]]
        target = agent if rows.base[i, target] else target
        rows.agent[i] = target
        ate, entered = target == rows.cheese[i], target == rows.corner[i] and target != agent
        step = rows.steps[i] = rows.steps[i] + 1
        over = ate or step >= limit
        if ate and rows.visits[i, 0] < 0:
            rows.visits[i, 0] = step
        if entered and rows.visits[i, 1] < 0:
            rows.visits[i, 1] = step
        out.reward[i], out.terminated[i], out.truncated[i] = ate, ate, over and not ate
        if over:
            any_over = True
            out.last_events[i, 0], out.last_events[i, 1], out.last_level[i] = ate, entered, rows.fingerprint[i]
            out.last_goals[i, 0], out.last_goals[i, 1] = rows.visits[i, 0], rows.visits[i, 1]
            for j in range(4 * CELLS):
                out.last_planes[i, j] = rows.base[i, j]
            out.last_planes[i, CELLS + target] = 1
            start_episode(rows, i, layout, limit)
        out.events[i, 0], out.events[i, 1], out.level[i] = ate and not over, entered and not over, rows.fingerprint[i]
        out.goals[i, 0], out.goals[i, 1] = rows.visits[i, 0], rows.visits[i, 1]
        for j in range(4 * CELLS):
            out.planes[i, j] = rows.base[i, j]
        out.planes[i, CELLS + rows.agent[i]] = 1
    return any_over


class CompiledLoop:
    """CheeseCorner as a serial numba loop behind the same ``reset`` and ``step``; row i has env seed i."""

    def __init__(self, num_envs: int, layout: str):
        self.num_envs, self.layout, self.limit = num_envs, layout, LAYOUTS[layout]

    def reset(self) -> None:
        """Starts over."""
        b = self.num_envs
        episode, steps, agent, cheese, corner, order = np.zeros((6, b), np.int64)
        visits, base = np.zeros((b, 2), np.int64), np.zeros((b, 4 * CELLS), np.uint8)
        self.rows = Rows(episode - 1, steps, agent, cheese, corner, order, np.zeros(b, np.uint64), visits, base)
        start_all(self.rows, self.layout, self.limit)

    def step(self, actions: np.ndarray) -> tuple[Any, ...]:
        """One step, into fresh arrays."""
        b = self.num_envs
        planes, last_planes = np.empty((2, b, 4 * CELLS), np.uint8)
        reward, terminated, truncated = np.empty(b), np.empty(b, bool), np.empty(b, bool)
        info = [np.empty((b, 2), bool), np.empty((b, 2), np.int64), np.empty(b, np.uint64)]
        last = [np.empty_like(array) for array in info]
        out = Step(planes, reward, terminated, truncated, *info, last_planes, *last)
        names, more = ("events", "goals", "level"), {}
        if step_all(self.rows, out, actions, self.layout, self.limit):
            over = terminated | truncated
            more = {"final_obs": last_planes.reshape(b, 4, SIZE, SIZE), "_final_obs": over, "_final_info": over}
            more["final_info"] = dict(zip(names, last, strict=True))
        infos = more | dict(zip(names, info, strict=True))
        return planes.reshape(b, 4, SIZE, SIZE), reward, terminated, truncated, infos


def check_same(layout: str, steps: int = 200) -> None:
    """The limit does the same work: every array it returns equals Astray's, over several episodes of every row."""
    world, loop = make_world(layout, 64), CompiledLoop(64, layout)
    world.reset(seed=0)
    loop.reset()
    for actions in np.random.default_rng(0).integers(4, size=(steps, 64)):
        (*mine, info), (*theirs, limit) = world.step(actions), loop.step(actions)
        over = info.get("_final_obs", np.zeros(64, bool))
        pairs = [*zip(mine, theirs, strict=True), *((info[k], limit[k]) for k in ("events", "goals", "level"))]
        if over.any():
            pairs += [(info["final_obs"][over], limit["final_obs"][over])]
            pairs += [(info["final_info"][k][over], limit["final_info"][k][over]) for k in limit["final_info"]]
        for a, b in pairs:
            np.testing.assert_array_equal(a, b)
    assert world.unwrapped.world.episode.min() >= 2


# ------------------------------------------------------------------- contenders
def make_world(layout: str, num_envs: int, observation: str = "planes") -> gym.vector.VectorEnv:
    """Astray's batch."""
    arguments = dict(size=SIZE, layout=layout, shift=SHIFT, observation=observation, autoreset_mode="same_step")
    return gym.make_vec(WORLD, num_envs, **arguments)


def batch_runner(env: Any, num_envs: int) -> Callable[[float], float]:
    """Plays random actions for some seconds; returns steps per second over all rows."""
    env.reset(**({} if isinstance(env, CompiledLoop) else {"seed": 0}))
    actions = itertools.cycle(np.random.default_rng(0).integers(4, size=(256, num_envs)))

    def run(seconds: float) -> float:
        steps, begin = 0, perf_counter()
        while (elapsed := perf_counter() - begin) < seconds or not steps:
            env.step(next(actions))
            steps += num_envs
        return steps / elapsed

    return run


def peer_runner() -> Callable[[float], float]:
    """MiniGrid, one environment, reset when over."""
    env = gym.make(PEER, disable_env_checker=True)
    env.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).integers(env.action_space.n, size=4096).tolist())

    def run(seconds: float) -> float:
        steps, begin = 0, perf_counter()
        while (elapsed := perf_counter() - begin) < seconds or not steps:
            _, _, terminated, truncated, _ = env.step(next(actions))
            if terminated or truncated:
                env.reset()
            steps += 1
        return steps / elapsed

    return run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every contender; the best one counts")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn")
    options = parser.parse_args()

    for layout in LAYOUTS:
        check_same(layout)
    runners = {"MiniGrid DoorKey-8x8, one env": peer_runner()}
    for layout, num_envs in [("open", 1), ("open", 64), ("open", MANY), ("open", 8192), ("maze", MANY), ("walls", MANY)]:
        runners[f"{layout}, B={num_envs:,}"] = batch_runner(make_world(layout, num_envs), num_envs)
    for observation in ("text", "bytes"):
        runners[f"open, B=1,024, {observation}"] = batch_runner(make_world("open", MANY, observation), MANY)
    for layout in LAYOUTS:
        runners[f"numba {layout}, B=1,024"] = batch_runner(CompiledLoop(MANY, layout), MANY)
    best = dict.fromkeys(runners, 0.0)
    for _ in range(options.rounds):
        for name, run in runners.items():
            best[name] = max(best[name], run(options.seconds))

    peer, planes = next(iter(best.values())), best["open, B=1,024"]
    print(f"{SIZE} x {SIZE}, shift {SHIFT}, random actions, a new level at every reset; best of {options.rounds} turns of")
    print(f"{options.seconds} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; numba returned the same arrays.\n")
    print("| contender | steps/s | x DoorKey | numba / it |\n|---|--:|--:|--:|")
    for name, speed in best.items():
        limit = best.get(f"numba {name}")
        print(f"| {name} | {speed:,.0f} | {speed / peer:,.1f} | {f'{limit / speed:.1f}' if limit else ''} |")
    figures = {
        "open >= 400 x DoorKey": (planes / peer, planes / peer >= 400),
        "maze >= 200 x DoorKey": (best["maze, B=1,024"] / peer, best["maze, B=1,024"] / peer >= 200),
    }
    for layout in ("open", "maze"):
        ratio = best[f"numba {layout}, B=1,024"] / best[f"{layout}, B=1,024"]
        figures[f"numba / {layout} <= 6"] = (ratio, ratio <= 6)
    for observation in ("text", "bytes"):
        ratio = best[f"open, B=1,024, {observation}"] / planes
        figures[f"{observation} >= 0.1 x planes"] = (ratio, ratio >= 0.1)
    print("\n| required | measured | |\n|---|--:|---|")
    for name, (ratio, holds) in figures.items():
        print(f"| {name} | {ratio:.2f} | {'holds' if holds else 'MISSED'} |")


if __name__ == "__main__":
    main()
