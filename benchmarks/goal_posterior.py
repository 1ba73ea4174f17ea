"""How often the goal posterior names what a scripted agent is after: ``python benchmarks/goal_posterior.py``.

Agents whose goal is known play distinguishing levels of several sizes and layouts, one sampled episode each. A cell
of the first table is the share of episodes where a candidate that describes the agent has the largest posterior
probability (equal prior), among the episodes with three or more conflicts: states, before any goal was reached, where
the optimal actions for the two goals are disjoint. The second is the same for groups of 20 such episodes, each taken
together as those of one training seed are. Uniform actions are described by "none of these" and, being the same in
every state, by "direction habit".

One episode does not always tell. Whoever walks straight to a wall, and against it until time is up, may do so by habit
or have a goal there; a place needs fewer assumptions, so "none of these" is named. Twenty episodes settle it.

The prior, the temperatures and the lapse were chosen on reasoning, before any of this was measured, and looked at on
500 levels of ``--seed 1`` per room. The levels of the default seed are others, but for the small open rooms, which
have few: 37 % of them at size 5, 8 % at size 7 and 2 % at size 9 are also of seed 1.
"""

import argparse

import numpy as np
import pandas as pd

from astray.agents.acting import Agent, ExpertAgent, MarginalAgent, WandererAgent
from astray.experiments import evaluate, test_levels
from astray.experiments.posterior import CANDIDATES, agent_score, arm_posterior, goal_posterior

ROOMS = [(size, layout) for layout in ("open", "walls", "maze") for size in (5, 7, 9)]
INTENDED, PROXY, HABIT, NONE = CANDIDATES


def agents(count: int, seed: int) -> dict[str, tuple[Agent, list[str]]]:
    """Agents, and which candidates describe them."""
    draws = np.random.default_rng(seed).random(count)
    return {
        "expert: cheese": (ExpertAgent(0), [INTENDED]),
        "expert: corner": (ExpertAgent(1), [PROXY]),
        "expert: cheese, a fifth random": (ExpertAgent(0, noise=0.2), [INTENDED]),
        "expert: corner, a fifth random": (ExpertAgent(1, noise=0.2), [PROXY]),
        "an undeclared goal": (WandererAgent(draws), [NONE]),
        "habit: north": (MarginalAgent(np.array([1, 0, 0, 0])), [HABIT]),
        "habit: north or east": (MarginalAgent(np.array([1, 0, 0, 1])), [HABIT]),
        "habit: 7 in 10 south": (MarginalAgent(np.array([1, 7, 1, 1])), [HABIT]),
        "uniform": (MarginalAgent(np.ones(4)), [HABIT, NONE]),
    }


def measure(rows: pd.DataFrame, right: list[str]) -> dict[str, float]:
    """Shares of episodes, and of groups of 20 episodes, where a right candidate is the most probable."""
    rows = rows[rows["conflicts"] >= 3].reset_index(drop=True)
    named = goal_posterior(rows).idxmax(axis=1).isin(right)
    groups = rows.assign(seed=np.arange(len(rows)) // 20)[: len(rows) // 20 * 20]
    together = arm_posterior(groups, [])[list(CANDIDATES)].idxmax(axis=1).isin(right)
    score = agent_score(rows)["score"]
    return {"episodes": len(rows), "named": named.mean(), "together": together.mean(), "score": score.mean()}


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2, help="of the levels and of all chance")
    parser.add_argument("--levels", type=int, default=1000, help="per room")
    chosen = parser.parse_args()
    told: dict[str, dict[str, dict[str, float]]] = {}
    for size, layout in ROOMS:
        arguments = {"size": size, "layout": layout}
        levels = test_levels("cheese-corner", 0, chosen.levels, seed=chosen.seed, **arguments)
        for name, (agent, right) in agents(chosen.levels, chosen.seed).items():
            rows = evaluate(agent, "cheese-corner", levels, seed=chosen.seed, **arguments)
            told.setdefault(name, {})[f"{layout} {size}"] = measure(rows, right)
    rooms = [f"{layout} {size}" for size, layout in ROOMS]
    for title, key, form in (
        ("Named by one episode", "named", "{:.1%}"),
        ("Named by 20 episodes", "together", "{:.1%}"),
        ("Mean agent score (nats)", "score", "{:.1f}"),
        ("Episodes", "episodes", "{:.0f}"),
    ):
        print(f"\n| {title} | {' | '.join(rooms)} |\n|---|{'--:|' * len(rooms)}")
        for name, by_room in told.items():
            print(f"| {name} | {' | '.join(form.format(by_room[room][key]) for room in rooms)} |")


if __name__ == "__main__":
    main()
