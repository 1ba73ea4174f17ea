"""Curiosity that leaves the optimal policies as they are: what it pays, it takes back."""

import numpy as np
from gymnasium import spaces

from astray.agents.controls import CuriosityWrapper
from astray.agents.curiosity import Annealed, Curiosity
from astray.agents.rewards import require_discount
from astray.agents.transitions import Transitions
from astray.envs import InputError


class PolicyInvariant(CuriosityWrapper):
    """Another module's bonus, all of which is taken back when the episode ends.

    At step t it pays F_t; at an episode's last step T it pays F_T - sum over t <= T of discount^(t - T) F_t instead. So
    the discounted sum of bonuses is exactly 0 in every episode, whatever was done, and no policy is better or worse for
    them; they can only change how fast it is found. This is generalised reward matching, where every bonus is matched
    by a later step of its episode.

    What has to be taken back grows by 1 / discount with every step: 23 thousand times the first bonus after 1000 steps
    at 0.99. Where episodes are long, ``every`` takes back after so many steps at the latest, so that it grows
    no further than discount^-every; sums over an episode are 0 all the same.

    An episode that is cut off is taken back too, or an agent in a world with a time limit would keep every bonus.
    What was paid then sums to 0 as well, but the algorithm adds its value of the last observation, in which what it
    learned of bonuses remains: optimal policies are sure to be those of the world for episodes that end of their own.
    The same holds where the reward is clipped.

    Source: Forbes et al., "Potential-based intrinsic motivation: Preserving optimality with complex, non-Markovian
    shaping rewards", 2024, section on generalised reward matching; without ``every`` it is their PBIM.
    """

    def __init__(
        self, module: Curiosity, discount: float, every: int | None = None, weight: float | None = None, seed: int = 0
    ):
        """Makes the module.

        Args:
            module: whose bonus is paid and taken back; it belongs to no environments yet.
            discount: the agent's.
            every: after how many steps bonuses are taken back at the latest; by default at the episode's end only.
            weight: what the bonus is multiplied by; by default the other module's weight, which else has no effect.
            seed: unused; all chance is in the other module.

        Raises:
            InputError: the discount does not lie in (0, 1], ``every`` is below 2, or the weight is annealed.
        """
        super().__init__(module, weight, seed)
        require_discount(discount)
        if every is not None and every < 2:
            raise InputError(f"every={every} must be at least 2: a bonus taken back at once is none")
        if isinstance(self.weight, Annealed):
            raise InputError("weight must be a number: with one that is annealed, less would be taken back than paid")
        self.discount, self.every = discount, every

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Prepares both."""
        super().setup(observation_space, action_space, num_envs)
        self.paid = np.zeros(num_envs)  # in each environment's episode and not taken back yet, worth it as of its step

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The bonus, or what is taken back, ``float64[B]``."""
        return np.where(self._closing(transitions), -self._owed(transitions), self.module.bonus(transitions))

    def observe(self, transitions: Transitions) -> None:
        """Remembers what was paid, and shows the other module what happened."""
        owed = self._owed(transitions) + self.module.bonus(transitions)
        self.paid[transitions.environments] = np.where(self._closing(transitions), 0.0, owed)
        super().observe(transitions)

    def _owed(self, transitions: Transitions) -> np.ndarray:
        """What was paid before and is to be taken back, as it counts now."""
        return np.where(transitions.steps == 0, 0.0, self.paid[transitions.environments] / self.discount)

    def _closing(self, transitions: Transitions) -> np.ndarray:
        """Where everything is taken back."""
        late = False if self.every is None else (transitions.steps + 1) % self.every == 0
        return transitions.done | late
