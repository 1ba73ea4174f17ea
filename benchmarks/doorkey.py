"""Steps until DoorKey is solved with and without curiosity: a check against the world outside.

``python benchmarks/doorkey.py [--seeds N] [--steps N] [--size 8]`` trains PPO with an MLP on 16 environments of
MiniGrid's DoorKey (Chevalier-Boisvert et al. 2023; a new layout in every episode) without bonus, with episodic and
with lifelong counts, with RND and with ICM. It prints the environment steps after which 90 % of the last 100 episodes
reached the goal, for each seed.

Published beside it: DEIR (Wan et al. 2023) reports for DoorKey-8x8 a mean return of 0.91 after 123,000 frames, with the
same 16 environments and rollouts of 512 steps, and a bonus that is not among these.
"""

import argparse
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import minigrid
import numpy as np
import torch
from gymnasium import spaces
from rich.progress import track
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from astray.agents import ICM, MLP_PPO, RND, Curiosity, EpisodicCounts, LifelongCounts, with_rewards

gym.register_envs(minigrid)
ENVS, SOLVED, EPISODES = 16, 0.9, 100
KINDS = (11, 6, 3)
"""How many objects, colours and states MiniGrid tells of a cell."""
SETTINGS = MLP_PPO | dict(n_steps=512, batch_size=512, learning_rate=5e-4, gamma=0.99)
BONUSES: dict[str, Callable[..., Curiosity] | None] = {
    "none": None,
    "episodic counts": partial(EpisodicCounts, weight=0.005),
    "lifelong counts": partial(LifelongCounts, weight=0.005),
    "RND": partial(RND, weight=0.01),
    "ICM": partial(ICM, weight=0.01),
}


class OneHot(gym.ObservationWrapper):
    """The 7 x 7 cells that the agent sees, each as one-hot object, colour and state."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = spaces.Box(0, 1, (7 * 7 * sum(KINDS),), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        """The planes, in one row."""
        planes = [np.eye(n, dtype=np.uint8)[observation["image"][..., i]] for i, n in enumerate(KINDS)]
        return np.concatenate(planes, axis=-1).ravel()


class UntilSolved(BaseCallback):
    """Stops when enough of the last episodes reached the goal."""

    def __init__(self):
        super().__init__()
        self.reached: deque[bool] = deque(maxlen=EPISODES)

    def _on_step(self) -> bool:
        self.reached.extend(info["episode"]["r"] > 0 for info in self.locals["infos"] if "episode" in info)
        return len(self.reached) < EPISODES or np.mean(self.reached) < SOLVED


def steps_until_solved(size: int, make: Callable[..., Curiosity] | None, seed: int, steps: int) -> int | None:
    """Environment steps, or None if they were too few."""
    name = f"MiniGrid-DoorKey-{size}x{size}-v0"
    envs: Any = make_vec_env(name, ENVS, seed=10_000 * (seed + 1), wrapper_class=OneHot)
    envs = with_rewards(envs, intrinsic={"bonus": make(seed=seed)}) if make else envs
    model = PPO("MlpPolicy", envs, seed=seed, **SETTINGS)
    model.learn(steps, callback=UntilSolved())
    return model.num_timesteps if model.num_timesteps < steps else None


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400_000)
    parser.add_argument("--size", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"DoorKey-{options.size}x{options.size}, at most {options.steps:,} steps\n")
    print("| bonus | steps of each seed | median |")
    print("|---|---|--:|")
    for name, make in BONUSES.items():
        seeds = track(range(options.seeds), name, transient=True)
        found = [steps_until_solved(options.size, make, seed, options.steps) for seed in seeds]
        told = ", ".join("-" if each is None else f"{each:,}" for each in found)
        median = np.median([np.inf if each is None else each for each in found])
        print(f"| {name} | {told} | {f'{median:,.0f}' if np.isfinite(median) else '-'} |", flush=True)


if __name__ == "__main__":
    main()
