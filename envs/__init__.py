"""Worlds: batched NumPy dynamics with Gymnasium views."""

import pkgutil
from importlib import import_module

import gymnasium as gym

from astray.envs.errors import InputError, choose
from astray.envs.levels import LevelSet
from astray.envs.loading import world_class
from astray.envs.world import World

__all__ = ["InputError", "LevelSet", "World", "find_world", "register_worlds", "worlds"]


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


def find_world(name: str | type[World]) -> type[World]:
    """The world with this command-line name ("cheese-corner") or id ("astray/CheeseCorner-v0").

    Your own world is found as "path/to/file.py:Class", by the id that you registered it under (with ``WorldEnv`` as the
    entry point), or given as the class.

    Raises:
        InputError: there is none; the sentence shows the nearest name.
    """
    if isinstance(name, type):
        return name
    if name in gym.registry and "world" in gym.registry[name].kwargs:
        return world_class(gym.registry[name].kwargs["world"])
    if ".py:" in name:
        return world_class(name)
    known = worlds()
    ids = tuple(world.id() for world in known.values())
    return known[choose("world", name, ids if name.startswith("astray/") else tuple(known))]


def register_worlds() -> None:
    """Registers every world with Gymnasium, as one environment and as a batch.

    ``astray/World-v0`` is any world: ``gym.make("astray/World-v0", world="path/to/file.py:Class")``. Two more are other
    people's environments as text: ``astray/MissionText-v0`` (MiniGrid, BabyAI) and ``astray/TextWorld-v0``.
    """
    named = {world.id(): {"world": f"{world.__module__}:{world.__name__}"} for world in worlds().values()}
    for name, arguments in (named | {"astray/World-v0": {}}).items():
        gym.register(
            name,
            entry_point="astray.envs.vector:WorldEnv",
            vector_entry_point="astray.envs.vector:WorldVectorEnv",
            kwargs=arguments,
        )
    gym.register("astray/MissionText-v0", entry_point="astray.envs.minigrid:mission_text")
    gym.register("astray/TextWorld-v0", entry_point="astray.envs.textworld:TextWorldEnv")
