"""Does what curiosity learned without reward help where there is one, in rooms of another kind?

After Pathak et al. 2017, section 4.3: an explorer that never gets a reward, in mazes that lean west-east with the red
door first. It is tested as it is, and trained on with the reward where mazes lean north-south with the blue door first,
beside an agent that begins there from scratch.
"""

from dataclasses import replace
from functools import partial

from astray.agents import RND
from astray.experiments.cheese_corner import MLP
from astray.experiments.study import Study

EXPLORER = replace(
    MLP,
    name="explorer, never paid",
    observation="egocentric",
    steps=204_800,
    test_every=40_960,
    train_shifts=(0.0,),
    extrinsic="0*step",
    intrinsic={"rnd": partial(RND, weight=0.3)},
)
SCRATCH = replace(EXPLORER, name="paid, from scratch", train_shifts=(1.0,), extrinsic="world", intrinsic={})
AFTER = replace(SCRATCH, name="paid, after exploring", begins_with=EXPLORER.name)

STUDY = Study(name="curiosity-transfer", world="rooms", arms=(EXPLORER, SCRATCH, AFTER))
