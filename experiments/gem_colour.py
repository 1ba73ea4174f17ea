"""Does an agent that learned to go to the yellow gem want the gem, or what is yellow?"""

from astray.experiments.world_study import world_study

STUDY = world_study("gem-colour", observation="egocentric", steps=204_800)
