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


class TextChoices(spaces.Dict):
    """A text and the actions that are possible now, whose texts and number may change with every step.

    The action space beside it is ``Discrete(max_actions)``: action number i means the i-th text.

    Keys:
        text: a ``TextBytes``.
        actions: the texts of the actions as UTF-8 bytes, each padded with zeros, one after another,
            ``uint8[max_actions * max_action_length]``.
        mask: 1 where there is an action and it is possible, ``uint8[max_actions]``.

    Attributes:
        max_actions: the largest number of actions.
        max_action_length: the number of bytes for the text of an action.
    """

    KEYS = ("text", "actions", "mask")

    def __init__(
        self, max_length: int, max_actions: int, max_action_length: int, instruction: str = "", seed: int | None = None
    ):
        super().__init__(
            {
                "text": TextBytes(max_length, instruction),
                "actions": spaces.Box(0, 255, (max_actions * max_action_length,), np.uint8),
                "mask": spaces.Box(0, 1, (max_actions,), np.uint8),
            },
            seed=seed,
        )
        self.max_length, self.max_actions, self.max_action_length = max_length, max_actions, max_action_length
        self.instruction = instruction

    def encode(
        self, text: str, actions: Sequence[str], possible: Sequence[bool] | None = None
    ) -> dict[str, np.ndarray]:
        """One observation.

        Args:
            text: what is told.
            actions: the texts of the actions, in the order of their numbers.
            possible: which of them are possible now; by default, all.

        Raises:
            ValueError: a text is too long, there are more than ``max_actions`` actions, or none is possible.
        """
        count = len(actions)
        if count > self.max_actions:
            raise ValueError(f"{count} actions do not fit into max_actions={self.max_actions}")
        mask = np.zeros(self.max_actions, np.uint8)
        mask[:count] = 1 if possible is None else possible
        if not mask.any():
            raise ValueError(f"at least one action must be possible, of {list(actions)} none is")
        rows = np.zeros((self.max_actions, self.max_action_length), np.uint8)
        rows[:count] = encode(actions, self.max_action_length, "max_action_length")
        return {"text": encode([text], self.max_length)[0], "actions": rows.ravel(), "mask": mask}

    def decode(self, row: np.ndarray) -> tuple[str, dict[int, str]]:
        """The text, and the possible actions' texts by number, of an observation's parts in the order of ``KEYS``.

        Args:
            row: ``uint8[max_length + max_actions * max_action_length + max_actions]``.
        """
        text, actions, mask = np.split(row, [self.max_length, len(row) - self.max_actions])
        texts = decode(actions.reshape(self.max_actions, self.max_action_length))
        return decode(text[None])[0], {int(number): texts[number] for number in np.flatnonzero(mask)}


def encode(texts: Sequence[str], max_length: int, name: str = "max_length") -> np.ndarray:
    """Texts as UTF-8 rows padded with zeros, ``uint8[len(texts), max_length]``.

    Raises:
        ValueError: a text needs more than ``max_length`` bytes (text is never cut).
    """
    rows = [text.encode() for text in texts]
    longest = max(map(len, rows), default=0)
    if longest > max_length:
        raise ValueError(f"a text of {longest} bytes does not fit into {name}={max_length} bytes")
    padded = b"".join([row.ljust(max_length, b"\0") for row in rows])
    return np.frombuffer(padded, np.uint8).reshape(len(rows), max_length).copy()


def decode(rows: np.ndarray) -> list[str]:
    """The texts in ``uint8[n, max_length]`` rows."""
    return [row.tobytes().rstrip(b"\0").decode() for row in np.asarray(rows, np.uint8)]
