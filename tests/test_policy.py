"""A language model as a policy of Stable-Baselines3: exact, small to save, and it learns."""

import warnings
import zipfile

import numpy as np
import pytest
import torch
from gymnasium import spaces
from peft import PeftModel
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tiny_llama import save_tiny_llama
from weather import INSTRUCTION, WEATHER, Weather

from astray.agents.acting import PolicyAgent
from astray.agents.language_model import LanguageModel
from astray.agents.policy import LanguagePolicy
from astray.envs.text import NamedDiscrete, TextBytes, TextChoices, decode, encode

SMALL = dict(n_steps=8, batch_size=16, n_epochs=1, learning_rate=1e-3, device="cpu", seed=0)


def probabilities(policy: LanguagePolicy, rows: np.ndarray) -> np.ndarray:
    return PolicyAgent(policy).probabilities(rows, {})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A folder with a random Llama of four narrow layers and the tokenizer of SmolLM2."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=4)


def small_ppo(model: str, **settings) -> PPO:
    policy_kwargs = dict(model=model, dtype=torch.float32, trained_layers=2) | settings
    return PPO(LanguagePolicy, make_vec_env(Weather, 2), policy_kwargs=policy_kwargs, **SMALL)


def observations() -> np.ndarray:
    return encode([*WEATHER, WEATHER[0], "Nothing."], 16)


def perturb(policy: LanguagePolicy) -> None:
    """Adapters begin as zero; make them say something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.optimizer.param_groups[0]["params"]:
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def test_probabilities_are_those_of_the_texts(tiny):
    policy = small_ppo(tiny, temperature=2.0, normalization="token").policy
    perturb(policy)
    language_model = policy.language_model
    prompts = [language_model.prompt(INSTRUCTION, text) for text in decode(observations())]
    with torch.no_grad():
        scores = language_model.score(prompts, [policy.action_space.texts] * 4, "token")
    expected = torch.stack([(row.double() / 2).softmax(-1) for row in scores]).numpy()
    np.testing.assert_allclose(probabilities(policy, observations()), expected, atol=1e-5)


def test_evaluating_equals_acting(tiny):
    policy = small_ppo(tiny).policy
    perturb(policy)
    obs = torch.as_tensor(observations())
    with torch.no_grad():
        actions, values, log_probs = policy.forward(obs)
    for mode in (True, False):
        policy.set_training_mode(mode)
        again, log_probs_again, entropy = policy.evaluate_actions(obs, actions)
        torch.testing.assert_close(again, values)
        torch.testing.assert_close(log_probs_again, log_probs)
        assert entropy.shape == (4,) and log_probs_again.requires_grad
    torch.testing.assert_close(policy.predict_values(obs), values)
    torch.testing.assert_close(policy.get_distribution(obs).log_prob(actions), log_probs)


def test_duplicates_count_in_the_gradient(tiny):
    policy = small_ppo(tiny).policy
    perturb(policy)
    obs, actions = torch.as_tensor(observations()), torch.tensor([0, 1, 1, 0])

    def gradients(*parts: list[int]) -> list[torch.Tensor]:
        policy.optimizer.zero_grad()
        for part in parts:
            values, log_probs, _ = policy.evaluate_actions(obs[part], actions[part])
            (log_probs.sum() + values.sum()).backward()
        return [weight.grad.clone() for weight in policy.optimizer.param_groups[0]["params"]]

    for together, apart in zip(gradients([0, 1, 2, 3]), gradients([0], [1], [2], [3]), strict=True):
        torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-3)


class FirstRatio(BaseCallback):
    """Keeps the largest difference between the log-probabilities of acting and of evaluating."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        obs, actions = (torch.as_tensor(part.reshape(16, -1)) for part in (buffer.observations, buffer.actions))
        _, log_probs, _ = self.model.policy.evaluate_actions(obs, actions.flatten())
        self.difference = (log_probs - torch.as_tensor(buffer.log_probs).flatten()).abs().max().item()


def test_an_update_trains_adapters_and_nothing_else(tiny):
    model = small_ppo(tiny)
    policy = model.policy
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    ratio = FirstRatio()
    model.learn(32, callback=ratio)
    assert ratio.difference < 1e-4
    for name, weight in policy.named_parameters():
        assert weight.requires_grad == ("lora" in name or "value_net" in name)
        assert torch.equal(weight, before[name]) != weight.requires_grad, name
        assert weight.requires_grad or weight.grad is None
    assert all(weight.grad.abs().max() > 0 for weight in policy.parameters() if weight.requires_grad)


def test_scores_are_kept_until_the_weights_change(tiny, monkeypatch):
    policy = small_ppo(tiny).policy
    asked = []
    compute = policy._compute
    monkeypatch.setattr(policy, "_compute", lambda rows: asked.append(len(rows)) or compute(rows))
    for _ in range(2):
        first = probabilities(policy, observations())
    policy.load_state_dict(policy.state_dict())
    probabilities(policy, observations())
    perturb(policy)
    assert not np.allclose(probabilities(policy, observations()), first)
    policy.clear_cache()
    probabilities(policy, observations()[:1])
    assert asked == [3, 3, 3, 1]


def test_save_and_load(tiny, tmp_path):
    model = small_ppo(tiny)
    model.learn(16)
    model.save(tmp_path / "model.zip")
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    expected = probabilities(model.policy, observations())
    np.testing.assert_allclose(probabilities(loaded.policy, observations()), expected, atol=1e-6)
    values = [m.policy.predict_values(torch.as_tensor(observations())) for m in (model, loaded)]
    torch.testing.assert_close(*values)
    names = model.policy.state_dict().keys()
    assert all("lora" in name or "value_net" in name or name == "fingerprint" for name in names)
    model.policy.save(str(tmp_path / "policy.pt"))
    alone = LanguagePolicy.load(str(tmp_path / "policy.pt"), device="cpu")
    np.testing.assert_allclose(probabilities(alone, observations()), expected, atol=1e-6)


def test_weights_of_another_base_model_are_refused(tiny):
    policy = small_ppo(tiny).policy
    state = policy.state_dict()
    with pytest.raises(ValueError, match="trained on a base model with fingerprint 0000"):
        policy.load_state_dict({**state, "fingerprint": torch.zeros_like(state["fingerprint"])})
    state.popitem()
    with pytest.raises(ValueError, match="other entries"):
        policy.load_state_dict(state)


def test_the_default_policy_is_small_and_its_adapter_opens_with_peft(tmp_path):
    model = PPO(LanguagePolicy, make_vec_env(Weather, 2), policy_kwargs=dict(dtype=torch.float32), **SMALL)
    model.learn(16)
    assert {weight.dtype for weight in model.policy.parameters()} == {torch.float32}
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < 25e6
    assert b"embed_tokens" not in zipfile.ZipFile(tmp_path / "model.zip").read("policy.pth")
    perturb(model.policy)
    model.policy.save_adapter(tmp_path / "adapter")
    language_model = LanguageModel.load(dtype=torch.float32)
    with warnings.catch_warnings(action="ignore"):
        adapted = PeftModel.from_pretrained(language_model.model, tmp_path / "adapter").eval()
    prompt = language_model.prompt(INSTRUCTION, "Nothing.")
    start, rests = language_model.encode(prompt, model.policy.action_space.texts)
    scores = []
    with torch.no_grad():
        for rest in rests:
            log_probs = adapted(torch.tensor([start + rest])).logits[0].log_softmax(-1)
            scores.append(sum(log_probs[len(start) - 1 + i, token] for i, token in enumerate(rest)))
    expected = torch.stack(scores).double().softmax(-1).numpy()
    np.testing.assert_allclose(probabilities(model.policy, observations()[3:])[0], expected, atol=1e-5)


def test_without_adapters_only_the_value_head_learns(tiny):
    model = small_ppo(tiny, trained_layers=0)
    before = probabilities(model.policy, observations())
    model.learn(16)
    np.testing.assert_array_equal(probabilities(model.policy, observations()), before)
    with pytest.raises(ValueError, match="no adapters"):
        model.policy.save_adapter("nowhere")
    with pytest.raises(ValueError, match="trained_layers=5 must be 0 to 4"):
        small_ppo(tiny, trained_layers=5)


def test_a2c_and_bfloat16(tiny):
    policy_kwargs = dict(model=tiny, dtype=torch.bfloat16, trained_layers=2)
    model = A2C(LanguagePolicy, make_vec_env(Weather, 2), policy_kwargs=policy_kwargs, device="cpu", seed=0)
    model.learn(20)
    trained = model.policy.optimizer.param_groups[0]["params"]
    assert {weight.dtype for weight in trained} == {torch.float32}
    assert probabilities(model.policy, observations()).sum() == pytest.approx(4)


def test_other_spaces_are_refused():
    for observation_space, action_space in (
        (spaces.Box(0, 255, (4,), np.uint8), NamedDiscrete(["go"])),
        (TextBytes(4), spaces.Discrete(2)),
    ):
        with pytest.raises(TypeError, match=r"TextBytes.*NamedDiscrete"):
            LanguagePolicy(observation_space, action_space, lambda _: 1e-3)
    with pytest.raises(ValueError, match="may offer 4 actions"):
        LanguagePolicy(TextChoices(16, 4, 24), spaces.Discrete(3), lambda _: 1e-3)


def test_ppo_learns_to_dress_for_the_weather():
    settings: dict = dict(n_steps=32, batch_size=128, n_epochs=4, learning_rate=1e-3, gamma=0.0, ent_coef=0.01)
    policy_kwargs = dict(dtype=torch.float32, trained_layers=4)
    envs = make_vec_env(Weather, 8, seed=0)
    model = PPO(LanguagePolicy, envs, policy_kwargs=policy_kwargs, **settings, device="cpu", seed=0)
    before = probabilities(model.policy, observations()[:2])
    assert before[1, 1] < 0.5
    model.learn(6 * 8 * 32)
    after = probabilities(model.policy, observations()[:2])
    assert after[0, 0] > 0.9 and after[1, 1] > 0.9
