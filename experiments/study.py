"""Studies: what to train, on which shifts, and on which levels to test it."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import partial
from typing import Any

from astray.envs import InputError, LevelSet, World, find_world

REFERENCES = "references"
"""The cell of the agents that need no training: random, and an expert for each goal."""


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: on curves and in rows.
        policy: the kind of policy, which ``--policies`` selects; the page is first written when the first kind is done.
        settings: keyword arguments of PPO (of ``LanguagePPO`` for a language model), ``n_steps`` among them; ``policy``
            may be among them too.
        observation: the world's observation.
        num_envs: environments trained on at once.
        steps: environment steps, a multiple of ``num_envs`` times the settings' ``n_steps``.
        test_every: steps between tests (and checkpoints) while training.
        train_shifts: one set of cells for each.
        seeds: training seeds 0, 1, ... of each train shift.
        arguments: the world's other arguments.
        language_model: the name of a ``LanguagePolicy``'s model; without one the policy is an MLP.
        extrinsic: the reward, as in ``with_rewards``: an expression, or a function of the transitions.
        intrinsic: curiosity modules by name, each as what makes one for a training seed:
            ``{"rnd": partial(RND, weight=0.1)}`` (it is called with ``seed=``).
        begins_with: the name of an arm whose trained policy this one begins with, instead of an untrained one: that of
            the same seed, at that arm's first train shift.
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
    extrinsic: str | Callable[..., Any] = "world"
    intrinsic: dict[str, Callable[..., Any]] = field(default_factory=dict)
    begins_with: str | None = None

    def __post_init__(self):
        """Refuses numbers of steps that fall between two rollouts, where nothing is tested or kept.

        Raises:
            InputError: ``name`` cannot be part of a file's name; ``steps`` or ``test_every`` is no multiple of a
                rollout; there is no seed or no train shift, or a train shift is no probability.
        """
        if not re.fullmatch(r"[\w .,+=-]+", self.name):
            raise InputError(f"arm name={self.name!r} names files: use letters, digits, spaces and _ . , + = -")
        if self.seeds < 1:
            raise InputError(f"arm {self.name!r}: seeds={self.seeds} must be at least 1")
        if not self.train_shifts:
            raise InputError(f"arm {self.name!r}: train_shifts: at least one is needed")
        for shift in self.train_shifts:
            if not 0 <= shift <= 1:
                raise InputError(
                    f"arm {self.name!r}: train_shifts: {shift:g} is a probability, so it must lie in [0, 1]"
                )
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
        return f"{file_name(self.arm.name)}-shift{self.train_shift:g}-seed{self.seed}"


def file_name(name: str) -> str:
    """A name as part of a file's name."""
    return name.replace(" ", "-")


@dataclass(frozen=True)
class Study:
    """A world, arms to train on it, and certified levels to test them on.

    Attributes:
        name: of the study and its run folder.
        world: id, command-line name, or class.
        arms: in the order in which they run.
        quick: whether this is the short form, which the page says.
        test_ambiguous: certified ambiguous levels of the last test.
        test_distinguishing: certified distinguishing levels of the last test.
        timing_ambiguous: how many of them the tests during training use.
        timing_distinguishing: likewise.
        arguments: the world's arguments, shared by all arms.
    """

    name: str
    world: str | type[World]
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
            InputError: they are, a class of levels is not tested at all, two arms have one name (in their files), or an
                arm begins with one that is not there before it, or has fewer seeds.
        """
        names = [file_name(arm.name) for arm in self.arms]
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"arms: {', '.join(sorted(twice))} is there more than once; every arm needs its own name")
        for number, arm in enumerate(self.arms):
            before = {earlier.name: earlier.seeds for earlier in self.arms[:number]}
            if arm.begins_with and before.get(arm.begins_with, 0) < arm.seeds:
                raise InputError(
                    f"arm {arm.name!r}: begins_with={arm.begins_with!r} must be an arm before it with at least "
                    f"{arm.seeds} seeds, of {before}"
                )
        for name in ("ambiguous", "distinguishing"):
            timing, full = getattr(self, f"timing_{name}"), getattr(self, f"test_{name}")
            if not 1 <= timing <= full:
                raise InputError(f"timing_{name}={timing} must lie in 1..test_{name}={full}")

    def cells(self) -> list[Cell]:
        """Every training run, in order."""
        return [Cell(arm, shift, seed) for arm in self.arms for shift in arm.train_shifts for seed in range(arm.seeds)]

    def beginning(self, cell: Cell) -> Cell | None:
        """The cell whose trained policy a cell begins with, if there is one."""
        for arm in self.arms:
            if arm.name == cell.arm.begins_with:
                return Cell(arm, arm.train_shifts[0], cell.seed)
        return None

    def levels(self) -> tuple[LevelSet, LevelSet]:
        """The certified levels of the last test, and those of the tests during training (some of the same)."""
        from astray.experiments.evaluation import test_levels  # which imports torch, while a study is only said

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
        return json.loads(json.dumps(asdict(self) | {"goals": goals, "cells": names}, default=_plain))


def _plain(value: Any) -> Any:
    """What is neither number, text, list nor dict, as JSON can hold it: a class or function by its full name."""
    if isinstance(value, partial):
        return {"call": _plain(value.func), **dict(enumerate(value.args)), **value.keywords}
    if is_dataclass(value) and not isinstance(value, type):
        return {"call": _plain(type(value)), **asdict(value)}
    if isinstance(value, type) or callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    raise InputError(
        f"a study cannot hold {value!r}: give a number, a text, a class, a function, a functools.partial or a dataclass"
    )
