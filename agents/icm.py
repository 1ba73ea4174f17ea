"""The intrinsic curiosity module."""

from torch import Tensor

from astray.agents.dynamics import DynamicsFeatures
from astray.agents.networks import ScaledCuriosity
from astray.agents.transitions import Transitions


class ICM(ScaledCuriosity, DynamicsFeatures):
    """The bonus is how badly a forward model predicts the features of the next observation.

    bonus = ||f(phi(s), a) - phi(s')||^2 / 2 / spread, where an inverse model shapes the features phi. The paper
    multiplies by a constant eta, which has to be found for every size of features and grows wrong as features grow;
    here the bonus is divided by the spread of its discounted sums so far, as Burda et al., "Large-scale study of
    curiosity-driven learning", ICLR 2019, section 2.2, do. Weights of 0.01 to 0.1 are a place to begin.

    Source: Pathak et al., "Curiosity-driven exploration by self-supervised prediction", ICML 2017, equation 6.
    """

    def raw(self, transitions: Transitions) -> Tensor:
        """The forward model's error, ``float32[B]``."""
        before, after = self._both(transitions)
        return self.errors(before, after, transitions)
