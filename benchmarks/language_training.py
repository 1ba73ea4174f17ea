"""How long a language model trains until it reads the room: the default study's arm, one thread, one seed a process.

``python benchmarks/language_training.py [--seeds N] [--plain] [--flat STEPS]`` trains SmolLM2-135M on ambiguous levels
of CheeseCorner with the settings of the study ``cheese-corner`` until 95 % of a test on 64 certified ambiguous levels
are solved with sampled actions. From step 1,536 on it tests before each rollout, and does not count the time of tests.
It prints steps and seconds for each seed, their medians, and the largest memory of a process.

--plain
    The same with Stable-Baselines3's own PPO beside it.
--flat
    Trains for so many steps instead and prints the memory in use on the way: it must not grow.
"""

import argparse
import multiprocessing
import resource
import time
from collections import Counter
from typing import Any

import numpy as np
import psutil
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from astray.agents import LanguagePolicy, LanguagePPO, vec_env
from astray.experiments import evaluate, test_levels
from astray.experiments.cheese_corner import COMPASS

ENOUGH, STEPS, LEVELS = 0.95, 8_192, 64
FIRST_TEST = 1_536  # steps; when each rollout was preceded by a test, the fastest training took 2,560


class UntilSolved(BaseCallback):
    """Tests before a rollout and stops when enough is solved, or prints the memory; keeps what the time went into."""

    def __init__(self, test: bool):
        super().__init__()
        self.test = test
        self.seconds: Counter[str] = Counter()
        self.steps, self.success = 0, 0.0
        self._since, self._solved = time.perf_counter(), False

    def lap(self, part: str) -> None:
        """Counts the time since the last lap."""
        now = time.perf_counter()
        self.seconds[part] += now - self._since
        self._since = now

    def _on_training_start(self) -> None:
        self.lap("set up")
        self.levels = test_levels("cheese-corner", ambiguous=LEVELS, distinguishing=1)
        self.levels = self.levels[self.levels.level_class == "ambiguous"]
        self.lap("test")

    def _on_rollout_start(self) -> None:
        self.lap("update")
        self.steps = self.num_timesteps
        if not self.test:
            print(f"| {self.steps:,} | {psutil.Process().memory_info().rss / 2**30:.2f} |", flush=True)
        elif self.num_timesteps >= FIRST_TEST:
            self.model.policy.clear_cache()
            rows = evaluate(self.model, "cheese-corner", self.levels, ("sampled",), **COMPASS.arguments)
            self.success = float(np.mean(rows["outcome"] == "both"))
            self._solved = self.success >= ENOUGH
            self.model.policy.clear_cache()
        self.lap("test")

    def _on_step(self) -> bool:
        return not self._solved

    def _on_rollout_end(self) -> None:
        self.lap("rollout")


def train(algorithm: type[PPO], seed: int, steps: int, test: bool) -> dict[str, Any]:
    """Trains one seed; what it took."""
    torch.set_num_threads(1)
    envs = vec_env("cheese-corner", COMPASS.num_envs, shift=0.0, **COMPASS.arguments)
    model = algorithm(LanguagePolicy, envs, seed=seed, device="cpu", **COMPASS.settings)
    envs.seed(10_000 * (seed + 1))
    watch = UntilSolved(test)
    model.learn(steps, callback=watch)
    return {
        "steps": watch.steps,
        "seconds": dict(watch.seconds),
        "success": watch.success,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "dtype": str(model.policy.language_model.model.dtype),
    }


def apart(*arguments: Any) -> dict[str, Any]:
    """``train`` in a process of its own, so that its largest memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(train, arguments)


def table(name: str, found: list[dict[str, Any]]) -> None:
    """A line for each seed, and the medians."""
    print(
        f"\n{name}, {found[0]['dtype']}\n\n"
        "| seed | steps | training, s | rollouts, s | updates, s | solved | peak, GiB |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|")
    training = []
    for seed, one in enumerate(found):
        rollout, update = one["seconds"]["rollout"], one["seconds"]["update"]
        training.append(rollout + update)
        cells = (seed, one["steps"], f"{rollout + update:.0f}", f"{rollout:.0f}", f"{update:.0f}")
        print(f"| {' | '.join(map(str, cells))} | {one['success']:.2f} | {one['peak']:.2f} |")
    print(f"\nmedian: {np.median([one['steps'] for one in found]):.0f} steps, {np.median(training):.0f} s")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--flat", type=int, metavar="STEPS")
    options = parser.parse_args()
    if options.flat:
        print("| step | memory in use, GiB |\n|--:|--:|")
        print(f"\npeak {train(LanguagePPO, 0, options.flat, False)['peak']:.2f} GiB")
        return
    for algorithm in (LanguagePPO, PPO) if options.plain else (LanguagePPO,):
        table(algorithm.__name__, [apart(algorithm, seed, STEPS, True) for seed in range(options.seeds)])


if __name__ == "__main__":
    main()
