"""Observations and actions of any Gymnasium space as numbers, texts and keys, for rewards and curiosity modules."""

import zlib
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional

from astray.envs import InputError
from astray.envs.text import TextBytes, TextChoices, decode

TEXT_FEATURES = 256
SMALLEST_IMAGE = 36
"""Sides in pixels from which on a box of bytes is an image, as the "Nature" network of Stable-Baselines3 needs it."""


def as_rows(observations: Any, space: spaces.Space) -> np.ndarray:
    """Observations of B environments as one array ``[B, ...]``: itself, or the parts of a dict or tuple in a row.

    Args:
        observations: as a ``VecEnv`` gives them.
        space: of one observation.
    """
    if isinstance(observations, np.ndarray):
        return observations
    parts = observations
    if isinstance(space, spaces.Dict):  # in the space's order: environments may tell the parts in any
        parts = [observations[key] for key in (TextChoices.KEYS if isinstance(space, TextChoices) else space)]
    return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts], axis=1)


class ObservationReader:
    """Reads observations of one space.

    Attributes:
        size: how many numbers an observation is.
        image: ``(height, width, channels)`` of an image with the channels last, or None.
        text: whether it is a text.
    """

    def __init__(self, space: spaces.Space):
        self.space = space
        self.text = isinstance(space, TextBytes | TextChoices)
        self.size = TEXT_FEATURES if self.text else int(spaces.flatdim(space))
        shape = tuple(space.shape or ())
        large = len(shape) == 3 and sorted(shape)[1] >= SMALLEST_IMAGE and space.dtype == np.uint8
        self.image: tuple[int, ...] | None = shape if large and shape[2] < SMALLEST_IMAGE else None

    def texts(self, observations: np.ndarray) -> list[str]:
        """The texts; of a text with possible actions, the text alone.

        Raises:
            InputError: observations are no texts.
        """
        if not self.text:
            raise InputError(f"{self.space} is no text: use observation='bytes', or another module")
        return decode(observations[:, : self.space.max_length])  # pyright: ignore[reportAttributeAccessIssue]

    def numbers(self, observations: np.ndarray) -> np.ndarray:
        """The observations as numbers, ``float32[B, size]``.

        Discrete ones are one-hot, boxes of bytes lie in 0..1, and a text is what words and pairs of words it has,
        hashed to ``TEXT_FEATURES`` numbers (Weinberger et al., "Feature hashing", ICML 2009) of length 1.
        """
        if self.text:
            return np.stack([_hashed_words(text) for text in self.texts(observations)])
        return numbers_of(self.space, observations)

    def keys(self, observations: np.ndarray) -> np.ndarray:
        """A number for each observation, equal for equal ones, ``uint64[B]``.

        Two that differ get the same number with a probability below 2^-56.
        """
        rows = np.ascontiguousarray(observations).reshape(len(observations), -1)
        rows = np.ascontiguousarray(rows + 0) if rows.dtype.kind == "f" else rows  # -0.0 is 0.0
        data = rows.view(np.uint8).reshape(len(rows), -1)
        return data.astype(np.uint64) @ _multipliers(data.shape[1])


class ActionReader:
    """Reads actions of one space.

    Attributes:
        size: how many numbers an action is.
    """

    def __init__(self, space: spaces.Space):
        self.space = space
        self.size = int(spaces.flatdim(space))

    def numbers(self, actions: np.ndarray) -> np.ndarray:
        """The actions as numbers, one-hot where they are discrete, ``float32[B, size]``."""
        return numbers_of(self.space, actions)

    def loss(self, predicted: Tensor, actions: np.ndarray) -> Tensor:
        """How badly actions are predicted, each one, ``float32[B]``.

        Args:
            predicted: logits where actions are discrete or several such, else the numbers, ``float32[B, size]``.
            actions: what was done.
        """
        if isinstance(self.space, spaces.Discrete | spaces.MultiDiscrete):
            several = self.space.nvec if isinstance(self.space, spaces.MultiDiscrete) else self.space.n
            sizes = np.reshape(several, -1).tolist()
            numbers = np.asarray(actions).reshape(len(predicted), -1) - np.reshape(self.space.start, -1)
            parts = zip(
                predicted.split(sizes, dim=1), torch.as_tensor(numbers, dtype=torch.long).unbind(1), strict=True
            )
            return torch.stack([functional.cross_entropy(*part, reduction="none") for part in parts]).sum(dim=0)
        target = torch.as_tensor(self.numbers(actions))
        return (predicted - target).square().mean(dim=1)


def numbers_of(space: spaces.Space, values: np.ndarray) -> np.ndarray:
    """Values of a space as numbers, ``float32[B, flatdim(space)]``.

    Raises:
        InputError: a space of another kind.
    """
    if isinstance(space, spaces.Discrete):
        rows = np.zeros((len(values), int(space.n)), np.float32)
        rows[np.arange(len(values)), np.asarray(values).reshape(-1) - space.start] = 1
        return rows
    if isinstance(space, spaces.MultiDiscrete):
        columns = np.asarray(values).reshape(len(values), -1) - space.start.reshape(-1)
        sizes = space.nvec.reshape(-1).astype(int)
        return np.concatenate([np.eye(n, dtype=np.float32)[c] for n, c in zip(sizes, columns.T, strict=True)], axis=1)
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        rows = np.asarray(values).reshape(len(values), -1).astype(np.float32)
        bytes_of = isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.high.max(initial=0) == 255
        return rows / np.float32(255) if bytes_of else rows
    if isinstance(space, spaces.Dict | spaces.Tuple):
        parts = list(space.values() if isinstance(space, spaces.Dict) else space)
        widths = [int(np.prod(part.shape or (1,))) for part in parts]
        pieces = np.split(values, np.cumsum(widths)[:-1], axis=1)
        whole = [np.round(v).astype(int) if _counts(part) else v for part, v in zip(parts, pieces, strict=True)]
        return np.concatenate([numbers_of(part, v) for part, v in zip(parts, whole, strict=True)], axis=1)
    raise InputError(f"{space} has no numbers: a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple has")


def _counts(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete)


@lru_cache(maxsize=8)
def _multipliers(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, length, np.uint64)


@lru_cache(maxsize=65_536)
def _hashed_words(text: str) -> np.ndarray:
    words = text.lower().split()
    row = np.zeros(TEXT_FEATURES, np.float32)
    for gram in (*words, *map(" ".join, pairwise(words))):
        number = zlib.crc32(gram.encode())
        row[number % TEXT_FEATURES] += 1 if number & 0x8000_0000 else -1
    return row / max(float(np.linalg.norm(row)), 1.0)
