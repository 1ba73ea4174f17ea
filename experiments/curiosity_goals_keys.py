"""Does curiosity change which goal is learned, in KeysAndChests? See ``curiosity_goals``."""

from dataclasses import replace

from astray.experiments.curiosity_goals import PLAIN, arms
from astray.experiments.study import Study

KEYS = replace(PLAIN, observation="egocentric", steps=122_880, test_every=61_440)
STUDY = Study(name="curiosity-goals-keys", world="keys-and-chests", arms=arms(KEYS))
