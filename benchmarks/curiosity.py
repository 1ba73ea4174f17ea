"""What curiosity costs: beside PPO without it, and beside the modules of RLeXplore on the same steps.

``python benchmarks/curiosity.py [--rllte FOLDER]`` prints two tables. In both, ways take turns in an order that
alternates, and the best turn of each counts.

The first is the time of ``PPO.learn`` on 64 environments of CheeseCorner with each module, beside none. Weights are 0,
so that all learn the same and have episodes of the same lengths, whose ends cost time in Stable-Baselines3. Counts may
cost at most 10 %, RND 50 % and ICM 80 %.

The second needs RLeXplore (Yuan et al. 2024), which is no part of this project, in a folder of its own::

    pip install --no-deps --target FOLDER rllte-core==1.0.0 termcolor nvidia-ml-py

Its modules and ours get the same 128 steps of 16 environments of Rooms, give a bonus for each, and learn from them
once, with features of one size. Ours have to be at least twice as fast. RLeXplore's observations are not normalised,
because it would step the environments for that.
"""

import argparse
import sys
from collections.abc import Callable
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from scoring_speed import machine
from stable_baselines3 import PPO

from astray.agents import (
    E3B,
    ICM,
    MLP_PPO,
    NGU,
    RE3,
    RIDE,
    RND,
    Curiosity,
    Disagreement,
    EpisodicCounts,
    LifelongCounts,
    NovelD,
    PseudoCounts,
    Transitions,
    vec_env,
    with_rewards,
)

STEPS, TURNS = 20_480, 5
MODULES: dict[str, Callable[..., Curiosity] | None] = {
    "none": None,
    "lifelong counts": LifelongCounts,
    "episodic counts": EpisodicCounts,
    "RND": RND,
    "ICM": ICM,
    "disagreement": Disagreement,
    "NovelD": NovelD,
    "RIDE": RIDE,
    "pseudo-counts": PseudoCounts,
    "NGU": NGU,
    "RE3": RE3,
    "E3B": E3B,
}
LIMITS = {"lifelong counts": 0.1, "episodic counts": 0.1, "RND": 0.5, "ICM": 0.8}
LENGTH, ENVS, AT_LEAST = 128, 16, 2.0
PEERS = {"E3B": (E3B, 128), "NGU": (NGU, 32), "PseudoCounts": (PseudoCounts, 32)}


def best(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of the best turn of each."""
    seconds = {name: [] for name in ways}
    for turn in range(TURNS):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            began = perf_counter()
            ways[name]()
            seconds[name].append(perf_counter() - began)
    return {name: min(each) for name, each in seconds.items()}


def learner(make: Callable[..., Curiosity] | None) -> Callable[[], None]:
    """Trains PPO for ``STEPS``, with a module or as it is."""
    envs: Any = vec_env("cheese-corner", 64, observation="planes")
    envs = with_rewards(envs, intrinsic={"it": make(weight=0.0)}) if make else envs
    model = PPO("MlpPolicy", envs, seed=0, **MLP_PPO)
    return lambda: model.learn(STEPS) and None


def overhead() -> bool:
    """The first table; whether it holds."""
    seconds = best({name: learner(make) for name, make in MODULES.items()})
    print(
        f"PPO, 64 environments, {STEPS:,} steps, best of {TURNS}\n\n| bonus | s | more | at most |\n|---|--:|--:|--:|"
    )
    more = {name: each / seconds["none"] - 1 for name, each in seconds.items()}
    for name, each in seconds.items():
        limit = f"{LIMITS[name]:.0%}" if name in LIMITS else ""
        print(f"| {name} | {each:.2f} | {more[name]:.0%} | {limit} |")
    return all(more[name] <= limit for name, limit in LIMITS.items())


def steps() -> list[Transitions]:
    """Steps of random actions, with observations as vectors of numbers, which RLeXplore needs."""
    envs = vec_env("rooms", ENVS, observation="planes")
    seen: list[Transitions] = []
    stack = with_rewards(envs, lambda transitions: seen.append(transitions) or transitions.rewards)
    envs.seed(0)
    stack.reset()
    rng = np.random.default_rng(0)
    for _ in range(LENGTH):
        stack.step(rng.integers(envs.action_space.n, size=ENVS))  # pyright: ignore[reportAttributeAccessIssue]

    def flat(planes: np.ndarray) -> np.ndarray:
        return planes.reshape(ENVS, -1).astype(np.float32)

    return [
        Transitions(**vars(each) | {name: flat(getattr(each, name)) for name in ("observations", "next_observations")})
        for each in seen
    ]


def ours(make: Callable[..., Curiosity], features: int, told: list[Transitions], actions: spaces.Space) -> None:
    """A bonus for every step, and one pass of learning."""
    box = spaces.Box(0, 1, told[0].observations.shape[1:], np.float32)
    module = make(features=features)
    module.setup(box, actions, ENVS)
    for each in told:
        module.bonus(each)
        module.observe(each)
    module.update(Transitions.joined(told))


def theirs(make: Any, told: list[Transitions], actions: spaces.Space) -> None:
    """The same with a module of RLeXplore."""
    box = spaces.Box(0, 1, told[0].observations.shape[1:], np.float32)
    envs = SimpleNamespace(observation_space=box, action_space=actions, unwrapped=SimpleNamespace(num_envs=ENVS))
    module = make(envs, obs_norm_type="none")
    module.mrs = 5.0  # which NGU of this version forgets to keep
    names = ("observations", "actions", "rewards", "terminated", "truncated", "next_observations")
    parts = [[torch.as_tensor(getattr(each, name)) for name in names] for each in told]
    for part in parts:
        module.watch(*part)
    samples = {name: torch.stack(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)}
    samples |= {"terminateds": samples["terminated"], "truncateds": samples["truncated"]}
    module.compute(samples)


def beside(folder: str) -> bool:
    """The second table; whether it holds."""
    sys.path.append(folder)
    from rllte.xplore import reward  # pyright: ignore[reportMissingImports]

    told, actions = steps(), vec_env("rooms", 1).action_space
    print(
        f"\n{LENGTH} steps of {ENVS} environments, best of {TURNS}\n\n| module | RLeXplore, ms | Astray, ms | ratio |"
    )
    print("|---|--:|--:|--:|")
    holds = True
    for name, (make, features) in PEERS.items():
        peer = getattr(reward, name)
        seconds = best(
            {
                "theirs": lambda peer=peer: theirs(peer, told, actions),
                "ours": lambda make=make, features=features: ours(make, features, told, actions),
            }
        )
        ratio = seconds["theirs"] / seconds["ours"]
        holds &= ratio >= AT_LEAST
        print(f"| {name} | {seconds['theirs'] * 1e3:.0f} | {seconds['ours'] * 1e3:.0f} | {ratio:.1f} |")
    return holds


def main() -> None:
    """Prints the tables; exit status 1 if something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rllte", metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), "\n")
    holds = overhead()
    if options.rllte:
        holds &= beside(options.rllte)
    sys.exit(not holds)


if __name__ == "__main__":
    main()
