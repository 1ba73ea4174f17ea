"""Proximal policy optimisation where the forward pass of the policy, not the environment, is what costs."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.type_aliases import DictRolloutBufferSamples, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance
from torch import Tensor
from torch.distributions import Categorical, kl_divergence
from torch.nn.functional import mse_loss
from torch.nn.utils import clip_grad_norm_

from astray.agents.policy import LanguagePolicy
from astray.agents.self_check import self_check
from astray.envs import InputError

Samples = RolloutBufferSamples | DictRolloutBufferSamples


class LanguagePPO(PPO):
    """PPO (Schulman et al. 2017) for a ``LanguagePolicy``: the same loss, computed with fewer and smaller passes.

    - Steps with equal observations stay together: a minibatch holds all steps of a part of the rollout's distinct
      observations, so that an epoch computes each of them once. Where there are so few of them that a minibatch would
      hold less than ``micro_batch_size``, it holds a share of their steps instead.
    - A minibatch is computed in groups of at most ``micro_batch_size`` distinct observations, whose gradients add up.
      Advantages are normalised over the whole minibatch, and ``target_kl`` is compared with the whole of it.
    - In bfloat16, where log-probabilities depend on what is computed together, those of the rollout are computed anew
      in the same groups as in the update, so that ratios begin at exactly 1.
    - The values that stand for the rest of truncated episodes are computed together.
    - Before the first update the policy is checked (see ``self_check``).

    Args:
        *args: as for ``PPO``; the policy is ``LanguagePolicy``.
        micro_batch_size: distinct observations in one forward and backward pass; bounds the memory.
        base_kl_coef: weight in the loss of the divergence KL(policy || model without its adapters) over actions, which
            keeps the policy near what the model would do untrained (as Ziegler et al. 2019 do with texts).
        **kwargs: as for ``PPO``.

    Raises:
        InputError: an argument is out of its range, or the policy is another.
    """

    policy: LanguagePolicy  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, *args: Any, micro_batch_size: int = 16, base_kl_coef: float = 0.0, **kwargs: Any):
        if micro_batch_size < 1:
            raise InputError(f"micro_batch_size={micro_batch_size} must be at least 1")
        if not 0 <= base_kl_coef < float("inf"):
            raise InputError(f"base_kl_coef={base_kl_coef} must be a number from 0 on")
        self.micro_batch_size = micro_batch_size
        self.base_kl_coef = base_kl_coef
        self._checked = False
        super().__init__(*args, **kwargs)

    def _setup_model(self) -> None:
        super()._setup_model()
        if not isinstance(self.policy, LanguagePolicy):
            raise InputError(f"policy={type(self.policy).__name__} must be a LanguagePolicy; PPO trains any other")
        if self.base_kl_coef:
            with self.policy.adapters_off():
                pass  # whether there is a model without them is known now, rather than after a rollout

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: np.ndarray | None = None) -> None:
        # what the rollout asks for next, one episode at a time: asked for together, it is remembered
        super()._update_info_buffer(infos, dones)
        last = [info["terminal_observation"] for info in infos if info.get("TimeLimit.truncated")]
        if last:
            single = not isinstance(last[0], dict)
            together = np.stack(last) if single else {key: np.stack([obs[key] for obs in last]) for key in last[0]}
            with torch.no_grad():
                self.policy.predict_values(self.policy.obs_to_tensor(together)[0])

    def train(self) -> None:
        """Updates the policy with the rollout."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        samples: Samples = next(self.rollout_buffer.get())  # all of them, in random order
        groups, parts, repeats = self._groups(samples)
        if not self._checked:
            self_check(self.policy, groups[0].observations, groups[0].actions.long().flatten())
            self._checked = True
        if self.policy.language_model.model.dtype != torch.float32:
            groups = [self._as_in_the_update(group) for group in groups]

        records: list[dict[str, float]] = []
        for epoch in range(self.n_epochs):
            for minibatch in _minibatches(groups, parts, repeats):
                records.append(self._step(minibatch))
                if "stopped" in records[-1]:
                    break
            self._n_updates += 1
            if "stopped" in records[-1]:
                if self.verbose >= 1:
                    print(f"Early stopping at step {epoch} due to reaching max kl: {records[-1]['approx_kl']:.2f}")
                break
        self._log(records)

    def _groups(self, samples: Samples) -> tuple[list[Samples], int, int]:
        """The samples in groups of distinct observations, and how an epoch makes minibatches of them.

        Returns:
            The groups; in how many parts they are split; and in how many minibatches the samples of a part are, because
            a minibatch of few distinct observations would say little of the others.
        """
        numbers: dict[bytes, list[int]] = {}
        for number, row in enumerate(self.policy.rows(samples.observations)):
            numbers.setdefault(row, []).append(number)
        alike = list(numbers.values())  # in random order, as the samples are
        minibatches = max(1, round(len(samples.actions) / self.batch_size))
        most = min(self.micro_batch_size, self.batch_size)
        parts = min(minibatches, max(1, len(alike) // most))
        count = min(len(alike), parts * -(-len(alike) // (parts * most)))
        groups = [
            _take(samples, [number for i in group for number in alike[i]])
            for group in np.array_split(np.arange(len(alike)), count)
        ]
        return groups, parts, round(minibatches / parts)

    @torch.no_grad()
    def _as_in_the_update(self, group: Samples) -> Samples:
        """The samples with log-probabilities as the update will compute them."""
        self.policy.clear_cache()
        logits, _ = self.policy.logits_and_values(group.observations)
        log_probs = Categorical(logits=logits).log_prob(group.actions.long().flatten())
        return group._replace(old_log_prob=log_probs)

    def _step(self, minibatch: Sequence[tuple[Samples, np.ndarray]]) -> dict[str, float]:
        """One optimiser step.

        Args:
            minibatch: groups, and which of their samples are in it.

        Returns:
            What it was about; and "stopped", if ``target_kl`` kept it from being taken.
        """
        advantages = torch.cat([group.advantages[chosen] for group, chosen in minibatch])
        mean, spread = 0.0, 1.0
        if self.normalize_advantage and len(advantages) > 1:  # one has no spread
            mean, spread = advantages.mean().item(), advantages.std().item() + 1e-8
        self.policy.optimizer.zero_grad()
        record: dict[str, float] = {}
        for group, chosen in minibatch:
            share = len(chosen) / len(advantages)
            means = self._losses(group._replace(advantages=(group.advantages - mean) / spread), chosen)
            (share * means["loss"]).backward()
            for name, value in zip(means, torch.stack(list(means.values())).tolist(), strict=True):
                record[name] = record.get(name, 0.0) + share * value
        if not np.isfinite(record["loss"]):
            raise InputError(
                f"the loss of an update is {record['loss']}, so it was not taken: a reward is not finite, or the "
                "learning rate is too high"
            )
        if self.target_kl is not None and record["approx_kl"] > 1.5 * self.target_kl:
            return record | {"stopped": 1.0}
        trained = [weight for group in self.policy.optimizer.param_groups for weight in group["params"]]
        clip_grad_norm_(trained, self.max_grad_norm)
        self.policy.optimizer.step()
        return record

    def _losses(self, group: Samples, chosen: np.ndarray) -> dict[str, Tensor]:
        """Means over the chosen samples, of the loss and its parts.

        The whole group is computed, so that numbers that depend on what is computed together are the same each time.
        """
        clip = self._now(self.clip_range)
        logits, values = (part[chosen] for part in self.policy.logits_and_values(group.observations))
        group = _take(group, chosen)
        policy = Categorical(logits=logits)
        log_ratio = policy.log_prob(group.actions.long().flatten()) - group.old_log_prob
        ratio, values = log_ratio.exp(), values.flatten()
        if self.clip_range_vf is not None:
            clip_vf = self._now(self.clip_range_vf)
            values = group.old_values + (values - group.old_values).clamp(-clip_vf, clip_vf)
        gains = torch.min(group.advantages * ratio, group.advantages * ratio.clamp(1 - clip, 1 + clip))
        parts = {
            "policy_gradient_loss": -gains.mean(),
            "value_loss": mse_loss(values, group.returns),
            "entropy_loss": -policy.entropy().mean(),
        }
        loss = (
            parts["policy_gradient_loss"] + self.vf_coef * parts["value_loss"] + self.ent_coef * parts["entropy_loss"]
        )
        if self.base_kl_coef:
            base = Categorical(logits=self.policy.base_logits(group.observations))
            parts["base_kl"] = kl_divergence(policy, base).mean()
            loss = loss + self.base_kl_coef * parts["base_kl"]
        parts["approx_kl"] = (ratio - 1 - log_ratio).mean()  # Schulman 2020, "Approximating KL divergence"
        parts["clip_fraction"] = ((ratio - 1).abs() > clip).float().mean()
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def _now(self, schedule: Any) -> float:
        return schedule(self._current_progress_remaining)

    def _log(self, records: Sequence[dict[str, float]]) -> None:
        for name in records[0]:
            self.logger.record(f"train/{name}", np.mean([record[name] for record in records]))
        buffer = self.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", self._now(self.clip_range))
        if self.clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", self._now(self.clip_range_vf))


def _minibatches(groups: Sequence[Samples], parts: int, repeats: int) -> Iterator[list[tuple[Samples, np.ndarray]]]:
    """An epoch's minibatches in random order: groups, and which of their samples are in it."""
    for part in np.array_split(np.random.permutation(len(groups)), parts):
        split = [np.array_split(np.random.permutation(len(groups[number].actions)), repeats) for number in part]
        for chosen in zip(*split, strict=True):
            pairs = [(groups[number], samples) for number, samples in zip(part, chosen, strict=True) if len(samples)]
            if pairs:  # groups of a sample or two do not reach for all minibatches
                yield pairs


def _take(samples: Samples, numbers: list[int] | np.ndarray) -> Samples:
    """Some of the samples."""
    parts: list[Any] = [
        {key: array[numbers] for key, array in part.items()} if isinstance(part, dict) else part[numbers]
        for part in samples
    ]
    return type(samples)(*parts)
