"""Curiosity modules and reward stacks with a bug in each, most of them bugs of public code, and what catches them."""

from dataclasses import replace

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize

from astray.agents import ICM, RND, EpisodicCounts, LifelongCounts, RewardStack, with_rewards
from astray.agents.reading import ActionReader, ObservationReader
from astray.agents.reward_stack import Rewards


class Float32(LifelongCounts):
    def bonus(self, transitions):
        return super().bonus(transitions).astype(np.float32)


class AColumn(LifelongCounts):
    def bonus(self, transitions):
        return super().bonus(transitions)[:, None]


class UnbiasedSpread(LifelongCounts):
    """As in rllte's running statistics: the variance of a batch of one is no number, and stays none."""

    variance = torch.tensor(1.0)

    def bonus(self, transitions):
        return super().bonus(transitions) / (self.variance.item() ** 0.5 + 1e-8)

    def observe(self, transitions):
        self.variance = 0.9 * self.variance + 0.1 * torch.as_tensor(super().bonus(transitions)).var()
        super().observe(transitions)


class NormalisesWhenAsked(RND):
    """As in rllte: the statistics of observations move whenever a bonus is computed."""

    def bonus(self, transitions):
        self.seen.update(self.read.numbers(transitions.next_observations).astype(np.float64))
        return super().bonus(transitions)


class LossOfEveryNumber(ICM):
    """As in rllte's inverse model: the loss of each number of an action, times a mask with one number for each row."""

    def setup(self, observation_space, action_space, num_envs):
        super().setup(observation_space, action_space, num_envs)
        self.act = PerNumber(action_space)

    def _inverse_loss(self, before, after, actions):
        predicted = self.networks["inverse_model"](torch.cat([before, after], dim=1))
        mask = torch.ones(len(predicted))
        return (self.act.loss(predicted, actions) * mask).mean()


class PerNumber(ActionReader):
    def loss(self, predicted, actions):
        return (
            super().loss(predicted, actions)
            if isinstance(self.space, spaces.Discrete)
            else (predicted - torch.as_tensor(actions)).square()
        )


class WritesIntoSteps(LifelongCounts):
    def observe(self, transitions):
        super().observe(transitions)
        transitions.next_observations[:] = 0


class GlobalChance(RND):
    """As in rliable: what is learned from is chosen by the generator that belongs to everybody."""

    def update(self, transitions):
        return super().update(transitions[np.random.choice(len(transitions), len(transitions))])


class SeedsEverything(RND):
    def setup(self, observation_space, action_space, num_envs):
        torch.manual_seed(self.seed)
        super().setup(observation_space, action_space, num_envs)


class Unseeded(RND):
    def setup(self, observation_space, action_space, num_envs):
        super().setup(observation_space, action_space, num_envs)
        self.rng = np.random.default_rng()


class WeighsTwice(LifelongCounts):
    def bonus(self, transitions):
        return self.weight * super().bonus(transitions)


class GivenAway(LifelongCounts):
    """May be set up again, so an evaluation moves what was learned in training."""

    def setup(self, observation_space, action_space, num_envs):
        self.read, self.num_envs = ObservationReader(observation_space), num_envs


class NeighboursInTheBatch(LifelongCounts):
    """As in public RE3: the nearest may be a row of the same batch."""

    def bonus(self, transitions):
        numbers = self.read.numbers(transitions.next_observations).astype(float)
        apart = np.linalg.norm(numbers[:, None] - numbers, axis=2)
        return super().bonus(transitions) + np.sort(apart, axis=1)[:, :2].max(axis=1)


class BetweenSmallestAndLargest(RND):
    """As one of the normalisations of RLeXplore: relative to the batch."""

    def bonus(self, transitions):
        raw = super().bonus(transitions)
        return (raw - raw.min()) / (np.ptp(raw) + 1e-8)


class FilterOverEnvironments(RND):
    """As in CleanRL: the discounted sum runs over environments, as if they came one after another."""

    def observe(self, transitions):
        for bonus in self._raw(transitions):
            self.scale.sums[0] = self.scale.sums[0] * self.discount + bonus
            self.scale.statistics.update(self.scale.sums[:1])


class SilentlyEpisodic(EpisodicCounts):
    episodic = False


class NeverForgets(EpisodicCounts):
    """The end of an episode is ignored."""

    def observe(self, transitions):
        super().observe(self._late(transitions))

    def bonus(self, transitions):
        return super().bonus(self._late(transitions))

    def _late(self, transitions):
        known = np.isin(transitions.environments, list(self.visited.counts))
        return replace(transitions, steps=np.where(known, transitions.steps + 1, 0))


class ForgetsAtDone(NeverForgets):
    """As in public NGU: memory is cleared at ends alone, though an environment may be reset in the middle."""

    def observe(self, transitions):
        super().observe(transitions)
        for environment in transitions.environments[transitions.done].tolist():
            del self.visited.counts[environment]


class OneMemory(EpisodicCounts):
    """Cannot tell environments apart."""

    def bonus(self, transitions):
        return super().bonus(replace(transitions, environments=0 * transitions.environments))

    def observe(self, transitions):
        for row in range(len(transitions)):
            super().observe(replace(transitions[row : row + 1], environments=np.zeros(1, int)))


class RunningSum(LifelongCounts):
    """As in rllte: pays the discounted sum of bonuses, which was made to divide by its spread."""

    def setup(self, observation_space, action_space, num_envs):
        super().setup(observation_space, action_space, num_envs)
        self.sums = np.zeros(num_envs)

    def bonus(self, transitions):
        return 0.99 * self.sums[transitions.environments] + super().bonus(transitions)

    def observe(self, transitions):
        self.sums[transitions.environments] = self.bonus(transitions)
        super().observe(transitions)


class LearnsNothing(RND):
    def update(self, transitions):
        return {}


class KeepsASet(LifelongCounts):
    """Sets are not saved."""

    met = frozenset()

    def bonus(self, transitions):
        return np.array([float(key not in self.met) for key in self.read.keys(transitions.next_observations).tolist()])

    def observe(self, transitions):
        self.met = self.met | set(self.read.keys(transitions.next_observations).tolist())


class LiveState(RND):
    """As torch has it: what is saved goes on with the module."""

    def state_dict(self):
        return super().state_dict() | {"networks": self.networks.state_dict()}


class OnlyPickled(LifelongCounts):
    def state_dict(self):
        return {"counts": frozenset(self.counts.items())}


BUGS_OF_MODULES = {
    Float32: "bonuses_are_numbers",
    AColumn: "bonuses_are_numbers",
    UnbiasedSpread: "bonuses_are_numbers",
    LossOfEveryNumber: "bonuses_are_numbers",
    NormalisesWhenAsked: "bonus_changes_nothing",
    WritesIntoSteps: "bonus_changes_nothing",
    GlobalChance: "chance_is_its_own",
    SeedsEverything: "chance_is_its_own",
    Unseeded: "equal_seeds_agree",
    WeighsTwice: "weight_is_left_to_the_stack",
    GivenAway: "belongs_to_its_environments",
    NeighboursInTheBatch: "rows_are_on_their_own",
    BetweenSmallestAndLargest: "rows_are_on_their_own",
    FilterOverEnvironments: "order_of_rows_means_nothing",
    SilentlyEpisodic: "stored_steps_pay_the_same",
    NeverForgets: "episodes_begin_anew",
    ForgetsAtDone: "episodes_begin_anew",
    OneMemory: "environments_are_apart",
    RunningSum: "repetition_fades",
    LearnsNothing: "repetition_fades",
    KeepsASet: "state_is_whole",
    LiveState: "state_is_whole",
    OnlyPickled: "state_is_whole",
}


# ---------------------------------------------------------------- stacks with a bug
def stacked(kind=RewardStack, rewards=Rewards):
    """A stack of one's own, made as ``with_rewards`` makes the right one."""
    return lambda envs, intrinsic, update_every: kind(envs, rewards("world", intrinsic, update_every, None, ()))


def above(wrapper):
    """The right stack, around a wrapper."""
    return lambda envs, **arguments: with_rewards(wrapper(envs), **arguments)


class Unpaid(RewardStack):
    """Pays the world's reward, and leaves bonuses to a callback."""

    def step_wait(self):
        observations, _, dones, infos = super().step_wait()
        return observations, np.array([info["rewards"]["world"] for info in infos], np.float32), dones, infos


class AddsLater(BaseCallback):
    def _on_rollout_start(self):
        self.bonuses = []

    def _on_step(self):
        self.bonuses.append([info["rewards"]["it"] for info in self.locals["infos"]])
        return True


class AddsToRewards(AddsLater):
    """As in rllte, on-policy: rewards change when advantages have been computed, and teach nothing."""

    def _on_rollout_end(self):
        if "rollout_buffer" in self.locals:
            self.locals["rollout_buffer"].rewards += np.array(self.bonuses, np.float32)


class AddsToAdvantages(AddsLater):
    """As in RLeXplore with Stable-Baselines3: what comes of an action later is not credited to it."""

    def _on_rollout_end(self):
        if "rollout_buffer" in self.locals:
            self.locals["rollout_buffer"].advantages += np.array(self.bonuses, np.float32)
            self.locals["rollout_buffer"].returns += np.array(self.bonuses, np.float32)


class PaidTooLate(Unpaid):
    """As in rllte, off-policy: rewards change after a replay buffer has copied them."""

    rewards_before = bonuses = np.zeros(())

    def step_async(self, actions):
        self.rewards_before += self.bonuses
        super().step_async(actions)

    def step_wait(self):
        observations, world, dones, infos = super().step_wait()
        self.rewards_before, self.bonuses = world, np.array([info["rewards"]["it"] for info in infos], np.float32)
        return observations, world, dones, infos


class PostReset(Rewards):
    """As in the authors' RIDE and NovelD: at an end, what comes next is the next episode's first observation."""

    def _transitions(self, actions, rows, rewards, dones, infos):
        right = super()._transitions(actions, rows, rewards, dones, infos)
        return replace(right, next_observations=rows.copy())


class Shifted(Rewards):
    """As in RLeXplore with Stable-Baselines3: starts are taken for ends, so memory begins anew late."""

    def _transitions(self, actions, rows, rewards, dones, infos):
        told = super()._transitions(actions, rows, rewards, dones, infos)
        late = np.where(told.steps == 0, 99, told.steps - 1)
        return replace(told, steps=np.where(told.episodes == 0, told.steps, late))


class NormalisedBelow(RewardStack):
    """As in RLeXplore: with VecNormalize below, Stable-Baselines3 stores the reward of below."""

    def __init__(self, venv, rewards):
        VecEnvWrapper.__init__(self, VecNormalize(venv, norm_obs=False, norm_reward=False))
        rewards.bind(venv.observation_space, venv.action_space, venv.num_envs, (), {})
        self.rewards = rewards


class Passing(VecEnvWrapper):
    """Passes everything on."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


class StepsFirst(Passing):
    """As in rllte: the environments that are trained on are walked through, uncounted, to normalise observations."""

    def reset(self):
        observations = self.venv.reset()
        for _ in range(5):
            observations = self.venv.step(np.zeros(self.num_envs, int))[0]
        return observations


class NoCuts(Passing):
    """As in rllte's rollout: an episode that is cut off is worth nothing from there on."""

    def step_wait(self):
        observations, rewards, dones, infos = self.venv.step_wait()
        return observations, rewards, dones, [info | {"TimeLimit.truncated": False} for info in infos]


class NormalisesRollouts(BaseCallback):
    """Takes the buffer's rewards for the environments', with values of last observations in them."""

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        if buffer := self.locals.get("rollout_buffer"):
            buffer.rewards /= buffer.rewards.std()
            buffer.compute_returns_and_advantage(self.locals["values"], self.locals["dones"])


class NextStep(Passing):
    """As Gymnasium's vector environments do by default, an episode begins with a step in which nothing is done."""

    first = None

    def step_async(self, actions):
        if self.first is None:
            self.venv.step_async(actions)

    def step_wait(self):
        if self.first is not None:
            observations, self.first = self.first, None
            return observations, np.zeros(1, np.float32), np.zeros(1, bool), [{}]
        observations, rewards, dones, infos = self.venv.step_wait()
        if dones[0]:
            self.first, observations = observations, infos[0]["terminal_observation"][None]
        return observations, rewards, dones, infos


BUGS_OF_STACKS = {
    "rewards after advantages": (stacked(Unpaid), AddsToRewards, "advantages_are_those_of_the_total"),
    "rewards after storing": (stacked(PaidTooLate), None, "replay_holds_the_total"),
    "added to advantages": (stacked(Unpaid), AddsToAdvantages, "advantages_are_those_of_the_total"),
    "ends a step late": (stacked(rewards=Shifted), None, "ends_of_episodes_are_seen_truly"),
    "VecNormalize below": (stacked(NormalisedBelow), None, "replay_holds_the_total"),
    "walks first": (above(StepsFirst), None, "weight_0_is_plain"),
    "next episode as last observation": (stacked(rewards=PostReset), None, "ends_of_episodes_are_seen_truly"),
    "cuts as ends": (above(NoCuts), None, "advantages_are_those_of_the_total"),
    "values taken for rewards": (with_rewards, NormalisesRollouts, "advantages_are_those_of_the_total"),
    "steps that only reset": (above(NextStep), None, "ends_of_episodes_are_seen_truly"),
}
