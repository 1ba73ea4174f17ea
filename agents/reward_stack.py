"""Rewards for training: an extrinsic reward and intrinsic bonuses, mixed before anything is computed from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_wrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from astray.agents.curiosity import Curiosity
from astray.agents.mixing import Reward, Rewards, batch_of_one
from astray.envs import InputError


class RewardStack(VecEnvWrapper):
    """Replaces the reward by extrinsic + weighted bonuses, and trains the curiosity modules by itself.

    Every component of a step stays in ``infos[i]["rewards"]``: "world", "extrinsic", each module's bonus times its
    weight, and "total", which is what the algorithm sees. ``infos[i]["episode"]``, and so Stable-Baselines3's
    ``ep_rew_mean``, remains the world's own. ``LogRewards`` writes all of them to TensorBoard.
    """

    def __init__(self, venv: VecEnv, rewards: Rewards):
        if unwrap_vec_wrapper(venv, RewardStack) is not None:
            raise InputError("these environments have rewards already: name all modules in one with_rewards(...)")
        if unwrap_vec_wrapper(venv, VecNormalize) is not None:
            raise InputError(
                "with_rewards goes inside of VecNormalize, whose statistics would count bonuses twice or drop them: "
                "VecNormalize(with_rewards(envs, ...))"
            )
        super().__init__(venv)
        known = venv.has_attr("event_names") and venv.has_attr("goals")
        names: Sequence[str] = venv.get_attr("event_names", 0)[0] if known else ()
        goals: Mapping[str, str] = venv.get_attr("goals", 0)[0] if known else {}
        rewards.bind(venv.observation_space, venv.action_space, venv.num_envs, names, goals)
        self.rewards = rewards
        self._actions = np.zeros(0)

    def reset(self) -> VecEnvObs:
        """Resets the environments."""
        observations = self.venv.reset()
        self.rewards.started(observations)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Sends the actions on."""
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, pays, and every ``update_every`` environment steps trains the modules."""
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, self.rewards.stepped(self._actions, observations, rewards, dones, infos), dones, infos

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on: the modules, their steps to come, and the environments.

        The environments below need a ``get_state`` too, as ``vec_env`` has it.
        """
        envs: Any = self.venv
        return {"envs": envs.get_state()} | self.rewards.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        envs: Any = self.venv
        envs.set_state(state["envs"])
        self.rewards.set_state(state)


class RewardWrapper(gym.Wrapper):
    """``with_rewards`` for a single Gymnasium environment, with the same arguments.

    It puts Stable-Baselines3's ``Monitor`` inside, if there is none yet, so that ``ep_rew_mean`` stays the world's own.
    """

    def __init__(
        self,
        env: gym.Env,
        extrinsic: Reward = "world",
        intrinsic: Mapping[str, Curiosity] | None = None,
        update_every: int = 512,
        clip: float | None = None,
    ):
        wrapped: gym.Env = env
        while isinstance(wrapped, gym.Wrapper) and not isinstance(wrapped, Monitor | RewardWrapper):
            wrapped = wrapped.env
        if isinstance(wrapped, RewardWrapper):
            raise InputError("this environment has rewards already: name all modules in one RewardWrapper(...)")
        super().__init__(env if isinstance(wrapped, Monitor) else Monitor(env))
        base: Any = env.unwrapped
        self.rewards = Rewards(extrinsic, intrinsic or {}, update_every, clip, ())
        self.rewards.bind(
            self.observation_space, self.action_space, 1, getattr(base, "event_names", ()), getattr(base, "goals", {})
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.rewards.started(batch_of_one(observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Steps and pays."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        told = info | {"terminal_observation": observation, "TimeLimit.truncated": truncated and not terminated}
        done = np.array([terminated or truncated])
        total = self.rewards.stepped(
            np.asarray(action)[None], batch_of_one(observation), np.array([float(reward)]), done, [told]
        )
        return observation, float(total[0]), terminated, truncated, info | {"rewards": told["rewards"]}

    def told(self) -> dict[str, float]:
        """Means of each component over the steps since the last call, and the modules' metrics."""
        return self.rewards.told()


class LogRewards(BaseCallback):
    """Writes the mean of every reward component, and what the modules tell, to the logger (TensorBoard).

    ``model.learn(steps, callback=LogRewards())``, where the model's environments come from ``with_rewards``.
    """

    def _on_training_start(self) -> None:
        """Looks for the rewards.

        Raises:
            InputError: the environments have no rewards of their own, or those of an ``EvalCallback`` beside have.
        """
        if not has_rewards(self.training_env):
            raise InputError("LogRewards needs environments from with_rewards(...), or each in a RewardWrapper")
        together = self.locals["callback"]
        for callback in together.callbacks if isinstance(together, CallbackList) else ():
            if isinstance(callback, EvalCallback) and has_rewards(callback.eval_env):
                raise InputError("EvalCallback(eval_env): evaluate on environments without with_rewards, without bonus")

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        stack = unwrap_vec_wrapper(self.training_env, RewardStack)
        told = [stack.rewards.told()] if stack else self.training_env.env_method("told")
        for name in told[0]:
            self.logger.record(name, float(np.mean([each[name] for each in told])))


def has_rewards(envs: VecEnv) -> bool:
    """Whether environments pay rewards of this project."""
    return unwrap_vec_wrapper(envs, RewardStack) is not None or all(envs.env_is_wrapped(RewardWrapper))


def with_rewards(
    envs: VecEnv,
    extrinsic: Reward = "world",
    intrinsic: Mapping[str, Curiosity] | None = None,
    update_every: int = 512,
    clip: float | None = None,
    apart: Sequence[str] = (),
) -> RewardStack:
    """Environments that pay another reward, for any algorithm of Stable-Baselines3.

    Args:
        envs: any ``VecEnv``; ``VecNormalize`` goes around the result, not into it.
        extrinsic: an expression over the world's events and goals (a goal pays at its first visit in an episode),
            ``step`` and ``world`` (the world's own reward), such as ``"cheese - 0.01*step"``; or a function of
            ``Transitions`` (``astray.agents.rewards`` has some).
        intrinsic: curiosity modules by name.
        update_every: environment steps between the modules' updates.
        clip: the largest total reward, and its negative the smallest.
        apart: names of modules whose bonus is no part of the reward, because a second value head takes it
            (``CuriousPPO``).

    Raises:
        InputError: the expression cannot be parsed, a module cannot read these environments or is used twice, a
            number is out of its range, or ``envs`` have been wrapped before.
    """
    return RewardStack(envs, Rewards(extrinsic, intrinsic or {}, update_every, clip, apart))
