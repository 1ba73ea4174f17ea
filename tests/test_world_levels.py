"""The contract of levels, goals and solvers, over every registered world."""

import pytest

from astray.envs import worlds
from astray.experiments.contract import EPISODE_CHECKS, subjects
from astray.experiments.contract_levels import CHECKS

SUBJECTS = [subject for world in worlds().values() for subject in subjects(world)]


def name_of(value):
    return getattr(value, "__name__", None) or f"{value.kind.__name__}{dict(value.arguments) or ''}"


@pytest.mark.parametrize("subject", SUBJECTS, ids=name_of)
@pytest.mark.parametrize("check", CHECKS[len(EPISODE_CHECKS) :], ids=name_of)
def test_contract(subject, check):
    check(subject)
