"""What of a study is run: arms, seeds, shifts and fields; and what the main study is."""

from dataclasses import replace

import numpy as np
import pytest
from test_study import TINY

from astray.experiments.cheese_corner import QUICK, STUDY
from astray.experiments.selection import Selection


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"policies": ("mpl",)}, "did you mean 'mlp'"),
        ({"arms": ("smollm2",)}, "did you mean 'smollm2-"),
        ({"seeds": 0}, "seeds=0"),
        ({"train_shifts": (0.0, 1.5)}, r"1\.5"),
        ({"policies": ()}, "at least one"),
        ({"arms": ()}, "at least one"),
        ({"train_shifts": ()}, "at least one"),
        ({"set": ("settings=3",)}, "settings=3 is not allowed"),
        ({"set": ("test_every=1000",)}, "test_every=1000 is no multiple"),
    ],
)
def test_bad_selections_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Selection(**arguments).of(STUDY)


def test_fields_are_set_with_the_types_that_they_have():
    chosen = Selection(
        arms=("mlp",),
        seeds=2,
        # two that only fit together, the study's own, one within another, and a list
        set=("steps=8192", "test_every=4096", "timing_ambiguous=4", "settings.learning_rate=3e-4", "arguments.size=7"),
    ).of(STUDY)
    (arm,) = chosen.arms
    assert (arm.steps, arm.test_every, arm.seeds, chosen.timing_ambiguous) == (8192, 4096, 2, 4)
    assert arm.settings == STUDY.arms[0].settings | {"learning_rate": 3e-4}
    assert chosen.arguments == {"size": 7} and STUDY.arguments == {}
    assert Selection(set=("train_shifts=[0, 0.5]",)).of(STUDY).arms[0].train_shifts == (0.0, 0.5)
    assert [arm.name for arm in Selection(arms=("smollm2 neutral", "mlp")).of(STUDY).arms] == ["mlp", "smollm2 neutral"]


def test_what_would_silently_not_be_tested_is_an_error():
    with pytest.raises(ValueError, match="test_every=500"):
        replace(TINY.arms[0], test_every=500)
    with pytest.raises(ValueError, match="timing_distinguishing=17"):
        replace(TINY, timing_distinguishing=17)


def test_the_main_study_is_what_it_says():
    assert len(STUDY.cells()) == 25 + 9 and len(QUICK.cells()) == 25 + 2
    assert [arm.name for arm in QUICK.arms] == ["mlp", "smollm2 compass", "smollm2 neutral"]
    for arm in STUDY.arms:
        rollout = arm.num_envs * arm.settings["n_steps"]
        assert arm.steps % rollout == 0 and arm.test_every % rollout == 0
    seeds = [np.random.SeedSequence(cell.seed).generate_state(2).tolist() for cell in STUDY.cells()]
    assert len({tuple(seed) for seed in seeds}) == 5  # arms and shifts of one seed are paired
