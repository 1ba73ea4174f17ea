"""Speed of every world, beside the named peer (MiniGrid) and the limit (the same rules, compiled).

``python benchmarks/worlds.py`` prints one table for each world, and whether each required figure holds. A world, the
peer and the limit take turns and the best turn of each counts, so other jobs on the machine move ratios little. Each
has its own process, as with a user: what others leave in a shared heap decides whether new arrays cost page faults
(x 3).
"""

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from astray.envs import find_world, worlds

PEER = "MiniGrid-DoorKey-8x8-v0"
SHIFT, MANY = 0.5, 1024
BATCHES = (1, 64, MANY, 8192)
GROWING: dict[str, list[dict[str, Any]]] = {
    "cheese-corner": [
        *({"size": size} for size in (11, 21, 41)),
        *({"size": 11, "layout": layout} for layout in ("walls", "maze")),
    ],
    "coin-end": [{"length": 48}],
    "rooms": [{"size": 5}],
}
"""Beside its defaults, the arguments with which a world is measured at B = 1024."""
COMPILED = ("cheese-corner", "coin-end")
TOLD = "cheese-corner"
"""The world whose text and bytes are measured beside its planes."""
LARGER = {"size=11": 400, "size=11, layout=maze": 200}
"""Required of CheeseCorner in larger rooms: times the peer."""
AT_LEAST, AT_LEAST_ALONE, AT_LEAST_TOLD, AT_MOST = 200, 4, 0.1, 6
"""Required: times the peer, unwrapped times the unwrapped peer, share of planes; the limit, times the world."""


class Contender(NamedTuple):
    """What is measured: a world or the limit with some arguments, or the peer.

    Attributes:
        kind: "world", "single" (unwrapped), "limit", "peer" or "single peer".
        world: a world's name, if it is one.
        num_envs: rows of a batch.
        observation: "planes", "text" or "bytes".
        arguments: beside the defaults.
    """

    kind: str
    world: str = ""
    num_envs: int = 1
    observation: str = "planes"
    arguments: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.arguments]
        words += [self.observation] * (self.observation != "planes")
        return ", ".join([*words, "one environment" if self.kind == "single" else f"B={self.num_envs}"])

    def batch(self, num_envs: int) -> gym.vector.VectorEnv:
        """The world as a batch, with a new level at every reset in the same step."""
        arguments = {"shift": SHIFT, "observation": self.observation, **dict(self.arguments)}
        return gym.make_vec(find_world(self.world).id(), num_envs, autoreset_mode="same_step", **arguments)


LONE_PEERS = {"world": Contender("peer"), "single": Contender("single peer")}
"""The peer that each kind is measured against."""


def contenders(world: str) -> list[Contender]:
    """All that is measured of one world."""
    found = [Contender("single", world), *(Contender("world", world, b) for b in BATCHES)]
    grown = [tuple(arguments.items()) for arguments in GROWING.get(world, ())]
    found += [Contender("world", world, MANY, arguments=arguments) for arguments in grown]
    if world == TOLD:
        found += [Contender("world", world, MANY, observation) for observation in ("text", "bytes")]
    if world in COMPILED:
        found += [Contender("limit", world, MANY, arguments=arguments) for arguments in ((), *grown)]
    return found


# ---- turns
def player(contender: Contender) -> tuple[Callable[[], int], int]:
    """A function that plays one step of all rows by random actions and returns how many steps that is.

    And how many of them a turn must have: a world draws several episodes' levels at once, so a shorter turn, the best
    of many, could be one in which none are drawn.
    """
    if contender.kind in ("world", "limit"):
        env, least = contender.batch(contender.num_envs), 0
        if contender.kind == "world":
            world = env.unwrapped.world  # pyright: ignore[reportAttributeAccessIssue]
            least = world.max_steps * world._bank_size
        else:
            from compiled import CompiledLoop, check_same  # numba takes seconds

            check_same(contender.batch(64), CompiledLoop(contender.world, 64, **dict(contender.arguments)))
            env = CompiledLoop(contender.world, contender.num_envs, **dict(contender.arguments))
        kinds = contender.batch(1).single_action_space.n
        env.reset(seed=0)
        batches = itertools.cycle(np.random.default_rng(0).integers(kinds, size=(256, contender.num_envs)))

        def step_all() -> int:
            env.step(next(batches))
            return contender.num_envs

        return step_all, least

    if contender.kind == "single":
        one = gym.make(find_world(contender.world).id(), shift=SHIFT, observation="planes").unwrapped
        least = one.world.max_steps * one.world._bank_size  # pyright: ignore[reportAttributeAccessIssue]
    else:
        import minigrid  # noqa: F401 (registers its ids)

        one, least = gym.make(PEER, disable_env_checker=True), 0
        one = one if contender.kind == "peer" else one.unwrapped
    one.reset(seed=0)
    actions = itertools.cycle(np.random.default_rng(0).integers(one.action_space.n, size=4096).tolist())

    def step_one() -> int:
        _, _, terminated, truncated, _ = one.step(next(actions))
        if terminated or truncated:
            one.reset()
        return 1

    return step_one, least


def serve(connection: Connection, contender: Contender) -> None:
    """A contender's process: answers each number of seconds with the steps per second of a turn at least that long."""
    play, least = player(contender)
    play()
    connection.send("ready")
    while seconds := connection.recv():
        calls, steps, begin = 0, 0, perf_counter()
        while (elapsed := perf_counter() - begin) < seconds or calls < least:
            steps += play()
            calls += 1
        connection.send(steps / elapsed)


@contextmanager
def processes(found: list[Contender]) -> Iterator[dict[Contender, Connection]]:
    """A process for each contender, ready to play."""
    spawn, connections, running = get_context("spawn"), {}, []
    for contender in found:
        connections[contender], other = spawn.Pipe()
        running.append(spawn.Process(target=serve, args=(other, contender), daemon=True))
        running[-1].start()
        other.close()
    for connection in connections.values():
        connection.recv()
    yield connections
    for connection in connections.values():
        connection.send(0)
    for process in running:
        process.join()


def measure(connections: dict[Contender, Connection], turns: int, seconds: float) -> dict[Contender, float]:
    """Steps per second in each contender's best turn."""
    best = dict.fromkeys(connections, 0.0)
    for _ in range(turns):
        for contender, connection in connections.items():
            connection.send(seconds)
            best[contender] = max(best[contender], connection.recv())
    return best


# ---- what came out
def table(speed: dict[Contender, float]) -> list[tuple[Contender, list[float]]]:
    """For each contender that is a world: steps per second, times the peer, the limit times it, share of planes.

    Zero stands for what was not measured.
    """
    rows = []
    for contender in speed:
        if contender.kind not in LONE_PEERS:
            continue
        mine, limit = speed[contender], contender._replace(kind="limit")
        told = contender.observation != "planes"
        figures = [mine, mine / speed[LONE_PEERS[contender.kind]], speed.get(limit, 0) / mine]
        rows.append((contender, [*figures, mine / speed[contender._replace(observation="planes")] if told else 0]))
    return rows


def required(rows: list[tuple[Contender, list[float]]]) -> Iterator[tuple[str, float, bool]]:
    """Each required figure in words, what was measured, and whether it holds."""
    for contender, (_, times_peer, limit_times, share) in rows:
        name = f"{contender.world}: {contender}"
        if contender.kind == "single":
            yield f"{name} / unwrapped DoorKey-8x8 >= {AT_LEAST_ALONE}", times_peer, times_peer >= AT_LEAST_ALONE
        elif share:
            yield f"{name} / planes >= {AT_LEAST_TOLD}", share, share >= AT_LEAST_TOLD
        elif contender.num_envs == MANY:
            grown = LARGER.get(str(contender).removesuffix(f", B={MANY}"), 0)
            if least := grown if contender.arguments else AT_LEAST:
                yield f"{name} / DoorKey-8x8 >= {least}", times_peer, times_peer >= least
            if limit_times:
                yield f"numba / {name} <= {AT_MOST}", limit_times, limit_times <= AT_MOST


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(worlds()), default=list(worlds()), help="these worlds")
    parser.add_argument("--turns", type=int, default=5, help="turns of every contender; the best one counts")
    parser.add_argument("--seconds", type=float, default=0.4, help="length of a turn, at least")
    options = parser.parse_args()

    print(
        f"Default arguments but shift {SHIFT}, planes, random actions, a new level at every reset; one MiniGrid\n"
        "DoorKey-8x8 (unwrapped for one environment); numba loops that returned the same arrays.\n"
        f"Best of {options.turns} turns, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.\n"
    )
    rows = []
    with processes(list(LONE_PEERS.values())) as peers:
        for world in options.only:
            with processes(contenders(world)) as connections:
                found = table(measure(peers | connections, options.turns, options.seconds))
            print(f"| {world} | steps/s | / DoorKey-8x8 | numba / it | / planes |\n|---|--:|--:|--:|--:|")
            for contender, (speed, times_peer, limit_times, share) in found:
                cells = [f"{speed:,.0f}", f"{times_peer:,.1f}"]
                cells += [f"{figure:.2f}" if figure else "" for figure in (limit_times, share)]
                print(f"| {contender} | {' | '.join(cells)} |", flush=True)
            print()
            rows += found
    print("| required | measured | |\n|---|--:|---|")
    for name, measured, holds in required(rows):
        print(f"| {name} | {measured:.2f} | {'holds' if holds else 'MISSED'} |")


if __name__ == "__main__":
    main()
