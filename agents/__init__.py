"""What acts and what pays: language models as policies, agents, rewards, curiosity."""

from astray.agents.acting import Agent, ExpertAgent, MarginalAgent, PolicyAgent
from astray.agents.features import LanguageFeatures
from astray.agents.language_model import LanguageModel
from astray.agents.language_ppo import LanguagePPO
from astray.agents.policy import LanguagePolicy
from astray.agents.reward_stack import Curiosity, RewardStack, Transitions, with_rewards
from astray.agents.rnd import RND
from astray.agents.settings import LM_PPO, MLP_PPO
from astray.agents.vec_env import WorldVecEnv, vec_env

__all__ = [
    "LM_PPO",
    "MLP_PPO",
    "RND",
    "Agent",
    "Curiosity",
    "ExpertAgent",
    "LanguageFeatures",
    "LanguageModel",
    "LanguagePPO",
    "LanguagePolicy",
    "MarginalAgent",
    "PolicyAgent",
    "RewardStack",
    "Transitions",
    "WorldVecEnv",
    "vec_env",
    "with_rewards",
]
