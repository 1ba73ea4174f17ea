"""Which goal is learned from the same levels: by a language model, by a head on what it makes of them, by an MLP?

Each is trained with the corner shown and without: a text that does not name it, planes that do not mark it. Where it is
not shown, only habit leads to it. At train shift 0 all that is trained on is ambiguous; at the others a few levels in a
hundred tell cheese and corner apart.
"""

from dataclasses import replace

from astray.agents import LM_PPO, LanguageFeatures
from astray.experiments.cheese_corner import NEUTRAL
from astray.experiments.study import Arm, Study

SHOWN = replace(NEUTRAL, name="smollm2, corner shown", train_shifts=(0.0, 0.03, 0.1, 0.3))
HEAD = LM_PPO | {"policy_kwargs": {"features_extractor_class": LanguageFeatures, "net_arch": [128, 128]}}
MLP = LM_PPO | {"policy_kwargs": {"net_arch": [128, 128]}}
FROZEN = replace(SHOWN, name="frozen, corner shown", policy="frozen", settings=HEAD, language_model=None, seeds=5)
PLANES = replace(FROZEN, name="mlp, corner shown", policy="mlp", settings=MLP, observation="planes")


def hidden(arm: Arm) -> Arm:
    """The same arm, with the corner not shown."""
    name = arm.name.replace("corner shown", "corner hidden")
    return replace(arm, name=name, arguments=arm.arguments | {"corner_shown": False})


ARMS = (PLANES, FROZEN, SHOWN)
STUDY = Study(name="what-is-shown", world="cheese-corner", arms=(*ARMS, *map(hidden, ARMS)))
