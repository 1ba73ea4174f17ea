"""Goals that a language model suggests, each of which pays once."""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch

from astray.agents.curiosity import Weight
from astray.agents.embedding import Embed
from astray.agents.language_model import LanguageModel
from astray.agents.text_novelty import TextCuriosity
from astray.agents.transitions import Transitions
from astray.envs import InputError

QUESTION = "Suggest up to five short goals that one could reach next in this place. Write each in a line of its own."
REMEMBERED = 2**12
"""Texts; with more, those that were met longest ago are forgotten."""


class SuggestedGoals(TextCuriosity):
    """The bonus is how near the next text comes to something that a language model suggested to do; each pays once.

    bonus = max over g of cos(E(s'), E(g)) if that is above a threshold, else 0, where g are the suggestions for s that
    the episode has not achieved yet, and E embeds texts. The suggestion that is paid for is achieved.

    The threshold depends on the embedding: the paper's 0.5 is for one trained to tell what sentences mean (Sentence-
    BERT). For the last hidden states of a language model, most texts are near to most others; look at some of your own
    before you choose. The paper compares captions of transitions, which here is the whole text unless ``caption`` says
    what of it. Suggestions are the likeliest answer of the model rather than drawn. Each distinct text is asked for and
    embedded once, by itself, so that nothing depends on what else is asked.

    Source: Du et al., "Guiding pretraining in reinforcement learning with large language models", ICML 2023, whose
    reward and novelty bias this is.
    """

    episodic = True

    def __init__(
        self,
        model: LanguageModel,
        suggestions: Sequence[str] | None = None,
        question: str = QUESTION,
        threshold: float = 0.5,
        caption: Callable[[str], str] = str,
        embed: Embed | None = None,
        weight: Weight = 1.0,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            model: what is asked for suggestions, and embeds; it is neither trained nor saved.
            suggestions: the same ones for every text; by default the model is asked for each text.
            question: the instruction with which it is asked; each line of its answer is a suggestion.
            threshold: similarities up to this one pay nothing, from 0 to 1.
            caption: what of a text is compared with suggestions, such as its last sentence; by default all of it.
            embed: from B texts to ``[B, size]``; by default the last hidden states of the model.
            weight: what the bonus is multiplied by.
            seed: unused; nothing here is left to chance.

        Raises:
            InputError: the threshold does not lie in 0..1, or there are suggestions, but none with words.
        """
        super().__init__(weight, seed)
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold={threshold} must lie in 0..1, as cosines that pay do")
        if suggestions is not None and (isinstance(suggestions, str) or not all(map(str.strip, suggestions or [""]))):
            raise InputError(f"suggestions={suggestions!r} must be a list of texts with words, or left out")
        self.model, self.question, self.threshold, self.caption = model, question, threshold, caption
        self.suggestions = None if suggestions is None else tuple(suggestions)
        self.achieved: dict[int, list[str]] = {}  # in the episode of each environment
        self._embed: Embed = model.embed if embed is None else embed
        self._asked = lru_cache(REMEMBERED)(self._ask)
        self._direction = lru_cache(REMEMBERED)(self._find_direction)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The similarity to what is achieved, ``float64[B]``."""
        return np.array([similarity for _, _, similarity in self._steps(transitions)])

    def observe(self, transitions: Transitions) -> None:
        """Remembers what is achieved."""
        rows = transitions.environments.tolist()
        for row, (before, goal, similarity) in zip(rows, self._steps(transitions), strict=True):
            self.achieved[row] = [*before, goal] if similarity else before

    def suggested(self, text: str) -> tuple[str, ...]:
        """The suggestions for a text."""
        return self._asked(text) if self.suggestions is None else self.suggestions

    def _steps(self, transitions: Transitions) -> list[tuple[list[str], str, float]]:
        """Of each step, what its episode achieved before, the nearest other suggestion, and what it pays for it."""
        before, after = map(self.read.texts, (transitions.observations, transitions.next_observations))
        known = [
            self.achieved.get(row, []) if step else []
            for row, step in zip(transitions.environments.tolist(), transitions.steps.tolist(), strict=True)
        ]
        return [(past, *self._nearest(text, told, past)) for past, text, told in zip(known, before, after, strict=True)]

    def _nearest(self, text: str, told: str, past: Sequence[str]) -> tuple[str, float]:
        goals = [goal for goal in self.suggested(text) if goal not in past]
        caption = self.caption(told)
        if not goals or not caption.strip():
            return "", 0.0
        similarities = np.stack([self._direction(goal) for goal in goals]) @ self._direction(caption)
        best = int(similarities.argmax())
        similarity = float(similarities[best])
        return goals[best], similarity if similarity > self.threshold else 0.0

    def _ask(self, text: str) -> tuple[str, ...]:
        (answer,) = self.model.generate([self.model.prompt(self.question, text)], temperature=0.0)
        lines = [re.sub(r"^[\W\d_]+", "", line).strip() for line in answer.splitlines()]  # no bullets, no numbers
        return tuple(dict.fromkeys(filter(None, lines)))

    def _find_direction(self, text: str) -> np.ndarray:
        """The embedding, of length 1, ``float64[size]``."""
        vector = torch.as_tensor(self._embed([text])).detach().double().cpu().numpy().reshape(-1)
        if not np.isfinite(vector).all():
            raise InputError(f"embed gave numbers that are not finite for {text!r}")
        return vector / max(float(np.linalg.norm(vector)), 1e-12)
