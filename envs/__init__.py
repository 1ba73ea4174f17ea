"""Worlds: batched NumPy dynamics with Gymnasium views."""

import pkgutil
from importlib import import_module

import gymnasium as gym

from astray.envs.levels import LevelSet
from astray.envs.world import World, choose

__all__ = ["LevelSet", "World", "find_world", "register_worlds", "worlds"]


def worlds() -> dict[str, type[World]]:
    """Every world of this package by its name on the command line: each file in this folder may define one."""
    found: dict[str, type[World]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{info.name}")
        for value in vars(module).values():
            declared_here = isinstance(value, type) and issubclass(value, World) and value.__module__ == module.__name__
            if declared_here and "goals" in vars(value):  # GridWorld and the like declare no goals
                found[value.slug()] = value
    return found


def find_world(name: str) -> type[World]:
    """The world with this command-line name ("cheese-corner") or id ("astray/CheeseCorner-v0").

    Raises:
        ValueError: there is none; the sentence shows the nearest name.
    """
    known = worlds()
    by_id = {world.id(): world for world in known.values()}
    return (known | by_id)[choose("world", name, (*by_id, *known) if name.startswith("astray/") else tuple(known))]


def register_worlds() -> None:
    """Registers every world with Gymnasium, as one environment and as a batch."""
    for world in worlds().values():
        gym.register(
            world.id(),
            entry_point="astray.envs.vector:WorldEnv",
            vector_entry_point="astray.envs.vector:WorldVectorEnv",
            kwargs={"world": f"{world.__module__}:{world.__name__}"},
        )
