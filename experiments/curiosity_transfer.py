"""Does what curiosity learned without reward help where there is one, in rooms of another kind?

After Pathak et al. 2017, section 4.3: an explorer that never gets a reward, in mazes that lean west-east with the red
door first. It is tested as it is, and trained on with the reward where mazes lean north-south with the blue door first,
beside an agent that begins there from scratch.
"""

from dataclasses import replace
from functools import partial

from astray.agents import MLP_PPO, RND
from astray.experiments.study import Arm, Study

EXPLORER = Arm(
    name="explorer, never paid",
    policy="mlp",
    settings=MLP_PPO,
    observation="egocentric",
    num_envs=128,
    steps=204_800,
    test_every=40_960,
    train_shifts=(0.0,),
    seeds=5,
    extrinsic="0*step",
    intrinsic={"rnd": partial(RND, weight=0.3)},
)
SCRATCH = replace(EXPLORER, name="paid, from scratch", train_shifts=(1.0,), extrinsic="world", intrinsic={})
AFTER = replace(SCRATCH, name="paid, after exploring", begins_with=EXPLORER.name)

STUDY = Study(name="curiosity-transfer", world="rooms", arms=(EXPLORER, SCRATCH, AFTER))
