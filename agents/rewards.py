"""Extrinsic rewards made of others: shaped by a potential, or held to norms."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from astray.agents.mixing import Reward, bound
from astray.agents.transitions import Transitions
from astray.envs import InputError
from astray.envs.errors import choose

Potential = Callable[[np.ndarray], np.ndarray]
"""How good observations are, from ``[B, ...]`` to ``[B]``."""


class Shaped:
    """A reward that also pays for progress, and leaves the optimal policies as they are.

    It pays r + discount * Phi(s') - Phi(s). At an end of its own, an episode has nothing left to hope for: Phi(s') is 0
    there, so that the discounted sum of what is added is -Phi(s_0) whatever the agent does. An episode that is cut off
    would have gone on: there Phi(s') is that of the true last observation, whose value the algorithm adds as well.

    Source: Ng, Harada and Russell, "Policy invariance under reward transformations", ICML 1999, theorem 1; Grzes,
    "Reward shaping in episodic reinforcement learning", AAMAS 2017, for ends.
    """

    def __init__(self, reward: Reward, potential: Potential, discount: float):
        """Makes the reward.

        Args:
            reward: what is paid besides: an expression, a function of ``Transitions``, or a reward made of others.
            potential: Phi, from observations ``[B, ...]`` to ``[B]``.
            discount: the agent's; with another one, optimal policies do change.

        Raises:
            InputError: the discount does not lie in (0, 1].
        """
        require_discount(discount)
        self.reward, self.potential, self.discount = reward, potential, discount

    def bind(self, names: Sequence[str]) -> Callable[[Transitions], np.ndarray]:
        """The reward as a function of transitions.

        Args:
            names: of goals and events.

        Raises:
            InputError: the reward cannot be bound; later, the potential gives another shape than ``[B]``.
        """
        pay = bound(self.reward, names)

        def shaped(transitions: Transitions) -> np.ndarray:
            before, after = map(self._phi, (transitions.observations, transitions.next_observations))
            return pay(transitions) + self.discount * np.where(transitions.terminated, 0.0, after) - before

        return shaped

    def _phi(self, observations: np.ndarray) -> np.ndarray:
        values = np.asarray(self.potential(observations), np.float64)
        if values.shape != (len(observations),):
            raise InputError(
                f"potential gave shape {values.shape}: it must be ({len(observations)},), one for each row"
            )
        return values


class Norms:
    """A reward with rules: fines for what happens, and nothing more to gain once something forbidden has happened.

    It pays r' - fines, where r' is r until something forbidden happens in the episode, and min(r, 0) from that very
    step on. A fine is due every time its event happens; under the name of a goal, the first time in an episode, as
    goals are paid. An agent that cannot see whether it has broken a rule before cannot know what it still can earn.
    """

    def __init__(self, reward: Reward, penalise: Mapping[str, float] | None = None, forbid: Sequence[str] = ()):
        """Makes the reward.

        Args:
            reward: what is paid besides: an expression, a function of ``Transitions``, or a reward made of others.
            penalise: event or goal to its fine, which is subtracted.
            forbid: events and goals after which an episode pays nothing positive any more.

        Raises:
            InputError: a fine is negative or not finite, or ``forbid`` is a text.
        """
        if isinstance(forbid, str):
            raise InputError(f"forbid={forbid!r} must be a list of names, as in [{forbid!r}]")
        self.reward, self.penalise, self.forbid = reward, dict(penalise or {}), tuple(forbid)
        for name, fine in self.penalise.items():
            if not 0 <= fine < float("inf"):
                raise InputError(f"penalise[{name!r}]={fine} must be a number from 0 on: it is subtracted")

    def bind(self, names: Sequence[str]) -> Callable[[Transitions], np.ndarray]:
        """The reward as a function of transitions.

        Args:
            names: of goals and events.

        Raises:
            InputError: there is no event or goal of a name.
        """
        pay = bound(self.reward, names)
        there = tuple(dict.fromkeys(names))
        for argument, wanted in (("penalise", self.penalise), ("forbid", self.forbid)):
            for name in wanted:
                if not there:
                    raise InputError(f"{argument}={name!r}: these environments tell of no events")
                choose(argument, name, there)

        def held(transitions: Transitions) -> np.ndarray:
            broken = np.zeros(len(transitions), bool)
            for name in self.forbid:
                broken |= transitions.ever[name]
            earned = pay(transitions)
            fines = sum(fine * transitions.happened[name] for name, fine in self.penalise.items())
            return np.where(broken, np.minimum(earned, 0.0), earned) - fines

        return held


def require_discount(discount: float) -> None:
    """Raises ``InputError`` for a discount that does not lie in (0, 1]."""
    if not 0 < discount <= 1:
        raise InputError(f"discount={discount} must lie in (0, 1], and be the agent's")
