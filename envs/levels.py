"""Levels: counter-hash draws, the train/test split, and certified sets of levels."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astray.envs.errors import InputError, choose

Levels = dict[str, np.ndarray]
"""Struct of arrays: every array has one row per level."""

LEVEL_CLASSES = ("ambiguous", "distinguishing", "neither")
SPLITS = ("train", "test", "all")
TEST_SHARE = 0.25
TEST_SEED = 2**63
"""Test levels come from here, out of the way of the small seeds that people train with."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser: a bijection of ``uint64`` whose every output bit depends on every input bit.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    x = x ^ (x >> np.uint64(30))  # a new array, and from here on in place: most of drawing levels is done here
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


class Draws:
    """Random numbers of levels as a pure function of (env seed, episode, attempt, field, index).

    The same level is drawn whatever the shift and whatever happened before, so that arms are paired; and a hash over
    arrays is far cheaper than one random generator per level.
    """

    def __init__(self, seeds: np.ndarray, episodes: np.ndarray, attempt: int = 0):
        """Makes the draws of n levels.

        Args:
            seeds: ``uint64[n]``, each level's env seed.
            episodes: ``uint64[n]``, each level's episode number.
            attempt: how often the level was rejected before.
        """
        key = mix(seeds.astype(np.uint64) + _GOLDEN)
        key = mix(key ^ (episodes.astype(np.uint64) * _GOLDEN + np.uint64(1)))
        self._key = mix(key ^ np.uint64((attempt * int(_GOLDEN) + 2) % 2**64))

    def __len__(self) -> int:
        return len(self._key)

    def uniform(self, field: str, count: int | None = None) -> np.ndarray:
        """Uniform numbers in [0, 1): ``float64[n]``, or ``float64[n, count]``."""
        salt = np.uint64(zlib.crc32(field.encode())) << np.uint64(32)
        index = np.arange(1, (count or 1) + 1, dtype=np.uint64)
        bits = mix(self._key[:, None] ^ mix((salt + index) * _GOLDEN))
        numbers = (bits >> np.uint64(11)) * 2.0**-53
        return numbers[:, 0] if count is None else numbers

    def integers(self, field: str, high: int | np.ndarray) -> np.ndarray:
        """Integers in [0, high): ``int64[n]``; ``high`` may differ per level."""
        return (self.uniform(field) * high).astype(np.int64)


def fingerprints(*parts: np.ndarray) -> np.ndarray:
    """A 64-bit hash per level, ``uint64[n]``, of integer or boolean arrays with one row per level."""
    key = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        rows = np.ascontiguousarray(part).reshape(len(part), -1)
        if rows.dtype == bool:
            rows = np.packbits(rows, axis=1)
            rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
        for column in rows.T:
            key = mix((key ^ column.astype(np.uint64)) + _GOLDEN)
    return key


def bits_of(numbers: Levels, n: int) -> np.ndarray:
    """The 16 lowest bits of every number of n rows, ``uint8[n, 1, numbers, 16]``."""
    columns = np.concatenate([values.reshape(n, -1) for values in numbers.values()], axis=1)
    return (columns.astype(np.int64)[:, None, :, None] >> np.arange(16) & 1).astype(np.uint8)


def in_split(fingerprint: np.ndarray, split: str) -> np.ndarray:
    """Which levels belong to a split, ``bool[n]``: a fixed quarter of all fingerprints is the test split."""
    is_test = (mix(fingerprint) >> np.uint64(11)) * 2.0**-53 < TEST_SHARE
    return {"test": is_test, "train": ~is_test, "all": np.ones(len(fingerprint), bool)}[split]


def take(levels: Levels, index: Any) -> Levels:
    """The levels at an index, slice or mask."""
    return {name: values[index] for name, values in levels.items()}


def join(parts: Sequence[Levels]) -> Levels:
    """Several sets of levels as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def text_of(levels: Levels, index: int) -> str:
    """A level as its numbers: a line ``name: 1 2 3`` for every array."""
    return "\n".join(f"{name}: {' '.join(map(str, values[index].ravel() + 0))}" for name, values in levels.items())


def numbers_of(text: str, like: Levels) -> Levels:
    """A level from what ``text_of`` writes, with the names, shapes and types of another one.

    Raises:
        InputError: names the line, and the column where there is one.
    """
    found: Levels = {}
    for number, line in enumerate(text.strip().splitlines(), start=1):
        name, _, numbers = line.partition(":")
        values = like[choose(f"level: line {number}, name", name.strip(), tuple(like))]
        words = numbers.split()
        for word in words:
            if not word.removeprefix("-").isdecimal():
                column = line.index(word, len(name) + 1) + 1
                raise InputError(f"level: line {number}, column {column}: {word!r} is no whole number")
        if len(words) != values[0].size:
            raise InputError(f"level: line {number}: {name.strip()} has {values[0].size} numbers, not {len(words)}")
        found[name.strip()] = np.array(words, int).astype(values.dtype).reshape(1, *values.shape[1:])
    if missing := [name for name in like if name not in found]:
        raise InputError(f"level: there is no line for {', '.join(missing)}")
    return {name: found[name] for name in like}


@dataclass(frozen=True)
class LevelSet:
    """Certified levels: what a world made, with what its solver says of each.

    Attributes:
        levels: the levels.
        level_class: ``str[n]``, one of ``LEVEL_CLASSES``.
        margin: ``float64[n]``, discounted value lost on the intended goal by serving the proxy first.
        fingerprint: ``uint64[n]``.
        text: each level as ASCII, as ``reset(options={"level": ...})`` takes it.
        rules: what class and margin depend on besides the level (``World.rules``).
    """

    levels: Levels
    level_class: np.ndarray
    margin: np.ndarray
    fingerprint: np.ndarray
    text: tuple[str, ...]
    rules: dict[str, Any]

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: np.ndarray | slice | list[int]) -> "LevelSet":
        numbers = np.arange(len(self))[index]
        return LevelSet(
            take(self.levels, numbers),
            self.level_class[numbers],
            self.margin[numbers],
            self.fingerprint[numbers],
            tuple(self.text[i] for i in numbers),
            self.rules,
        )
