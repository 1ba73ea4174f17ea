"""A replay buffer whose bonuses are those of the modules as they are now."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from astray.agents.mixing import Rewards
from astray.agents.transitions import Transitions
from astray.envs import InputError


class RelabelledReplayBuffer(ReplayBuffer):
    """Computes bonuses when steps are drawn, so that what was new when it was stored is not paid for ever.

    ``DQN(policy, envs, replay_buffer_class=RelabelledReplayBuffer, replay_buffer_kwargs={"rewards": envs.rewards})``,
    where ``envs`` are those of ``with_rewards``. Extrinsic rewards, and bonuses that depend on an episode's memory,
    stay as they were.

    Args:
        buffer_size: as for ``ReplayBuffer``.
        observation_space: of the environments.
        action_space: of the environments.
        rewards: of the environments that are trained on.
        **kwargs: as for ``ReplayBuffer``; not ``optimize_memory_usage``, which loses last observations.

    Raises:
        InputError: observations are dicts, or others than the modules see (Stable-Baselines3 puts the channels of
            images first), or memory usage is to be optimised.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *,
        rewards: Rewards,
        **kwargs: Any,
    ):
        if kwargs.get("optimize_memory_usage"):
            raise InputError("optimize_memory_usage=True loses the last observations of episodes, which bonuses need")
        if isinstance(observation_space, spaces.Dict) or observation_space != rewards.observation_space:
            raise InputError(
                f"observations={observation_space} must be one array, and what the modules see: "
                f"{rewards.observation_space}"
            )
        super().__init__(buffer_size, observation_space, action_space, **kwargs)
        self.rewards_of = rewards
        self.fixed = np.zeros((self.buffer_size, self.n_envs))

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Stores a step of each environment."""
        self.fixed[self.pos] = [self.rewards_of.fixed(info["rewards"]) for info in infos]
        super().add(obs, next_obs, action, reward, done, infos)

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        rows = np.random.randint(0, self.n_envs, len(batch_inds))  # as Stable-Baselines3 draws them
        where = batch_inds, rows
        cut = self.timeouts[where] > 0
        steps = Transitions(
            observations=self.observations[where],
            actions=self.actions[where].reshape(len(rows), *(self.action_space.shape or ())),
            next_observations=self.next_observations[where],
            terminated=(self.dones[where] > 0) & ~cut,
            truncated=cut,
            rewards=np.zeros(len(rows)),
            happened={},
            ever={},
            environments=rows,
            episodes=np.zeros(len(rows), np.int64),
            steps=np.zeros(len(rows), np.int64),
        )
        total = self.rewards_of.relabelled(steps, self.fixed[where]).astype(np.float32)
        parts = (
            self._normalize_obs(steps.observations, env),
            self.actions[where],
            self._normalize_obs(steps.next_observations, env),
            (self.dones[where] * (1 - self.timeouts[where])).reshape(-1, 1),
            self._normalize_reward(total.reshape(-1, 1), env),
        )
        return ReplayBufferSamples(*map(self.to_torch, parts))  # pyright: ignore[reportArgumentType]
