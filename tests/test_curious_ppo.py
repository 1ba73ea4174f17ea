"""A second value function: its advantages by hand, what is saved, and what it refuses."""

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure

from astray.agents import CuriousPPO, LifelongCounts, vec_env, with_rewards


class Watched(CuriousPPO):
    """Keeps its rollout as it is before the update."""

    def train(self):
        buffer, last = self.rollout_buffer, self._last_obs
        kept = {name: getattr(buffer, name).copy() for name in ("advantages", "rewards", "values", "episode_starts")}
        with torch.no_grad():
            kept["last value"] = self.policy.predict_values(torch.as_tensor(last)).numpy()[:, 0]
            flat = torch.as_tensor(np.concatenate([buffer.observations, last[None]])).flatten(0, 1)
            kept["second"] = self.bonus_policy.predict_values(flat).numpy().reshape(-1, 3)
        kept["over"] = self._last_episode_starts.copy()
        self.kept = {name: np.asarray(value, np.float64) for name, value in kept.items()}
        super().train()


def small_ppo(bonus, **arguments):
    """A rollout of ``CuriousPPO`` with a module apart, and the bonuses paid."""
    envs = with_rewards(vec_env("cheese-corner", 3, observation="planes"), intrinsic={"it": bonus}, apart=["it"])
    bonuses = []

    class Keep(BaseCallback):
        def _on_step(self):
            bonuses.append([info["rewards"]["it"] for info in self.locals["infos"]])
            return all(info["rewards"]["total"] == info["rewards"]["world"] for info in self.locals["infos"])

    model = Watched("MlpPolicy", envs, n_steps=32, batch_size=48, seed=0, device="cpu", **arguments)
    model.set_logger(configure(None, []))
    model.learn(96, callback=Keep())
    return model, np.array(bonuses)


@pytest.mark.parametrize("episodic", [False, True])
def test_a_second_value_function_gives_bonuses_advantages_of_their_own(episodic):
    model, bonuses = small_ppo(LifelongCounts(0.5), bonus_gamma=0.9, bonus_episodic=episodic)
    kept = model.kept

    def advantages(rewards, values, gamma, ends):
        found, follows = np.zeros_like(rewards), 0.0
        for t in reversed(range(len(rewards))):
            goes_on = 1 - ends[t + 1]
            error = rewards[t] + gamma * goes_on * values[t + 1] - values[t]
            found[t] = follows = error + gamma * 0.95 * goes_on * follows
        return found

    ends = np.concatenate([kept["episode_starts"], kept["over"][None]])
    assert ends[1:].sum() > 3
    values = np.concatenate([kept["values"], kept["last value"][None]])
    of_rewards = advantages(kept["rewards"], values, 0.99, ends)
    of_bonuses = advantages(bonuses, kept["second"], 0.9, ends if episodic else 0 * ends)
    np.testing.assert_allclose(kept["advantages"], of_rewards + of_bonuses, atol=1e-5)
    assert np.abs(of_bonuses).mean() > 0.1
    assert model.logger.name_to_value["train/bonus_value_loss"] > 0


def test_the_second_value_function_is_saved(tmp_path):
    model, _ = small_ppo(LifelongCounts())
    model.save(tmp_path / "model", exclude=["kept"])
    loaded = CuriousPPO.load(tmp_path / "model")
    for mine, other in zip(model.bonus_policy.parameters(), loaded.bonus_policy.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_environments_without_a_module_apart_are_refused():
    envs = with_rewards(vec_env("cheese-corner", 2, observation="planes"), intrinsic={"it": LifelongCounts()})
    with pytest.raises(ValueError, match="apart="):
        CuriousPPO("MlpPolicy", envs, n_steps=64, device="cpu").learn(64)
