"""Rewarding impact-driven exploration."""

import numpy as np
from gymnasium import spaces

from astray.agents.counts import EpisodeVisits, Key
from astray.agents.curiosity import Weight
from astray.agents.dynamics import DynamicsFeatures
from astray.agents.embedding import Embed
from astray.agents.transitions import Transitions


class RIDE(DynamicsFeatures):
    """The bonus is how far the step moved the features, divided by how often the episode was there.

    bonus = ||phi(s') - phi(s)||_2 / sqrt(N_ep(s')). The features phi are those of ``ICM``; the paper sums both losses
    with weights of its own, we with ICM's. The episode's count N_ep is exact and knows the episode's start. There is no
    scale: with 64 features bonuses are around 5, and the paper's weights are 0.1 and 0.5.

    Source: Raileanu and Rocktäschel, "RIDE: Rewarding impact-driven exploration for procedurally-generated
    environments", ICLR 2020, section 4.
    """

    episodic = True

    def __init__(
        self,
        weight: Weight = 1.0,
        key: Key | None = None,
        learning_rate: float = 1e-3,
        features: int = 64,
        embed: Embed | None = None,
        seed: int = 0,
    ):
        """Makes the module.

        Args:
            weight: what the bonus is multiplied by.
            key: what of observations the episode counts; see ``LifelongCounts``.
            learning_rate: of Adam.
            features: the number of features, and the width of hidden layers.
            embed: what texts are to the networks; see ``LearnedCuriosity``.
            seed: of initial weights and minibatches.

        Raises:
            InputError: a number is not positive.
        """
        super().__init__(weight, learning_rate, features, embed, seed)
        self.key = key

    def setup(self, observation_space: spaces.Space, action_space: spaces.Space, num_envs: int) -> None:
        """Builds networks for these spaces."""
        super().setup(observation_space, action_space, num_envs)
        self.visited = EpisodeVisits(self.read, self.key)

    def bonus(self, transitions: Transitions) -> np.ndarray:
        """The impact, ``float64[B]``."""
        moved = self.encoded(transitions.next_observations) - self.encoded(transitions.observations)
        return moved.norm(dim=1).double().numpy() / np.sqrt(self.visited.visits(transitions))

    def observe(self, transitions: Transitions) -> None:
        """Counts."""
        self.visited.observe(transitions)
