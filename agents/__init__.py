"""What acts and what pays: language models as policies, agents, rewards, curiosity."""

from astray.agents.acting import Agent, ExpertAgent, MarginalAgent, PolicyAgent
from astray.agents.controls import ActionEntropy, MatchedNoise
from astray.agents.counts import EpisodicCounts, LifelongCounts
from astray.agents.curiosity import Annealed, Curiosity
from astray.agents.curious_ppo import CuriousPPO
from astray.agents.disagreement import Disagreement
from astray.agents.e3b import E3B
from astray.agents.features import LanguageFeatures
from astray.agents.icm import ICM
from astray.agents.judge import LanguageJudge
from astray.agents.language_model import LanguageModel
from astray.agents.language_ppo import LanguagePPO
from astray.agents.ngu import NGU
from astray.agents.noveld import NovelD
from astray.agents.policy import LanguagePolicy
from astray.agents.policy_invariant import PolicyInvariant
from astray.agents.preferences import PreferenceReward, fragments, preferences_of_teacher
from astray.agents.pseudo_counts import PseudoCounts
from astray.agents.re3 import RE3
from astray.agents.relabelled import RelabelledReplayBuffer
from astray.agents.reward_stack import LogRewards, RewardStack, RewardWrapper, with_rewards
from astray.agents.rewards import Norms, Shaped
from astray.agents.ride import RIDE
from astray.agents.rnd import RND
from astray.agents.settings import LM_PPO, MLP_PPO
from astray.agents.suggested_goals import SuggestedGoals
from astray.agents.surprisal import Surprisal
from astray.agents.text_novelty import TextNovelty
from astray.agents.transitions import Transitions
from astray.agents.vec_env import WorldVecEnv, vec_env

__all__ = [
    "E3B",
    "ICM",
    "LM_PPO",
    "MLP_PPO",
    "NGU",
    "RE3",
    "RIDE",
    "RND",
    "ActionEntropy",
    "Agent",
    "Annealed",
    "Curiosity",
    "CuriousPPO",
    "Disagreement",
    "EpisodicCounts",
    "ExpertAgent",
    "LanguageFeatures",
    "LanguageJudge",
    "LanguageModel",
    "LanguagePPO",
    "LanguagePolicy",
    "LifelongCounts",
    "LogRewards",
    "MarginalAgent",
    "MatchedNoise",
    "Norms",
    "NovelD",
    "PolicyAgent",
    "PolicyInvariant",
    "PreferenceReward",
    "PseudoCounts",
    "RelabelledReplayBuffer",
    "RewardStack",
    "RewardWrapper",
    "Shaped",
    "SuggestedGoals",
    "Surprisal",
    "TextNovelty",
    "Transitions",
    "WorldVecEnv",
    "fragments",
    "preferences_of_teacher",
    "vec_env",
    "with_rewards",
]
