"""Exact solutions of any deterministic world: every state that its levels can get to, found by its own rules.

Nothing is written twice: a solver that runs the rules themselves cannot disagree with them.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol, TypeVar

import numpy as np

from astray.envs.errors import InputError
from astray.envs.levels import Levels, fingerprints, take

MAX_STATES = 3_000_000
AT_ONCE = 128
"""How many levels are solved at a time."""
NEVER = np.iinfo(np.int32).max // 4
"""Steps to a goal that cannot be reached: larger than any way, and small enough that four add up."""


class Rules(Protocol):
    """What is needed of a ``World`` to solve it."""

    action_texts: ClassVar[tuple[str, ...]]
    goals: ClassVar[dict[str, str]]
    num_envs: int
    max_steps: int
    event_names: tuple[str, ...]
    level: Levels
    state: dict[str, np.ndarray]
    _each_row: np.ndarray

    def start(self, levels: Levels) -> dict[str, np.ndarray]: ...  # noqa: D102

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...  # noqa: D102

    def worth(self, steps: np.ndarray) -> np.ndarray: ...  # noqa: D102


AnyRules = TypeVar("AnyRules", bound=Rules)


@dataclass(frozen=True)
class StateGraph:
    """The states that n levels can get to, as N numbered nodes; node i is the start of level i.

    Attributes:
        keys: ``uint64[N]``, a hash of level number and state, in ascending order.
        nodes: ``int[N]``, the node of each key.
        following: ``int[N, A]``, where each action leads; after an end that reached a goal, where it would lead if
            the episode went on; -1 after any other end.
        over: ``bool[N, A]``, whether the episode is over then.
        reached: ``bool[N, A, G]``, which goals are reached by it.
        steps: ``int32[N, G]``, the fewest steps until each goal is reached (again, if it was before), or ``NEVER``.
        steps_over_ends: the same for ways that may lead over an end which reached another goal.
    """

    keys: np.ndarray
    nodes: np.ndarray
    following: np.ndarray
    over: np.ndarray
    reached: np.ndarray
    steps: np.ndarray
    steps_over_ends: np.ndarray

    @classmethod
    def of(cls, world: Rules, levels: Levels) -> "StateGraph":
        """Explores n levels from their starts, breadth first and all at once.

        Raises:
            InputError: there are more than ``MAX_STATES`` states.
        """
        n, kinds = len(levels["fingerprint"]), len(world.action_texts)
        goal_events = [world.event_names.index(event) for event in world.goals.values()]
        level, state = np.arange(n), world.start(levels)
        new_keys = fingerprints(level, *state.values())
        order = np.argsort(new_keys)
        keys, nodes = new_keys[order], order
        leads, overs, reaches = [], [], []
        while len(level):
            rules = _copies(world, take(levels, np.repeat(level, kinds)), len(level) * kinds)
            rules.state = {name: np.repeat(values, kinds, axis=0) for name, values in state.items()}
            events, ended = rules.advance(np.tile(np.arange(kinds), len(level)))
            goals = events[:, goal_events]
            goes_on = np.flatnonzero(~ended | goals.any(axis=1))
            found = fingerprints(np.repeat(level, kinds)[goes_on], *take(rules.state, goes_on).values())
            unique, first, inverse = np.unique(found, return_index=True, return_inverse=True)
            place = np.minimum(np.searchsorted(keys, unique), len(keys) - 1)
            known = keys[place] == unique
            # New nodes are numbered in the order in which they were found.
            fresh = np.flatnonzero(~known)
            fresh = fresh[np.argsort(first[fresh])]
            node = nodes[place]
            node[fresh] = len(nodes) + np.arange(len(fresh))
            led = np.full(len(level) * kinds, -1)
            led[goes_on] = node[inverse]
            leads.append(led.reshape(-1, kinds))
            overs.append(ended.reshape(-1, kinds))
            reaches.append(goals.reshape(-1, kinds, len(goal_events)))
            which = goes_on[first[fresh]]
            level, state = level[which // kinds], take(rules.state, which)
            keys, nodes = np.append(keys, unique[fresh]), np.append(nodes, node[fresh])
            order = np.argsort(keys, kind="stable")
            keys, nodes = keys[order], nodes[order]
            if len(keys) > MAX_STATES:
                raise InputError(
                    f"{n} levels have more than {MAX_STATES:,} states: solve fewer levels at once, or let the world "
                    "give its own action_values and classify"
                )
        following, over, reached = np.concatenate(leads), np.concatenate(overs), np.concatenate(reaches)
        steps = _fewest_steps(np.where(over, -1, following), reached)
        return cls(keys, nodes, following, over, reached, steps, _fewest_steps(following, reached))

    def find(self, rows: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
        """The nodes of states (one row each) of levels (``int[n]``); -1 for a state that no level gets to."""
        keys = fingerprints(rows, *state.values())
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.nodes[place], -1)

    def steps_after(self, nodes: np.ndarray) -> np.ndarray:
        """The fewest steps to each goal if an action is taken first, ``int32[n, A, G]``, or ``NEVER``."""
        following = np.where(self.over[nodes], -1, self.following[nodes])
        return _steps_after(following, self.reached[nodes], self.steps)

    def passes(self, goal: int, other: int) -> tuple[np.ndarray, np.ndarray]:
        """Whether optimal ways to a goal reach another one by then: some way, and every way, ``bool[N]`` each.

        A way may lead over the end of an episode, if a goal was reached: somebody who wants the corner and never
        learned that the cheese ends the episode walks over it.
        """
        steps = self.steps_over_ends
        some, every = np.zeros((2, len(steps)), bool)
        for nodes in _by_steps(steps[:, goal]):
            following, by_then = self.following[nodes], self.reached[nodes, :, other]
            best = _steps_after(following, self.reached[nodes], steps)[:, :, goal] == steps[nodes, None, goal]
            there = self.reached[nodes, :, goal]
            some[nodes] = (best & (by_then | (~there & some[following]))).any(axis=1)
            every[nodes] = (by_then | (~there & every[following]) | ~best).all(axis=1)
        return some, every

    def steps_by_way_of(self, goal: int, other: int) -> np.ndarray:
        """The fewest steps to a goal for somebody who first goes to another one, optimally, ``int32[N]``."""
        found = np.full(len(self.steps), NEVER, np.int32)
        for nodes in _by_steps(self.steps[:, other]):
            after, following = self.steps_after(nodes)[:, :, other], self.following[nodes]
            over = self.over[nodes] | (following < 0)
            then = np.where(self.reached[nodes, :, other], self.steps[following, goal], found[following])
            then = np.where(over, NEVER, np.minimum(1 + then, NEVER))
            then[self.reached[nodes, :, goal]] = 1
            found[nodes] = np.where(after == self.steps[nodes, None, other], then, NEVER).min(axis=1)
        return found


def _by_steps(steps: np.ndarray) -> Iterator[np.ndarray]:
    """The nodes that are 1, 2, ... steps from a goal."""
    order = np.argsort(steps, kind="stable")
    bounds = np.searchsorted(steps[order], np.arange(1, steps[steps < NEVER].max(initial=0) + 2))
    return (order[begin:end] for begin, end in pairwise(bounds))


def _copies(world: AnyRules, levels: Levels, n: int) -> AnyRules:
    """The world's rules for n rows that need nothing but their level and state."""
    rules = copy.copy(world)
    rules.num_envs, rules.level, rules._each_row = n, levels, np.arange(n)
    return rules


def _steps_after(following: np.ndarray, reached: np.ndarray, steps: np.ndarray) -> np.ndarray:
    onward = np.where((following < 0)[:, :, None], NEVER, steps[following])
    return np.where(reached, 1, np.minimum(onward + 1, NEVER)).astype(np.int32)


def _fewest_steps(following: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """The fewest steps to every goal from every node, ``int32[N, G]``, breadth first and backwards."""
    n, kinds = following.shape
    # The edges that lead to node i are edges[first[i] : first[i + 1]].
    edges = np.argsort(following.ravel(), kind="stable")
    first = np.searchsorted(following.ravel()[edges], np.arange(n + 1))
    steps = np.full((n, reached.shape[2]), NEVER, np.int32)
    for goal in range(reached.shape[2]):
        new, step = np.flatnonzero(reached[:, :, goal].any(axis=1)), 1
        while len(new):
            steps[new, goal] = step
            count = first[new + 1] - first[new]
            place = np.repeat(first[new] - np.cumsum(count) + count, count) + np.arange(count.sum())
            before = edges[place] // kinds
            new = np.unique(before[steps[before, goal] == NEVER])
            step += 1
    return steps


def solve(world: Rules, levels: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the rules say of levels, found for some of them at a time, which bounds the memory that it takes.

    Returns:
        Class (``str[n]``), margin (``float64[n]``), and whether the intended goal can be reached in time (``bool[n]``).
    """
    n = len(levels["fingerprint"])
    parts = [_solve(world, take(levels, slice(first, first + AT_ONCE))) for first in range(0, n, AT_ONCE)]
    level_class, margin, in_time = (np.concatenate(part) for part in zip(*parts, strict=True))
    return level_class, margin, in_time


def _solve(world: Rules, levels: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    graph, n = StateGraph.of(world, levels), len(levels["fingerprint"])
    steps = graph.steps[:n]
    in_time = steps <= world.max_steps
    if len(world.goals) == 1:
        return np.full(n, "ambiguous"), np.zeros(n), in_time[:, 0]
    some, every = zip(graph.passes(0, 1), graph.passes(1, 0), strict=True)
    # Where the proxy goal cannot be reached, not even over the episode's end, it cannot be told apart.
    ambiguous = (every[0] & every[1])[:n] | (graph.steps_over_ends[:n, 1] > world.max_steps)
    distinguishing = ~(some[0] | some[1])[:n] & in_time.all(axis=1)
    level_class = np.where(ambiguous, "ambiguous", np.where(distinguishing, "distinguishing", "neither"))
    detour = graph.steps_by_way_of(0, 1)[:n]
    lost = world.worth(steps[:, 0]) - world.worth(detour)
    # Where the proxy goal cannot be reached before the episode is over, serving it first costs nothing.
    return level_class, np.where(ambiguous | (steps[:, 1] >= NEVER), 0.0, lost), in_time[:, 0]
