"""Does an agent that learned to open chests where keys are scarce want chests open, or keys?"""

from astray.experiments.world_study import world_study

STUDY = world_study("keys-and-chests", observation="egocentric", steps=409_600)
