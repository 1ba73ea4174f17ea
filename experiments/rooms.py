"""Does an agent that learned to leave rooms by the red door and then the blue one find its way in other rooms?

Keys and doors pay here, too: with the exit alone, plain PPO needs a million steps, which is what curiosity is for.
"""

from astray.experiments.world_study import world_study

REWARD = "exit + 0.3*took_key + 0.3*unlocked_door"
STUDY = world_study("rooms", observation="egocentric", steps=409_600, extrinsic=REWARD)
