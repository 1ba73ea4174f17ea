"""Does curiosity change which goal a language model learns? See ``curiosity_goals``; the bonus is for new words."""

from dataclasses import replace
from functools import partial

from astray.agents import TextNovelty
from astray.experiments.cheese_corner import NEUTRAL
from astray.experiments.study import Study

PLAIN = replace(NEUTRAL, name="smollm2, no bonus", train_shifts=(0.03, 0.1))
CURIOUS = replace(PLAIN, name="smollm2, text novelty", intrinsic={"bonus": partial(TextNovelty, weight=0.05)})
STUDY = Study(name="curiosity-goals-language", world="cheese-corner", arms=(PLAIN, CURIOUS))
