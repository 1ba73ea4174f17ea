"""Does curiosity find what reward alone does not, and what fools it?

*Sparse*: one layout of 16 rooms, two locked doors and one reward at the exit, which chance hardly ever finds;
with counts, with RND, and without.
*Radio*: the same rooms with a radio that says something new and meaningless whenever it is turned on (the noisy
television of Burda et al. 2019), which prediction errors cannot get used to. Counts are of what the agent can change,
not of what the radio says.

All of them train on one layout, so ``met_exit`` in the rows, and not the tests on other layouts, says how they did.
Settings were fixed on other seeds than these.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from astray.agents import E3B, ICM, RND, LifelongCounts
from astray.experiments.cheese_corner import MLP
from astray.experiments.study import Study

NOISE_PLANES = 8


def without_noise(planes: np.ndarray) -> np.ndarray:
    """Planes without what the radio says."""
    return planes[:, :-NOISE_PLANES]


ALONE = replace(
    MLP,
    name="sparse, reward alone",
    settings=MLP.settings | {"target_kl": 0.02},  # without it, some that had found the exit lose it again
    steps=307_200,
    test_every=53_248,
    train_shifts=(0.0,),
    arguments={"num_levels": 1},
)
COUNTS = partial(LifelongCounts, weight=0.3)
RADIO = replace(ALONE, steps=102_400, arguments={"num_levels": 1, "radio": True})
NOISELESS = partial(LifelongCounts, weight=0.3, key=without_noise)

STUDY = Study(
    name="curiosity-rooms",
    world="rooms",
    arms=(
        ALONE,
        replace(ALONE, name="sparse, counts", intrinsic={"counts": COUNTS}),
        replace(ALONE, name="sparse, RND", intrinsic={"rnd": partial(RND, weight=0.3)}),
        replace(RADIO, name="radio, counts", intrinsic={"counts": NOISELESS}),
        replace(RADIO, name="radio, E3B", intrinsic={"e3b": partial(E3B, weight=0.1)}),
        replace(RADIO, name="radio, RND", intrinsic={"rnd": partial(RND, weight=0.3)}),
        replace(RADIO, name="radio, ICM", intrinsic={"icm": partial(ICM, weight=0.1)}),
    ),
    arguments={"size": 4, "max_steps": 40},
)
