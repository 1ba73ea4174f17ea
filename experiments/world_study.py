"""The study that every world has: an MLP trained where the goals coincide, and one trained where they do not."""

from dataclasses import replace
from typing import Any

import numpy as np

from astray.agents.settings import MLP_PPO
from astray.envs import find_world
from astray.envs.levels import TEST_SEED
from astray.experiments.study import Arm, Study


def world_study(
    world: str,
    observation: str | None = None,
    steps: int = 102_400,
    settings: dict[str, Any] = MLP_PPO,
    arguments: dict[str, Any] | None = None,
    num_envs: int = 128,
    extrinsic: str = "world",
) -> Study:
    """Five seeds each at train shift 0 and at the decorrelated one.

    Args:
        world: a command-line name, an id, or "path/to/file.py:Class".
        observation: of the world; by default "planes", or "bytes" if it has none.
        steps: of training.
        settings: keyword arguments of PPO.
        arguments: the world's.
        num_envs: environments trained on at once.
        extrinsic: the reward, as an expression.
    """
    kind = find_world(world)
    rollout = num_envs * settings["n_steps"]
    arm = Arm(
        name="mlp",
        policy="mlp",
        settings=settings,
        observation=observation or ("planes" if "planes" in kind.observations else "bytes"),
        num_envs=num_envs,
        steps=steps,
        test_every=max(1, steps // rollout // 5) * rollout,
        train_shifts=(0.0, kind.decorrelated["shift"]),
        seeds=5,
        extrinsic=extrinsic,
    )
    return Study(name=kind.slug(), world=world, arms=(arm,), arguments=arguments or {})


def own_world_study(world: str) -> Study:
    """``world_study`` with as many test levels as a small world has.

    Args:
        world: "path/to/file.py:Class".
    """
    study, kind = world_study(world), find_world(world)
    sizes: dict[str, int] = {}
    drawn_as = {"ambiguous": kind(shift=0.0), "distinguishing": kind(**kind.decorrelated)}
    for level_class, drawn in drawn_as.items():
        levels = drawn.draw_levels(np.full(1000, TEST_SEED, np.uint64), np.arange(1000))
        there = len(np.unique(levels["fingerprint"][drawn.classify(levels)[0] == level_class]))
        full, timing = getattr(study, f"test_{level_class}"), getattr(study, f"timing_{level_class}")
        sizes |= {f"test_{level_class}": min(full, there), f"timing_{level_class}": min(timing, there)}
    return replace(study, **sizes)
