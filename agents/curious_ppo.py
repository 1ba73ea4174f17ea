"""PPO with a second value function, for bonuses that are worth something beyond the end of an episode."""

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_wrapper
from torch.nn.functional import mse_loss

from astray.agents.policy import LanguagePolicy
from astray.agents.reward_stack import RewardStack
from astray.envs import InputError


class CuriousPPO(PPO):
    """PPO whose bonuses have a discount, a value function and advantages of their own.

    The environments are ``with_rewards(..., apart=[names])``: these modules' bonuses are no part of the reward. Their
    advantages are added to those of the reward before the update, so a module's weight says how much they count. The
    second value function is that of another policy of the same class.

    Source: Burda et al., "Exploration by random network distillation", ICLR 2019, section 2.3: returns of bonuses do
    not end with an episode, because what is new is worth finding even if finding it ends the game.

    Args:
        *args: as for ``PPO``.
        bonus_gamma: discount of bonuses.
        bonus_episodic: whether returns of bonuses end with an episode.
        **kwargs: as for ``PPO``.

    Raises:
        InputError: no module of the environments is apart, observations are a Dict, or the policy is a language model,
            of which two would be needed.
    """

    def __init__(self, *args: Any, bonus_gamma: float = 0.99, bonus_episodic: bool = False, **kwargs: Any):
        self.bonus_gamma, self.bonus_episodic = bonus_gamma, bonus_episodic
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if isinstance(self.observation_space, spaces.Dict):
            raise InputError("CuriousPPO takes observations that are one array, not a Dict")
        if isinstance(self.policy, LanguagePolicy):
            raise InputError("policy=LanguagePolicy: CuriousPPO would need two language models; use LanguagePPO")
        self.bonus_policy: ActorCriticPolicy = self.policy_class(  # pyright: ignore[reportAttributeAccessIssue]
            self.observation_space, self.action_space, self.lr_schedule, use_sde=self.use_sde, **self.policy_kwargs
        ).to(self.device)

    def _stack(self, env: VecEnv) -> RewardStack:
        stack = unwrap_vec_wrapper(env, RewardStack)
        if stack is None or not stack.rewards.apart:
            raise InputError("CuriousPPO needs environments from with_rewards(..., apart=[names of modules])")
        return stack

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """Collects a rollout, and adds the advantages of bonuses to those of rewards."""
        rewards = self._stack(env).rewards
        rewards.take_apart()  # steps that no rollout holds
        if not super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps):
            return False
        assert self._last_obs is not None
        bonuses = copy.copy(rollout_buffer)  # the same steps, with other rewards, values and discount
        bonuses.gamma, bonuses.rewards = self.bonus_gamma, rewards.take_apart().astype(np.float32)
        bonuses.values = self._values(rollout_buffer.observations)
        bonuses.advantages = np.zeros_like(bonuses.values)
        dones = np.asarray(self._last_episode_starts)
        if not self.bonus_episodic:
            bonuses.episode_starts, dones = np.zeros_like(bonuses.episode_starts), np.zeros_like(dones)
        last = torch.as_tensor(self._values(np.asarray(self._last_obs)[None]))
        bonuses.compute_returns_and_advantage(last, dones)
        rollout_buffer.advantages += bonuses.advantages
        self._bonus_returns = bonuses.returns
        return True

    def train(self) -> None:
        """Updates the policy with the rollout, and the value function of bonuses."""
        super().train()
        observations = self.rollout_buffer.observations  # one step after the other, as ``get`` has made them
        returns = torch.as_tensor(RolloutBuffer.swap_and_flatten(self._bonus_returns), device=self.device).flatten()
        self._update_learning_rate(self.bonus_policy.optimizer)
        losses = []
        for _ in range(self.n_epochs):
            for rows in torch.randperm(len(returns)).split(self.batch_size):
                values = self.bonus_policy.predict_values(obs_as_tensor(observations[rows.numpy()], self.device))
                loss = mse_loss(values.flatten(), returns[rows])
                self.bonus_policy.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.bonus_policy.parameters(), self.max_grad_norm)
                self.bonus_policy.optimizer.step()
                losses.append(loss.item())
        self.logger.record("train/bonus_value_loss", float(np.mean(losses)))

    def _values(self, observations: np.ndarray) -> np.ndarray:
        """Values of bonuses, ``float32[T, B]``, of observations ``[T, B, ...]``."""
        flat = obs_as_tensor(observations.reshape(-1, *observations.shape[2:]), self.device)
        with torch.no_grad():
            return self.bonus_policy.predict_values(flat).cpu().numpy().reshape(observations.shape[:2])

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_bonus_returns"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        states, variables = super()._get_torch_save_params()
        return [*states, "bonus_policy", "bonus_policy.optimizer"], variables
