"""A language model that judges what it reads, as a reward."""

from functools import lru_cache

import numpy as np
from gymnasium import spaces

from astray.agents.language_model import LanguageModel
from astray.agents.reading import ObservationReader
from astray.agents.transitions import Transitions
from astray.envs import InputError

REMEMBERED = 2**16
"""Texts; with more, those that were met longest ago are forgotten."""


class LanguageJudge:
    """A reward: the probability with which a language model answers a question about the next text with yes.

    It pays p(yes) / (p(yes) + p(no)), where p is of the whole answer after the model's chat prompt (or, without chat
    template, after question and text, a line each). ``with_rewards(envs, LanguageJudge(model, question,
    envs.observation_space))``. Each distinct text is judged once, by itself, so that its reward does not depend on what
    is judged with it.

    Source: Kwon et al., "Reward design with language models", ICLR 2023, who take the answer itself; its probability is
    a reward that does not jump.
    """

    def __init__(
        self,
        model: LanguageModel,
        question: str,
        observation_space: spaces.Space,
        answers: tuple[str, str] = ("Yes", "No"),
    ):
        """Makes the reward.

        Args:
            model: who is asked.
            question: the instruction before the text, such as "Is the mouse at the cheese? Answer Yes or No."
            observation_space: of the environments, texts.
            answers: yes and no, as the model is likely to write them.

        Raises:
            InputError: observations are no texts.
        """
        self.model, self.question, self.answers = model, question, answers
        self.read = ObservationReader(observation_space)
        if not self.read.text:
            raise InputError(f"LanguageJudge reads texts, and {observation_space} is none: use observation='bytes'")
        self._remembered = lru_cache(REMEMBERED)(self._judge)

    def __call__(self, transitions: Transitions) -> np.ndarray:
        """The probability of yes, ``float64[B]``.

        Raises:
            InputError: a text does not fit into the model's context.
        """
        return np.array(list(map(self._remembered, self.read.texts(transitions.next_observations))))

    def _judge(self, text: str) -> float:
        (scores,) = self.model.score([self.model.prompt(self.question, text)], [self.answers])
        return float(scores.detach().double().softmax(0)[0])
