"""Texts as numbers of a language model, for modules that would else read words."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from astray.agents.reading import ObservationReader
from astray.envs import InputError

Embed = Callable[[list[str]], Any]
"""From B texts to an array or tensor ``[B, size]``, such as ``LanguageModel.embed``."""
REMEMBERED = 2**16
"""Texts; with more, those that were met longest ago are forgotten."""


def reader(space: spaces.Space, embed: Embed | None) -> ObservationReader:
    """What reads observations of a space: by an embedding of their texts, if there is one."""
    return ObservationReader(space) if embed is None else EmbeddedTexts(space, embed)


class EmbeddedTexts(ObservationReader):
    """Reads texts as what ``embed`` makes of them. Each distinct text is embedded once, by itself, and remembered.

    Attributes:
        size: how many numbers an embedding has.
    """

    def __init__(self, space: spaces.Space, embed: Embed):
        super().__init__(space)
        if not self.text:
            raise InputError(f"embed reads texts, and {space} is none: use observation='bytes', or leave embed out")
        self._embed = embed
        self._remembered = lru_cache(REMEMBERED)(self._embedded)
        self.size = len(self._embedded("text"))

    def numbers(self, observations: np.ndarray) -> np.ndarray:
        """The embeddings, ``float32[B, size]``.

        Raises:
            InputError: ``embed`` gives another shape, or numbers that are not finite.
        """
        return np.stack(list(map(self._remembered, self.texts(observations))))

    def _embedded(self, text: str) -> np.ndarray:
        # by itself: numbers depend a little on what else is in a batch, and a resumed run meets other batches
        rows = torch.as_tensor(self._embed([text])).detach().float().cpu().numpy()
        if rows.ndim != 2 or len(rows) != 1:
            raise InputError(f"embed gave shape {rows.shape} for 1 text: it must be (1, size)")
        if not np.isfinite(rows).all():
            raise InputError(f"embed gave numbers that are not finite for {text!r}")
        return rows[0]
