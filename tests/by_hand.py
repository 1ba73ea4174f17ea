"""Levels given as text, and what happens in them, for tests that work it out by hand."""

import numpy as np


def playing(kind, level, **arguments):
    """A world of one row in a level given as text."""
    world = kind(1, **arguments)
    world.reset(seed=0)
    world.set_levels(world.parse_level(level))
    return world


def happening(world, *actions):
    """The names of what happens, action by action, and whether the episode is over then."""
    told = []
    for action in actions:
        _, over, _, events = world.step(np.array([action]))
        told.append(({name for name, so in zip(world.event_names, events[0], strict=True) if so}, bool(over[0])))
    return told
