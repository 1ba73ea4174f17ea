"""Levels as text: printed with what the rules say of them, edited, and read back."""

import inspect
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astray.envs import InputError, LevelSet, World
from astray.envs.errors import choose
from astray.envs.levels import join

COMMENT = re.compile(r"# [A-Za-z]")
"""How a comment begins: a wall (``#``) is never followed by a blank."""


def arguments_of(kind: type[World], assignments: Sequence[str]) -> dict[str, Any]:
    """A world's arguments from ``name=value`` texts; a value is JSON, or else the text as it stands.

    Raises:
        InputError: no assignment, or an argument that the world does not take.
    """
    allowed: dict[str, None] = {}
    for base in kind.__mro__:
        if "__init__" in vars(base) and issubclass(base, World):
            allowed |= dict.fromkeys(inspect.signature(vars(base)["__init__"]).parameters)
    names = tuple(name for name in allowed if name not in ("self", "num_envs", "arguments"))
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"set={assignment!r} must be name=value, as in max_steps=30")
        try:
            found[choose("set", name.strip(), names)] = json.loads(text)
        except json.JSONDecodeError:
            found[name.strip()] = text
    return found


def make_world(kind: type[World], num_envs: int, **arguments: Any) -> World:
    """A world from arguments that a person gave.

    Raises:
        InputError: one of them has the wrong value or type.
    """
    try:
        return kind(num_envs, **arguments)
    except TypeError as error:
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise InputError(f"{kind.slug()} cannot be made with {given} ({error})") from None


def check_seed(seed: int) -> None:
    """Refuses a seed that is negative.

    Raises:
        InputError: it is.
    """
    if seed < 0:
        raise InputError(f"seed={seed} must not be negative")


def shifted(kind: type[World], shift: float | None, level_class: str | None) -> dict[str, Any]:
    """The arguments that decide about the shift; None is 0, or for distinguishing levels what tells the goals apart."""
    if shift is not None:
        return {"shift": shift}
    return dict(kind.decorrelated) if level_class == "distinguishing" else {"shift": 0.0}


def draw_levels(
    kind: type[World], count: int, seed: int, level_class: str | None, arguments: dict[str, Any]
) -> LevelSet:
    """The first levels of a seed, as its episodes have them; or the first different ones of a class.

    Args:
        kind: the world.
        count: how many.
        seed: of the levels, not negative.
        level_class: one of ``LEVEL_CLASSES``, or any.
        arguments: the world's.

    Raises:
        InputError: an argument is not allowed, or there are too few such levels.
    """
    if count < 1:
        raise InputError(f"count={count} must be at least 1")
    check_seed(seed)
    world = make_world(kind, 1, **arguments)
    if level_class is not None:
        return world.certified_levels(level_class, count, seed)
    return world.certify(world.draw_levels(np.full(count, seed, np.uint64), np.arange(count)))


def read_levels(kind: type[World], source: str, arguments: dict[str, Any]) -> LevelSet:
    """The levels of a file: texts with a blank line between, and lines that begin with ``# `` and a letter left out.

    Args:
        kind: the world.
        source: the file's path, or "-" for standard input.
        arguments: the world's.

    Raises:
        InputError: the file is not there or no text, holds no level, or one that is none of this world; the sentence
            names the file's line, and the column where there is one.
    """
    world = make_world(kind, 1, **arguments)
    name = "standard input" if source == "-" else source
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{name} cannot be read ({error.strerror}): give a file of levels") from None
    except UnicodeDecodeError:
        raise InputError(f"{name} is no text in UTF-8: give a file of levels, as `astray levels` prints them") from None
    read = [_read_level(world, name, block) for block in _blocks(text)]
    if not read:
        raise InputError(f"{name} holds no level")
    return world.certify(join(read))


def _blocks(text: str) -> list[list[tuple[int, str]]]:
    """The levels in a text: the numbers and texts of their lines, without comments."""
    blocks: list[list[tuple[int, str]]] = [[]]
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            blocks.append([])
        elif not COMMENT.match(line):
            blocks[-1].append((number, line))
    return [block for block in blocks if block]


def _read_level(world: World, source: str, block: list[tuple[int, str]]) -> dict[str, np.ndarray]:
    # A map comes first and what belongs to it below, so that the parser counts lines as they are counted here.
    block = sorted(block, key=lambda line: ":" in line[1])
    numbers = [number for number, _ in block]
    try:
        return world.parse_level("\n".join(line for _, line in block))
    except (ValueError, IndexError, OverflowError) as error:
        if not isinstance(error, InputError):  # numbers that are none of this world's lead anywhere
            raise InputError(f"{source}: line {min(numbers)}: no level of {world.slug()} ({error})") from None
        sentence = str(error).removeprefix("level: ")
        found = re.match(r"line (\d+)", sentence)
        if not found:
            raise InputError(f"{source}: line {min(numbers)}: {sentence}") from None
        line = numbers[min(int(found[1]), len(numbers)) - 1]
        raise InputError(f"{source}: line {line}{sentence[found.end() :]}") from None


def as_text(kind: type[World], levels: LevelSet, arguments: dict[str, Any]) -> str:
    """Levels as ``read_levels`` reads them, each below its class, its margin and the steps that its goals take."""
    world = kind(len(levels), **arguments)
    world.set_levels(levels.levels)
    best = world.action_values().max(axis=2)
    # A goal that is d steps away is worth discount ** (d - 1), and nothing if there is no way.
    with np.errstate(divide="ignore"):
        steps = 1 + np.log(best) / np.log(world.discount)
    blocks = []
    for number, text in enumerate(levels.text):
        ways = [
            f"{goal} {f'{far:.0f}' if np.isfinite(far) else 'never'}"
            for goal, far in zip(world.goals, steps[number], strict=True)
        ]
        head = f"# Level {number + 1}: {levels.level_class[number]}, margin {levels.margin[number]:.3g}"
        blocks.append(f"{head}\n# Steps: {', '.join(ways)}\n{text}\n")
    return "\n".join(blocks)
