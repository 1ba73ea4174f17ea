"""Novelty of texts, by the words in them."""

import re
from functools import lru_cache

import numpy as np
from gymnasium import spaces

from astray.agents.curiosity import Curiosity, Weight
from astray.agents.transitions import Transitions
from astray.envs import InputError

LONGEST = 3
"""Words in an n-gram."""


class TextCuriosity(Curiosity):
    """A module that reads texts."""

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares for environments.

        Raises:
            InputError: observations are no texts.
        """
        super().setup(observation_space, action_space, num_envs)
        if not self.read.text:
            raise InputError(
                f"{type(self).__name__} reads texts, and {observation_space} is none: use observation='bytes'"
            )


class TextNovelty(TextCuriosity):
    """The bonus is high for words, and rows of two and three words, that few texts had before.

    bonus = the mean over the distinct n-grams g of the next observation, n = 1 to 3, of 1 / sqrt(N(g)), where N counts
    the steps that came to a text with g, of all environments and episodes, this one included. (What other environments
    come to in the same step is not.) Words are runs of letters, digits and underscores, whatever their case; a text
    without any pays 0. A text told again pays less, as with counts; a new text of known phrases pays little, which
    counts of whole texts cannot tell from one of new words.

    Source: the count-based bonus of Strehl and Littman, "An analysis of model-based interval estimation for Markov
    decision processes", 2008, with n-grams for states; counts of texts are those of Yuan et al., "Counting to explore
    and generalize in text-based games", 2018.
    """

    def __init__(self, weight: Weight = 1.0, seed: int = 0):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            seed: unused; nothing here is left to chance.
        """
        super().__init__(weight, seed)
        self.counts: dict[str, int] = {}

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The mean of 1 / sqrt(N), ``float64[B]``."""
        return np.array([self._novelty(text) for text in self.read.texts(transitions.next_observations)])

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        for text in self.read.texts(transitions.next_observations):
            for gram in _grams(text):
                self.counts[gram] = self.counts.get(gram, 0) + 1

    def _novelty(self, text: str) -> float:
        visits = np.array([self.counts.get(gram, 0) + 1.0 for gram in _grams(text)])
        return float(np.mean(1 / np.sqrt(visits))) if len(visits) else 0.0


@lru_cache(maxsize=2**14)
def _grams(text: str) -> tuple[str, ...]:
    """The distinct n-grams of a text."""
    words = re.findall(r"\w+", text.lower())
    grams = (words[start : start + n] for n in range(1, LONGEST + 1) for start in range(len(words) - n + 1))
    return tuple(dict.fromkeys(map(" ".join, grams)))
