"""Studies: train, test on certified levels, and show what was learned."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from astray.experiments.curves import plot_curve
    from astray.experiments.evaluation import MisgeneralizationCallback, evaluate, test_levels
    from astray.experiments.study import Arm, Study

__all__ = ["Arm", "MisgeneralizationCallback", "Study", "evaluate", "plot_curve", "test_levels"]

_HOMES = {"plot_curve": "curves", "Arm": "study", "Study": "study"}


def __getattr__(name: str) -> Any:
    """Imports what is asked for: the command line should not wait for torch and Matplotlib to list the worlds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'evaluation')}"), name)
