"""What acts and what pays: language models as policies, agents, rewards, curiosity."""

from astray.agents.acting import Agent, ExpertAgent, MarginalAgent, PolicyAgent
from astray.agents.counts import EpisodicCounts, LifelongCounts
from astray.agents.curiosity import Annealed, Curiosity
from astray.agents.curious_ppo import CuriousPPO
from astray.agents.features import LanguageFeatures
from astray.agents.language_model import LanguageModel
from astray.agents.language_ppo import LanguagePPO
from astray.agents.policy import LanguagePolicy
from astray.agents.relabelled import RelabelledReplayBuffer
from astray.agents.reward_stack import LogRewards, RewardStack, RewardWrapper, with_rewards
from astray.agents.rnd import RND
from astray.agents.settings import LM_PPO, MLP_PPO
from astray.agents.transitions import Transitions
from astray.agents.vec_env import WorldVecEnv, vec_env

__all__ = [
    "LM_PPO",
    "MLP_PPO",
    "RND",
    "Agent",
    "Annealed",
    "Curiosity",
    "CuriousPPO",
    "EpisodicCounts",
    "ExpertAgent",
    "LanguageFeatures",
    "LanguageModel",
    "LanguagePPO",
    "LanguagePolicy",
    "LifelongCounts",
    "LogRewards",
    "MarginalAgent",
    "PolicyAgent",
    "RelabelledReplayBuffer",
    "RewardStack",
    "RewardWrapper",
    "Transitions",
    "WorldVecEnv",
    "vec_env",
    "with_rewards",
]
