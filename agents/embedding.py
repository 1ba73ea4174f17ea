"""Texts as numbers of a language model, for modules that would else read words."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from astray.agents.reading import ObservationReader
from astray.envs import InputError

Embed = Callable[[list[str]], Any]
"""From B texts to an array or tensor ``[B, size]``, such as ``LanguageModel.embed``."""
REMEMBERED = 2**16
"""Texts; with more, all are forgotten and embedded anew."""


def reader(space: spaces.Space, embed: Embed | None) -> ObservationReader:
    """What reads observations of a space: by an embedding of their texts, if there is one."""
    return ObservationReader(space) if embed is None else EmbeddedTexts(space, embed)


class EmbeddedTexts(ObservationReader):
    """Reads texts as what ``embed`` makes of them. Each distinct text is embedded once, and remembered.

    Attributes:
        size: how many numbers an embedding has.
    """

    def __init__(self, space: spaces.Space, embed: Embed):
        super().__init__(space)
        if not self.text:
            raise InputError(f"embed reads texts, and {space} is none: use observation='bytes', or leave embed out")
        self._embed = embed
        self._rows: dict[str, np.ndarray] = {}
        self.size = self._embedded(["text"]).shape[1]

    def numbers(self, observations: np.ndarray) -> np.ndarray:
        """The embeddings, ``float32[B, size]``.

        Raises:
            InputError: ``embed`` gives another shape, or numbers that are not finite.
        """
        texts = self.texts(observations)
        if len(self._rows) > REMEMBERED:
            self._rows.clear()
        if missing := [text for text in dict.fromkeys(texts) if text not in self._rows]:
            self._rows.update(zip(missing, self._embedded(missing), strict=True))
        return np.stack([self._rows[text] for text in texts])

    def _embedded(self, texts: list[str]) -> np.ndarray:
        rows = torch.as_tensor(self._embed(texts)).detach().float().cpu().numpy()
        if rows.ndim != 2 or len(rows) != len(texts):
            raise InputError(f"embed gave shape {rows.shape} for {len(texts)} texts: it must be ({len(texts)}, size)")
        if not np.isfinite(rows).all():
            text = texts[int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])]
            raise InputError(f"embed gave numbers that are not finite for {text!r}")
        return rows
