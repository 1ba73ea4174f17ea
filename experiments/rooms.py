"""Does an agent that learned to leave rooms by the red door and then the blue one find its way in other rooms?"""

from astray.experiments.world_study import world_study

STUDY = world_study("rooms", observation="egocentric", steps=1_024_000)
