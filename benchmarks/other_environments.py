"""A language model learns in environments that were made elsewhere: BabyAI's missions and a game of TextWorld.

``python benchmarks/other_environments.py {babyai,textworld} [--steps N] [--seed N]`` trains SmolLM2-135M with
``LanguagePPO`` on 8 environments and prints the mean return of the episodes that ended in each iteration, beside that
of an agent that chooses at random among what is possible. It needs the package minigrid or textworld.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from astray.agents import LM_PPO, LanguagePolicy, LanguagePPO
from astray.envs.textworld import generate_game

# Commands of one word must not be the likelier for it: without a length bias, the model tries the longer ones, too.
SETTINGS = LM_PPO | dict(n_steps=32, batch_size=64, policy_kwargs=dict(normalization="trie"))
RANDOM_EPISODES = 300


def babyai() -> tuple[str, dict[str, Any]]:
    """Go to the only object of a room: any of 18, anywhere."""
    return "astray/MissionText-v0", dict(
        mission_env="BabyAI-GoToObjS4-v0", actions=("left", "right", "forward"), max_episode_steps=16
    )


def textworld() -> tuple[str, dict[str, Any]]:
    """Win a game of two rooms by two commands; which commands are possible, and how long they are, differs."""
    game = generate_game(Path(tempfile.gettempdir(), "astray-games"), seed=1, rooms=2, objects=3, quest_length=2)
    # without render_mode, make_vec_env would ask for pictures first
    return "astray/TextWorld-v0", dict(games=game, max_steps=12, render_mode=None)


ENVIRONMENTS: dict[str, Callable[[], tuple[str, dict[str, Any]]]] = {"babyai": babyai, "textworld": textworld}


def random_return(env: gym.Env) -> float:
    """The mean return of choosing among what is possible, each as likely."""
    rng, returns = np.random.default_rng(0), []
    for episode in range(RANDOM_EPISODES):
        _, info = env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            count = len(info["action_texts"]) if "action_texts" in info else env.action_space.n  # pyright: ignore[reportAttributeAccessIssue]
            _, reward, terminated, truncated, info = env.step(int(rng.integers(count)))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


class Returns(BaseCallback):
    """Prints the mean return of the episodes that ended in each iteration."""

    def _on_rollout_start(self) -> None:
        self.ended: list[float] = []

    def _on_step(self) -> bool:
        self.ended += [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        print(f"| {self.num_timesteps:,} | {len(self.ended)} | {np.mean(self.ended):.2f} |", flush=True)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", choices=ENVIRONMENTS)
    parser.add_argument("--steps", type=int, default=2_048)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    name, arguments = ENVIRONMENTS[options.environment]()
    print(f"At random: {random_return(gym.make(name, **arguments)):.2f}\n")
    print("| steps | episodes that ended | mean return |\n|--:|--:|--:|")
    envs = make_vec_env(name, 8, seed=10_000 * (options.seed + 1), env_kwargs=arguments)
    LanguagePPO(LanguagePolicy, envs, seed=options.seed, **SETTINGS).learn(options.steps, callback=Returns())


if __name__ == "__main__":
    main()
