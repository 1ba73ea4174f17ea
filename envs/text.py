"""Text as Gymnasium spaces can carry it: named actions, and UTF-8 bytes in a fixed box for Stable-Baselines3."""

from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

PRINTABLE = "".join(map(chr, range(32, 127))) + "\n"


class NamedDiscrete(spaces.Discrete):
    """A ``Discrete`` space whose actions have texts.

    Attributes:
        texts: one text per action, in the order of the action numbers.
    """

    def __init__(self, texts: Sequence[str], seed: int | None = None):
        super().__init__(len(texts), seed=seed)
        self.texts = tuple(texts)

    def __repr__(self) -> str:
        return f"NamedDiscrete({list(self.texts)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NamedDiscrete) and super().__eq__(other) and self.texts == other.texts


class TextBytes(spaces.Box):
    """Text as UTF-8 bytes, padded with zeros to a fixed length: a ``uint8`` box of shape ``(max_length,)``.

    Stable-Baselines3 has no text space. Bytes are independent of any model, small in buffers, and equal texts are
    equal rows.

    Attributes:
        max_length: the number of bytes in a row.
        instruction: what a language model is told once, before every text (the task, in words).
    """

    def __init__(self, max_length: int, instruction: str = "", seed: int | None = None):
        super().__init__(0, 255, (max_length,), np.uint8, seed=seed)
        self.max_length = max_length
        self.instruction = instruction

    def __repr__(self) -> str:
        return f"TextBytes({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextBytes) and super().__eq__(other) and self.instruction == other.instruction


def encode(texts: Sequence[str], max_length: int) -> np.ndarray:
    """Texts as UTF-8 rows padded with zeros, ``uint8[len(texts), max_length]``.

    Raises:
        ValueError: a text needs more than ``max_length`` bytes (text is never cut).
    """
    rows = [text.encode() for text in texts]
    longest = max(map(len, rows), default=0)
    if longest > max_length:
        raise ValueError(f"a text of {longest} bytes does not fit into max_length={max_length} bytes")
    padded = b"".join([row.ljust(max_length, b"\0") for row in rows])
    return np.frombuffer(padded, np.uint8).reshape(len(rows), max_length).copy()


def decode(rows: np.ndarray) -> list[str]:
    """The texts in ``uint8[n, max_length]`` rows."""
    return [row.tobytes().rstrip(b"\0").decode() for row in np.asarray(rows, np.uint8)]
