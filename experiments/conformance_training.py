"""Checks of curiosity modules, and of what puts them around environments, in trainings of Stable-Baselines3."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from astray.agents import Transitions
from astray.experiments.conformance import MODULE_CHECKS, expect_close
from astray.experiments.conformance_subjects import ENVS, PLACES, Check, Subject, distinct
from astray.experiments.contract import expect

UPDATE_EVERY = 32
ALGORITHMS: dict[type[BaseAlgorithm], dict[str, Any]] = {
    PPO: {"n_steps": 16, "batch_size": 32, "n_epochs": 2},
    A2C: {"n_steps": 8},
    DQN: {"learning_starts": 20, "buffer_size": 256, "target_update_interval": 40},
}
GAMMA, LAMBDA = 0.9, 0.8


# ---------------------------------------------------------------- the same as without
def weight_0_is_plain(subject: Subject) -> None:
    """With weight 0, PPO, A2C and DQN learn what they learn without the module, bit by bit."""
    for algorithm in ALGORITHMS:
        if not _takes(algorithm, subject.place):
            continue
        envs = _wrapped(subject, subject.envs(), weight=0.0)
        learned = _learned(algorithm, envs, subject.callback and subject.callback())
        mend = "leave environments and global random states alone, and pay world + weight * bonus"
        expect(
            torch.equal(learned, _plain(algorithm, subject.place)),
            f"{algorithm.__name__} with weight 0 as without a module",
            "other weights of the policy",
            mend,
        )


@cache
def _plain(algorithm: type[BaseAlgorithm], place: str) -> torch.Tensor:
    return _learned(algorithm, PLACES[place](ENVS), None)


def _learned(algorithm: type[BaseAlgorithm], envs: VecEnv, callback: BaseCallback | None) -> torch.Tensor:
    model = algorithm("MlpPolicy", envs, seed=0, device="cpu", **ALGORITHMS[algorithm])
    model.learn(128, callback=callback)
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach()


def _takes(algorithm: type[BaseAlgorithm], place: str) -> bool:
    return algorithm is not DQN or isinstance(PLACES[place](1).action_space, spaces.Discrete)


def _wrapped(subject: Subject, envs: VecEnv, weight: float = 1.0, update_every: int = UPDATE_EVERY) -> VecEnv:
    return subject.wrap(envs, intrinsic={"it": subject.kind(weight=weight, seed=0)}, update_every=update_every)


# ---------------------------------------------------------------- what is learned from
class Beneath(VecEnvWrapper):
    """Keeps what environments did, below whatever is put around them.

    Attributes:
        rewards: the world's, of each step, ``float32[B]``.
        dones: whether an episode was over.
        truncated: whether it was cut off.
        last: its last observation, by step and environment.
    """

    def __init__(self, venv: VecEnv):
        super().__init__(venv)
        self.rewards: list[np.ndarray] = []
        self.dones: list[np.ndarray] = []
        self.truncated: list[list[bool]] = []
        self.last: dict[tuple[int, int], np.ndarray] = {}

    def reset(self) -> VecEnvObs:
        """Resets the environments."""
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        """Steps, and keeps copies."""
        observations, rewards, dones, infos = self.venv.step_wait()
        for row in np.flatnonzero(dones).tolist():
            self.last[len(self.dones), row] = infos[row]["terminal_observation"].copy()
        self.rewards.append(rewards.copy())
        self.dones.append(dones.copy())
        self.truncated.append([bool(info.get("TimeLimit.truncated", False)) for info in infos])
        return observations, rewards, dones, infos


class Told(BaseCallback):
    """Keeps the components of rewards that infos tell, of each step and environment."""

    def __init__(self):
        super().__init__()
        self.rewards: list[list[dict[str, float]]] = []

    def _on_step(self) -> bool:
        self.rewards.append([dict(info["rewards"]) for info in self.locals["infos"]])
        return True

    def all(self, name: str) -> np.ndarray:
        """One component, ``float64[T, B]``."""
        return np.array([[components[name] for components in step] for step in self.rewards])


class WatchedPPO(PPO):
    """Keeps its rollout as it is when it is learned from."""

    def train(self) -> None:
        """Keeps instead of learning."""
        buffer = self.rollout_buffer
        names = ("advantages", "returns", "rewards", "values")
        self.kept = {name: getattr(buffer, name).astype(np.float64) for name in names}
        assert self._last_obs is not None
        self.kept["last"] = self.values_of(np.asarray(self._last_obs))

    def values_of(self, observations: np.ndarray) -> np.ndarray:
        """The value function, ``float64[B]``."""
        with torch.no_grad():
            values = self.policy.predict_values(obs_as_tensor(observations, self.device))
        return values.flatten().double().numpy()


def advantages_are_those_of_the_total(subject: Subject) -> None:
    """PPO's advantages are those of world + bonus by hand; an end is worth 0, a cut what its last observation is."""
    beneath, told = Beneath(subject.envs()), Told()
    envs = _wrapped(subject, beneath)
    model = WatchedPPO("MlpPolicy", envs, n_steps=32, gamma=GAMMA, gae_lambda=LAMBDA, seed=0, device="cpu")
    model.learn(32 * ENVS, callback=_with(subject, told))
    total = told.all("total")
    _expect_the_sum(told, beneath)
    rewards, dones = total.copy(), np.array(beneath.dones)
    for (step, row), last in beneath.last.items():
        if beneath.truncated[step][row]:
            rewards[step, row] += GAMMA * model.values_of(last[None])[0]
    expected = advantages_by_hand(rewards, model.kept["values"], model.kept["last"], dones)
    mend = "pay bonuses before advantages are computed, with every info that the environments gave"
    expect_close(model.kept["rewards"], rewards, "rewards of the rollout, with what follows a cut", mend)
    expect_close(model.kept["advantages"], expected, "advantages by hand", mend)
    expect_close(model.kept["returns"], expected + model.kept["values"], "returns by hand", mend)


def advantages_by_hand(rewards: np.ndarray, values: np.ndarray, last: np.ndarray, dones: np.ndarray) -> np.ndarray:
    """Generalised advantages, ``float64[T, B]``, as the sums that define them.

    A_t = sum_l (gamma lambda)^l delta_{t+l} up to the episode's end, delta_t = r_t + gamma V(s_{t+1}) - V(s_t).

    Args:
        rewards: ``float64[T, B]``, where an episode was cut off with the discounted value of its last observation.
        values: V of the observations, ``float64[T, B]``.
        last: V of those after the last step, ``float64[B]``.
        dones: whether the episode was over after the step, ``bool[T, B]``.

    Source: Schulman et al., "High-dimensional continuous control using generalized advantage estimation", ICLR 2016,
    equation 16.
    """
    follows = np.concatenate([values[1:], last[None]])
    deltas = rewards + GAMMA * np.where(dones, 0.0, follows) - values
    advantages = np.zeros_like(deltas)
    for start, row in np.ndindex(deltas.shape):
        ends = np.flatnonzero(dones[start:, row])
        length = int(ends[0]) + 1 if len(ends) else len(deltas) - start
        weights = (GAMMA * LAMBDA) ** np.arange(length)
        advantages[start, row] = weights @ deltas[start : start + length, row]
    return advantages


def replay_holds_the_total(subject: Subject) -> str | None:
    """DQN's replay buffer holds world + bonus, and the true last observation of each episode."""
    if not _takes(DQN, subject.place):
        return "passed over: DQN takes Discrete actions"
    beneath, told = Beneath(subject.envs()), Told()
    envs = _wrapped(subject, beneath)
    model = DQN("MlpPolicy", envs, learning_starts=1000, buffer_size=1000, seed=0, device="cpu")
    model.learn(32 * ENVS, callback=_with(subject, told))
    buffer = model.replay_buffer
    assert buffer is not None
    count = len(beneath.dones)
    _expect_the_sum(told, beneath)
    mend = "let step() of the environments return world + weight * bonus"
    expect_close(buffer.rewards[:count], told.all("total"), "stored rewards that are the total", mend)
    for (step, row), last in beneath.last.items():
        stored = buffer.next_observations[step, row]
        expect(np.array_equal(stored, last), "the true last observation stored", "another", "leave infos as they are")


def _expect_the_sum(told: Told, beneath: Beneath) -> None:
    expected = np.array(beneath.rewards) + told.all("it")
    expect_close(told.all("total"), expected, "a total that is world + bonus", "add weight * bonus to the reward")


def _with(subject: Subject, told: Told) -> list[BaseCallback]:
    return [told] if subject.callback is None else [told, subject.callback()]


# ---------------------------------------------------------------- the end of an episode
class Written(gym.Env):
    """An environment that shows what was written down, whatever is done.

    Args:
        place: whose spaces it has.
        episodes: the observations of each.
        cut: whether episodes are cut off instead of ending.
    """

    def __init__(self, place: str, episodes: Sequence[np.ndarray], cut: bool):
        envs = PLACES[place](1)
        self.observation_space, self.action_space = envs.observation_space, envs.action_space
        self.episodes, self.cut = episodes, cut
        self.episode, self.step_number = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begins the next episode, after the last one the first."""
        self.episode, self.step_number = (self.episode + 1) % len(self.episodes), 0
        return self.episodes[self.episode][0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Shows the next observation."""
        self.step_number += 1
        over = self.step_number + 1 == len(self.episodes[self.episode])
        return self.episodes[self.episode][self.step_number], 0.0, over and not self.cut, over and self.cut, {}


def ends_of_episodes_are_seen_truly(subject: Subject) -> None:
    """At an episode's end the bonus, and what is learned, is of its last observation, not of the next one's first."""
    seen = distinct(Transitions.joined(subject.steps()))
    observations, actions = seen.next_observations, seen.actions
    assert len(observations) >= 6
    for cut in (False, True):
        paid = []
        for first in (4, 5):
            # The last observation was met before, the next episode's first one was not.
            orders = [0, 1, 2, 1], [first, 0, 2, 3]
            episodes = [observations[order] for order in orders]
            steps = _by_hand(episodes, actions, cut)
            paid.append(_paid(subject, episodes, steps, cut))
            mend = "take infos[i]['terminal_observation'] where an episode is over, and count steps from each reset"
            expect_close(paid[-1], _expected(subject, steps), "bonuses by hand, over the end of an episode", mend)
        end = len(orders[0]) - 1
        mend = "take the last observation for the next one where an episode is over"
        expect_close(paid[0][:end], paid[1][:end], "equal bonuses whatever the next episode begins with", mend)


def _by_hand(episodes: Sequence[np.ndarray], actions: np.ndarray, cut: bool) -> list[Transitions]:
    """The steps of one environment."""
    steps = []
    for number, episode in enumerate(episodes):
        for step in range(len(episode) - 1):
            over = np.array([step + 2 == len(episode)])
            steps.append(
                Transitions(
                    observations=episode[step][None],
                    actions=actions[len(steps)][None],
                    next_observations=episode[step + 1][None],
                    terminated=over & (not cut),
                    truncated=over & cut,
                    rewards=np.zeros(1),
                    happened={"step": np.ones(1), "world": np.zeros(1)},
                    ever={},
                    environments=np.array([0]),
                    episodes=np.array([number]),
                    steps=np.array([step]),
                )
            )
    return steps


def _paid(subject: Subject, episodes: Sequence[np.ndarray], steps: Sequence[Transitions], cut: bool) -> np.ndarray:
    """The bonuses that the stack pays, with an update in the middle of the second episode."""
    envs = DummyVecEnv([lambda: Written(subject.place, episodes, cut)])
    stack = _wrapped(subject, envs, update_every=len(steps) - 2)
    stack.reset()
    return np.array([stack.step(step.actions)[3][0]["rewards"]["it"] for step in steps])


def _expected(subject: Subject, steps: Sequence[Transitions]) -> np.ndarray:
    module, paid, until = subject.make(1), [], len(steps) - 2
    for number, step in enumerate(steps, start=1):
        paid.append(module.bonus(step)[0])
        module.observe(step)
        if number == until:
            module.update(Transitions.joined(steps[:until]))
    return np.array(paid)


TRAINING_CHECKS: tuple[Check, ...] = (
    ends_of_episodes_are_seen_truly,
    advantages_are_those_of_the_total,
    replay_holds_the_total,
    weight_0_is_plain,
)
CHECKS: tuple[Check, ...] = (*MODULE_CHECKS, *TRAINING_CHECKS)
