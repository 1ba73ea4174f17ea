"""Does an agent that learned to take the coin at the far end want the coin, or the far end?"""

from astray.experiments.world_study import world_study

STUDY = world_study("coin-end", observation="egocentric", steps=204_800)
