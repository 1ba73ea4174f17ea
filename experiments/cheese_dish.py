"""Does an agent that learned to eat the cheese on the dish want the cheese, or the dish?"""

from astray.experiments.world_study import world_study

STUDY = world_study("cheese-dish", observation="egocentric", steps=204_800)
