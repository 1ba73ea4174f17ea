"""Where levels come from: drawn, rejected, divided into train and test, and certified."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from astray.envs.errors import InputError, choose
from astray.envs.levels import (
    LEVEL_CLASSES,
    Draws,
    Levels,
    LevelSet,
    fingerprints,
    in_split,
    join,
    take,
)

MAX_ATTEMPTS = 10_000


class LevelSource(ABC):
    """What draws levels: the part of a ``World`` that needs no episode.

    Attributes:
        told: level arrays that say how a level is told, not what it is; they do not enter the fingerprint.
        max_steps: the time limit.
        shift: the probability that a level comes from the shifted generator.
        split: which levels are drawn: "train", "test" or "all".
    """

    told: ClassVar[tuple[str, ...]] = ()
    max_steps: int
    shift: float
    split: str

    @classmethod
    @abstractmethod
    def id(cls) -> str:
        """The Gymnasium id."""

    @abstractmethod
    def sample(self, draws: Draws) -> Levels:
        """Draws one level per row of ``draws``: arrays of integers or truth values, one row per level."""

    @abstractmethod
    def solvable(self, levels: Levels) -> np.ndarray:
        """Whether the intended goal can be reached in time, ``bool[n]``."""

    @abstractmethod
    def classify(self, levels: Levels) -> tuple[np.ndarray, np.ndarray]:
        """Class (``str[n]``, see ``LEVEL_CLASSES``) and margin (``float64[n]``) of levels."""

    @abstractmethod
    def level_text(self, levels: Levels, index: int) -> str:
        """One level as text that a person can read and edit."""

    def nameless(self, levels: Levels) -> Levels:
        """Levels without their fingerprints."""
        return {name: values for name, values in levels.items() if name != "fingerprint"}

    def named(self, levels: Levels) -> Levels:
        """Levels with the fingerprints of what they are, which leaves out how they are told."""
        parts = [values for name, values in self.nameless(levels).items() if name not in self.told]
        return levels | {"fingerprint": fingerprints(*parts)}

    def checked(self, levels: Levels) -> Levels:
        """A level that somebody wrote, with its fingerprint.

        Raises:
            InputError: its goals cannot be reached in time.
        """
        levels = self.named(levels)
        if not self.solvable(levels)[0]:
            raise InputError(f"level: its goals cannot be reached within max_steps={self.max_steps}")
        return levels

    def draw_levels(self, seeds: np.ndarray, episodes: np.ndarray) -> Levels:
        """The levels of these env seeds and episodes: solvable, and of this world's split.

        A rejected level is drawn again with the next attempt number, so other levels never move.
        """
        kept: Levels = {}
        missing = np.arange(len(seeds))
        for attempt in range(MAX_ATTEMPTS):
            levels = self.named(self.sample(Draws(seeds[missing], episodes[missing], attempt)))
            good = in_split(levels["fingerprint"], self.split) & self.solvable(levels)
            if attempt == 0:
                kept = levels
            else:
                for name, values in take(levels, good).items():
                    kept[name][missing[good]] = values
            missing = missing[~good]
            if not len(missing):
                return kept
        raise InputError(
            f"{len(missing)} levels were rejected {MAX_ATTEMPTS} times (split={self.split!r}, "
            f"max_steps={self.max_steps}): hardly any level of these arguments is solvable"
        )

    def certified_levels(self, level_class: str, count: int, seed: int) -> LevelSet:
        """``count`` levels of one class, all different.

        Raises:
            InputError: this world's distribution holds too few of them.
        """
        choose("level_class", level_class, LEVEL_CLASSES)
        batches: list[Levels] = []
        known = np.zeros(0, np.uint64)
        size = max(64, count)
        for episode in range(256):
            levels = self.draw_levels(np.full(size, seed), np.arange(episode * size, (episode + 1) * size))
            levels = take(levels, self.classify(levels)[0] == level_class)
            _, first = np.unique(levels["fingerprint"], return_index=True)
            levels = take(levels, np.sort(first))
            levels = take(levels, ~np.isin(levels["fingerprint"], known))
            known = np.concatenate([known, levels["fingerprint"]])
            batches.append(levels)
            if len(known) >= count:
                return self.certify(take(join(batches), slice(count)))
        raise InputError(
            f"count={count}: only {len(known)} different {level_class} levels were found "
            f"at shift={self.shift}, split={self.split!r}"
        )

    def certify(self, levels: Levels) -> LevelSet:
        """The levels with class, margin, fingerprint and text."""
        level_class, margin = self.classify(levels)
        texts = tuple(self.level_text(levels, i) for i in range(len(margin)))
        return LevelSet(levels, level_class, margin, levels["fingerprint"], texts, self.rules)

    @property
    def rules(self) -> dict[str, Any]:
        """What a level's class and margin depend on besides the level."""
        return {"world": self.id(), "max_steps": self.max_steps}

    def check_rules(self, levels: LevelSet) -> None:
        """Refuses levels that were certified under other rules.

        Raises:
            InputError: names the first rule that differs.
        """
        for name, value in self.rules.items():
            if levels.rules.get(name) != value:
                raise InputError(
                    f"these levels were certified with {name}={levels.rules.get(name)!r}, not {value!r}: "
                    "give the world the arguments that the levels were made with"
                )
