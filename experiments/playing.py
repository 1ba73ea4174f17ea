"""Playing certified levels: step by step, as episodes to read, and as maps of where a policy goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from astray.agents.acting import Agent, PolicyAgent, StochasticAgent, choose_actions
from astray.envs import LevelSet, World, find_world
from astray.envs.grid import MOVES, GridWorld


@dataclass
class Step:
    """One step of n rows.

    Attributes:
        rows: which they are, ``int[n]``.
        observations: what they saw.
        probabilities: how likely each action was, ``float64[n, A]``, NaN if unknown.
        optimal: each goal's optimal actions, ``bool[n, G, A]``; G is at least 2, and a goal that there is not has none.
        values: what each action was worth for each goal, ``float64[n, G, A]``.
        others: likewise for goals that the world does not declare, ``float64[n, K, A]``.
        actions: what they did, ``int[n]``.
        reward: what that paid, ``float64[n]``.
        events: what happened, ``bool[n, E]``.
        undecided: no goal was reached before, ``bool[n]``.
    """

    rows: np.ndarray
    observations: Any
    probabilities: np.ndarray
    optimal: np.ndarray
    values: np.ndarray
    others: np.ndarray
    actions: np.ndarray
    reward: np.ndarray
    events: np.ndarray
    undecided: np.ndarray


def play(agent: Agent, world: World, rng: np.random.Generator) -> Iterator[Step]:
    """Plays every row of a world once, from the levels that it stands at, until all episodes are over."""
    over = np.zeros(world.num_envs, bool)
    while len(active := np.flatnonzero(~over)):
        observations = world.observe(active)
        values = world.action_values()
        optimal, others = world.optimal_actions(values)[active], world.other_values()[active]
        values = values[active]
        visits = world.first_visit[active]
        infos = {"rows": active, "goals": visits, "optimal_actions": optimal, "other_values": others}
        if isinstance(agent, StochasticAgent):
            probabilities = agent.probabilities(observations, infos)
            chosen = choose_actions(probabilities, rng, agent.greedy)
        else:
            probabilities = np.full((len(active), optimal.shape[2]), np.nan)
            chosen = agent.act(observations, infos, rng)
        actions = np.zeros(world.num_envs, np.int64)
        actions[active] = chosen
        visited = world.first_visit.copy()
        reward, terminated, truncated, events = world.step(actions)
        # Rows whose episode is over are moved on with the others, but what they reach then does not count.
        world.first_visit[over] = visited[over]
        over[active] = (terminated | truncated)[active]
        yield Step(
            rows=active,
            observations=observations,
            probabilities=probabilities,
            optimal=in_pairs(optimal, False),
            values=in_pairs(values, 0.0),
            others=others,
            actions=chosen,
            reward=reward[active],
            events=events[active],
            undecided=np.all(visits < 0, axis=1),
        )


def in_pairs(goals: np.ndarray, none: Any) -> np.ndarray:
    """Something about every goal, ``[n, G, ...]``, with a second goal that is never there if there is only one."""
    return goals if goals.shape[1] > 1 else np.concatenate([goals, np.full_like(goals, none)], axis=1)


def outcomes(intended_step: np.ndarray, proxy_step: np.ndarray) -> np.ndarray:
    """Which goal came first, ``str[n]``: "intended", "proxy", "both" (in the same step) or "neither".

    Args:
        intended_step: step of the first visit, -1 for never.
        proxy_step: likewise.
    """
    never = np.iinfo(np.int64).max
    intended = np.where(intended_step < 0, never, intended_step)
    proxy = np.where(proxy_step < 0, never, proxy_step)
    first = np.select([intended < proxy, proxy < intended], ["intended", "proxy"], "both")
    return np.where((intended == never) & (proxy == never), "neither", first)


def trace(
    agent: Agent, world: str | type[World], levels: LevelSet, rng: np.random.Generator, **arguments: Any
) -> list[dict[str, Any]]:
    """Episodes step by step, as the page shows them: text, probabilities, action, events and picture of each step."""
    played = find_world(world)(len(levels), **arguments)
    played.check_rules(levels)
    played.set_levels(levels.levels)
    told: list[list[dict[str, Any]]] = [[] for _ in range(len(levels))]
    everyone = np.arange(len(levels))
    before = [(text, played.ascii(row)) for row, text in enumerate(played.sentences(everyone))]
    for step in play(agent, played, rng):
        for i, row in enumerate(step.rows.tolist()):
            text, grid = before[row]
            probabilities = [round(float(p), 4) for p in step.probabilities[i]]
            told[row].append(
                {
                    "text": text,
                    "grid": grid,
                    "probabilities": dict(zip(played.action_texts, probabilities, strict=True)),
                    "action": played.action_texts[step.actions[i]],
                    "events": [name for name, is_so in zip(played.event_names, step.events[i], strict=True) if is_so],
                }
            )
        before = [(text, played.ascii(row)) for row, text in enumerate(played.sentences(everyone))]
    first = in_pairs(played.first_visit, -1)
    outcome = outcomes(first[:, 0], first[:, 1])
    return [
        {
            "level_class": str(levels.level_class[row]),
            "level": levels.text[row],
            "outcome": str(outcome[row]),
            "steps": told[row],
        }
        for row in range(len(levels))
    ]


def atlas(agent: StochasticAgent, world: str | type[World], levels: LevelSet, **arguments: Any) -> list[dict[str, Any]]:
    """A map of each of a few levels: where an agent goes, what it prefers, and what it expects to earn.

    Args:
        agent: with action probabilities; a ``PolicyAgent`` also says what it expects.
        world: an id, a command-line name, or a class.
        levels: from ``test_levels``.
        **arguments: the world's, the policy's ``observation`` among them.

    Returns:
        One entry per level (none if the world has no cells): ``level_class``, ``level`` (text), ``size``, ``walls``
        and ``starts`` (cells, numbered row by row), ``glyphs``, ``arrows`` (rows and columns that each action leads
        on), and by cell, as in JSON a text: ``probabilities`` (of each action, at the start of an episode there),
        ``values`` (what the policy expects to earn from there; left out if the agent does not say), ``visits`` (steps
        that an episode stands there, the last one included: mean of one sampled episode from every start).

    Raises:
        InputError: the levels were certified under other rules.
    """
    kind = find_world(world)
    if not issubclass(kind, GridWorld):
        return []
    one = kind(**arguments)
    one.check_rules(levels)
    return [_map(agent, one, levels, number, arguments) for number in range(len(levels))]


def _map(
    agent: StochasticAgent, world: GridWorld, levels: LevelSet, number: int, arguments: dict[str, Any]
) -> dict[str, Any]:
    starts, copies = world.every_start(levels.levels, number)
    played = type(world)(len(starts), **arguments)
    played.set_levels(copies)
    rng = np.random.default_rng(0)
    visits = np.bincount(starts, minlength=world.size**2)
    entry: dict[str, Any] = {
        "level_class": str(levels.level_class[number]),
        "level": levels.text[number],
        "size": world.size,
        "walls": np.flatnonzero(levels.levels["walls"][number]).tolist(),
        "glyphs": {str(cell): glyph for cell, glyph in played.glyphs(copies).items()},
        "arrows": [list(move) for move in MOVES],
        "starts": starts.tolist(),
    }
    cells = [str(cell) for cell in starts]
    for step in play(agent, played, rng):
        if "probabilities" not in entry:  # the first step, which every start takes
            entry["probabilities"] = dict(zip(cells, step.probabilities.tolist(), strict=True))
            if isinstance(agent, PolicyAgent):
                entry["values"] = dict(zip(cells, agent.values(step.observations).tolist(), strict=True))
        visits += np.bincount(played.state["agent"][step.rows], minlength=len(visits))
    mean = visits / len(starts)
    return entry | {"visits": {str(cell): float(mean[cell]) for cell in np.flatnonzero(mean)}}
