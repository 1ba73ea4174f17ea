"""Does curiosity change which goal is learned?

The reward is the world's own, and every agent is tested without bonus on the same certified levels. Arms: no bonus;
exact counts; RND; ICM; a random bonus with the mean and spread of RND's, which tells novelty from mere noise; and a
bonus for the entropy of actions, with the weight at which it led to about as many different observations as RND did,
which tells novelty from mere activity. Each with a constant weight, and with one that falls to 0 over three quarters of
the training. ``met_contradictions`` in the rows counts what could mediate an effect: goals that were reached one
without the other.

Weights were fixed on other seeds than these. ``astray run curiosity-goals`` is about CheeseCorner, ``astray run
curiosity-goals-keys`` about KeysAndChests.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from astray.agents import ICM, RND, ActionEntropy, Annealed, Curiosity, LifelongCounts, MatchedNoise
from astray.experiments.cheese_corner import MLP
from astray.experiments.study import Arm, Study


def noise(weight: float | Annealed, seed: int) -> Curiosity:
    """A random bonus with the mean and spread of RND's."""
    return MatchedNoise(RND(seed=seed), weight=weight, seed=seed)


BONUSES: dict[str, tuple[Callable[..., Curiosity], float]] = {
    "counts": (LifelongCounts, 0.05),
    "RND": (RND, 0.1),
    "ICM": (ICM, 0.1),
    "matched noise": (noise, 0.1),
    "matched entropy": (ActionEntropy, 0.005),
}


def arms(plain: Arm) -> tuple[Arm, ...]:
    """An arm without bonus, and with each bonus at both kinds of weight."""
    last = plain.steps * 3 // 4
    return plain, *(
        replace(plain, name=f"{name}{kind}", intrinsic={"bonus": partial(make, weight=weight)})
        for name, (make, constant) in BONUSES.items()
        for kind, weight in (("", constant), (" annealed", Annealed(constant, 0.0, last)))
    )


PLAIN = replace(MLP, name="no bonus", test_every=53_248, train_shifts=(0.0, 0.03, 0.1, 0.3), seeds=5)
STUDY = Study(name="curiosity-goals", world="cheese-corner", arms=arms(PLAIN))
