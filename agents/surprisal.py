"""Surprise of a language model at what happens."""

from functools import lru_cache

import numpy as np
from gymnasium import spaces

from astray.agents.curiosity import Weight
from astray.agents.language_model import LanguageModel
from astray.agents.text_novelty import TextCuriosity
from astray.agents.transitions import Transitions
from astray.envs import InputError
from astray.envs.text import NamedDiscrete, TextChoices

REMEMBERED = 2**16
"""Steps; with more, those that were met longest ago are forgotten."""


class Surprisal(TextCuriosity):
    """The bonus is how unlikely a frozen language model finds the next text, given this one and the action.

    bonus = -log p(s' | s, a) / (the number of tokens of s'), in nats, where the model reads on after the text s and, in
    a line of its own, "> " and the text of the action. An empty text surprises nobody. The paper's model is learned
    with the policy, so that what happens often surprises no more; this one learns nothing, and pays for the same step
    the same for ever. It knows from other texts what a world is like, and so needs no steps to find out.

    Each distinct step is read once, by itself, so that its bonus does not depend on what is read with it.

    Source: Achiam and Sastry, "Surprise-based intrinsic motivation for deep reinforcement learning", 2017, the
    surprisal bonus.
    """

    fades = False

    def __init__(self, model: LanguageModel, weight: Weight = 1.0, seed: int = 0):
        """Makes the module.

        Args:
            model: a language model; it is neither trained nor saved.
            weight: what the bonus is multiplied by.
            seed: unused; nothing here is left to chance.
        """
        super().__init__(weight, seed)
        self.model = model
        self._remembered = lru_cache(REMEMBERED)(self._surprise)

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares for environments.

        Raises:
            InputError: observations are no texts, or actions have none.
        """
        super().setup(observation_space, action_space, num_envs)
        if not isinstance(observation_space, TextChoices) and not isinstance(action_space, NamedDiscrete):
            raise InputError(f"Surprisal reads texts of actions, so they must be NamedDiscrete, not {action_space}")

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The surprise per token, ``float64[B]``.

        Raises:
            InputError: the texts do not fit into the model's context.
        """
        before, after = map(self.read.texts, (transitions.observations, transitions.next_observations))
        return np.array(list(map(self._remembered, before, self._done(transitions), after)))

    def _done(self, transitions: Transitions) -> list[str]:
        """The texts of the actions."""
        numbers = np.asarray(transitions.actions).reshape(-1).tolist()
        space = self.read.space
        if isinstance(space, TextChoices):
            possible = [space.decode(row)[1] for row in transitions.observations]
            return [texts.get(number, "nothing") for texts, number in zip(possible, numbers, strict=True)]
        assert isinstance(self.act.space, NamedDiscrete)
        return [self.act.space.texts[number] for number in numbers]

    def _surprise(self, before: str, action: str, after: str) -> float:
        if not after.strip():
            return 0.0
        prompt = f"{before.strip()}\n> {action}\n"
        (scores,) = self.model.score([prompt], [[after.strip()]], normalization="token")
        return -scores.item()
