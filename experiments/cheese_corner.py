"""Does an agent that learned to eat the cheese in the corner want the cheese, or the corner?

The MLP is trained at five train shifts. The language model is trained on ambiguous levels under two names of the
corner: a compass word ("South-west corner"), and a neutral one ("The corner"), which is also trained at a train shift
of 0.1, where one level in ten tells the goals apart.
"""

from dataclasses import replace

from astray.agents.settings import LM_PPO, MLP_PPO
from astray.experiments.study import Arm, Study

MLP = Arm(
    name="mlp",
    policy="mlp",
    settings=MLP_PPO,
    observation="planes",
    num_envs=128,
    steps=102_400,
    test_every=8_192,
    train_shifts=(0.0, 0.03, 0.1, 0.3, 1.0),
    seeds=5,
)
COMPASS = Arm(
    name="smollm2 compass",
    policy="smollm2",
    settings=LM_PPO,
    observation="bytes",
    num_envs=8,
    steps=8_192,
    test_every=1_024,
    train_shifts=(0.0,),
    seeds=3,
    arguments={"corner_name": "compass"},
    language_model="smollm2-135m",
)
NEUTRAL = replace(COMPASS, name="smollm2 neutral", train_shifts=(0.0, 0.1), arguments={"corner_name": "neutral"})

STUDY = Study(name="cheese-corner", world="cheese-corner", arms=(MLP, COMPASS, NEUTRAL))
QUICK = replace(
    STUDY,
    quick=True,
    arms=(MLP, replace(COMPASS, seeds=1), replace(NEUTRAL, seeds=1, train_shifts=(0.0,))),
)
