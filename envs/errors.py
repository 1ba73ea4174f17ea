"""Errors for people: one sentence that names the argument, its value and what is allowed."""

import difflib
from collections.abc import Sequence
from typing import Any


class InputError(ValueError):
    """An argument that is not allowed; the sentence names it, its value and what is allowed."""


def choose(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """The value, if it is allowed.

    Raises:
        InputError: it is not; the sentence names the argument, the value, what is allowed and what is near.
    """
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), [str(a) for a in allowed], 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}{hint}")
