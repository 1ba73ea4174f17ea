"""Studies: what to train, on which shifts, and on which levels to test it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from astray.envs import InputError, LevelSet, find_world
from astray.envs.world import choose
from astray.experiments.evaluation import test_levels

REFERENCES = "references"
"""The cell of the agents that need no training: random, and an expert for each goal."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: on curves and in rows.
        policy: what ``--policies`` selects.
        settings: keyword arguments of PPO, ``n_steps`` among them.
        observation: the world's observation.
        num_envs: environments trained on at once.
        steps: environment steps, a multiple of ``num_envs`` times the settings' ``n_steps``.
        test_every: steps between tests (and checkpoints) while training.
        train_shifts: one set of cells for each.
        seeds: training seeds 0, 1, ... of each train shift.
        arguments: the world's other arguments.
        language_model: the name of a ``LanguagePolicy``'s model; without one the policy is an MLP.
    """

    name: str
    policy: str
    settings: dict[str, Any]
    observation: str
    num_envs: int
    steps: int
    test_every: int
    train_shifts: tuple[float, ...]
    seeds: int
    arguments: dict[str, Any] = field(default_factory=dict)
    language_model: str | None = None

    def __post_init__(self):
        """Refuses numbers of steps that fall between two rollouts, where nothing is tested or kept.

        Raises:
            InputError: ``steps`` or ``test_every`` is no multiple of a rollout.
        """
        rollout = self.num_envs * self.settings["n_steps"]
        for name in ("steps", "test_every"):
            if getattr(self, name) < 1 or getattr(self, name) % rollout:
                raise InputError(
                    f"arm {self.name!r}: {name}={getattr(self, name)} is no multiple of its rollout of {rollout} steps"
                )


@dataclass(frozen=True)
class Cell:
    """One training run of a study."""

    arm: Arm
    train_shift: float
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's files."""
        return f"{self.arm.name.replace(' ', '-')}-shift{self.train_shift:g}-seed{self.seed}"


@dataclass(frozen=True)
class Study:
    """A world, arms to train on it, and certified levels to test them on.

    Attributes:
        name: of the study and its run folder.
        world: command-line name.
        arms: in the order in which they run.
        quick: whether this is the short form, which the page says.
        test_ambiguous: certified ambiguous levels of the last test.
        test_distinguishing: certified distinguishing levels of the last test.
        timing_ambiguous: how many of them the tests during training use.
        timing_distinguishing: likewise.
        arguments: the world's arguments, shared by all arms.
    """

    name: str
    world: str
    arms: tuple[Arm, ...]
    quick: bool = False
    test_ambiguous: int = 64
    test_distinguishing: int = 128
    timing_ambiguous: int = 24
    timing_distinguishing: int = 48
    arguments: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        """Refuses tests during training that are larger than the last one, whose levels they take.

        Raises:
            InputError: they are, or a class of levels is not tested at all.
        """
        for name in ("ambiguous", "distinguishing"):
            timing, full = getattr(self, f"timing_{name}"), getattr(self, f"test_{name}")
            if not 1 <= timing <= full:
                raise InputError(f"timing_{name}={timing} must lie in 1..test_{name}={full}")

    def cells(self) -> list[Cell]:
        """Every training run, in order."""
        return [Cell(arm, shift, seed) for arm in self.arms for shift in arm.train_shifts for seed in range(arm.seeds)]

    def levels(self) -> tuple[LevelSet, LevelSet]:
        """The certified levels of the last test, and those of the tests during training (some of the same)."""
        arguments = dict(self.arguments)
        if arguments.get("split") == "train":
            arguments["split"] = "test"
        full = test_levels(self.world, self.test_ambiguous, self.test_distinguishing, **arguments)
        numbers = [
            *range(self.timing_ambiguous),
            *range(self.test_ambiguous, self.test_ambiguous + self.timing_distinguishing),
        ]
        return full, full[numbers]

    def config(self) -> dict[str, Any]:
        """Everything that rows depend on, as JSON holds it."""
        names = [REFERENCES, *(cell.name for cell in self.cells())]
        goals = list(find_world(self.world).goals)
        return json.loads(json.dumps(asdict(self) | {"goals": goals, "cells": names}))


def select(
    study: Study,
    policies: Sequence[str] | None = None,
    seeds: int | None = None,
    train_shifts: Sequence[float] | None = None,
) -> Study:
    """The study with fewer arms, another number of seeds, or other train shifts.

    Raises:
        InputError: an unknown policy, no policy, seed or train shift at all, or a train shift outside [0, 1].
    """
    for name, values in (("policies", policies), ("train-shifts", train_shifts)):
        if values is not None and not len(values):
            raise InputError(f"{name}: at least one is needed")
    if policies is not None:
        known = tuple(dict.fromkeys(arm.policy for arm in study.arms))
        chosen = {choose("policies", policy, known) for policy in policies}
        study = replace(study, arms=tuple(arm for arm in study.arms if arm.policy in chosen))
    if seeds is not None:
        if seeds < 1:
            raise InputError(f"seeds={seeds} must be at least 1")
        study = replace(study, arms=tuple(replace(arm, seeds=seeds) for arm in study.arms))
    if train_shifts is not None:
        for shift in train_shifts:
            if not 0 <= shift <= 1:
                raise InputError(f"train-shifts: {shift:g} is a probability, so it must lie in [0, 1]")
        shifts = tuple(dict.fromkeys(float(shift) for shift in train_shifts))
        study = replace(study, arms=tuple(replace(arm, train_shifts=shifts) for arm in study.arms))
    return study
