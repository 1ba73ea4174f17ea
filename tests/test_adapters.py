"""What of a language policy is trained, goes on from a folder, and is remembered only as long as it holds."""

import pytest
import torch
from stable_baselines3 import PPO
from test_language_ppo import make, perturb, trained, weather_observations
from tiny_llama import save_tiny_llama

from astray.agents import LanguageModel, LanguagePPO
from astray.agents.adapters import unfreeze
from astray.agents.policy import LanguagePolicy


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=3)


def test_gradient_checkpointing_changes_nothing_and_recomputes(tiny):
    gradients = []
    for checkpointing in (False, True):
        policy = make(PPO, tiny, policy={"gradient_checkpointing": checkpointing}).policy
        perturb(policy)
        policy.set_training_mode(True)
        calls = []
        layer = policy.language_model.model.base_model.layers[-1].mlp
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        values, log_probs, _ = policy.evaluate_actions(weather_observations(), torch.tensor([0, 1, 0, 1]))
        forward = len(calls)
        (log_probs.sum() + values.sum()).backward()
        gradients.append({name: weight.grad for name, weight in policy.named_parameters() if weight.requires_grad})
        assert (len(calls) > forward) == checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_full_fine_tuning(tiny, tmp_path):
    model = make(LanguagePPO, tiny, policy={"lora_rank": None})
    before = {name: weight.clone() for name, weight in model.policy.named_parameters()}
    model.learn(16)
    for name, weight in model.policy.named_parameters():
        learns = "value_net" in name or "layers.1." in name or "layers.2." in name
        assert torch.equal(weight, before[name]) != learns, name
    model.save(tmp_path / "model.zip")
    loaded = LanguagePPO.load(tmp_path / "model.zip", device="cpu")
    for name, weight in trained(model.policy).items():
        torch.testing.assert_close(trained(loaded.policy)[name], weight)
    whole = make(LanguagePPO, tiny, policy={"lora_rank": None, "trained_layers": 3})
    before = whole.policy.language_model.model.get_input_embeddings().weight.clone()
    whole.learn(16)
    assert not torch.equal(whole.policy.language_model.model.get_input_embeddings().weight, before)
    with pytest.raises(ValueError, match="takes float32"):
        make(PPO, tiny, policy={"lora_rank": None, "dtype": torch.bfloat16})


def test_adapters_go_on_from_a_folder(tiny, tmp_path):
    policy = make(PPO, tiny).policy
    perturb(policy)
    policy.save_adapter(tmp_path / "adapter")
    other = make(PPO, tiny).policy
    other.load_adapter(tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(
            other.logits_and_values(weather_observations())[0], policy.logits_and_values(weather_observations())[0]
        )
    with pytest.raises(ValueError, match="another rank"):
        make(PPO, tiny, policy={"lora_rank": 4}).policy.load_adapter(tmp_path / "adapter")
    with pytest.raises(ValueError, match="holds no adapter"):
        other.load_adapter(tmp_path)
    with pytest.raises(ValueError, match="lora_alpha is 32, not 8"):
        make(PPO, tiny, policy={"lora_alpha": 8}).policy.load_adapter(tmp_path / "adapter")
    make(PPO, save_tiny_llama(tmp_path / "moved", layers=3)).policy.load_adapter(tmp_path / "adapter")
    elsewhere = make(PPO, save_tiny_llama(tmp_path / "elsewhere", layers=3, seed=1)).policy
    with pytest.raises(ValueError, match="base model with fingerprint"):
        elsewhere.load_adapter(tmp_path / "adapter")
    policy.network.save_pretrained(tmp_path / "foreign")  # as PEFT alone writes it
    other.load_adapter(tmp_path / "foreign")
    with pytest.raises(ValueError, match="belongs to the model"):
        elsewhere.load_adapter(tmp_path / "foreign")


def other_vector(policy: LanguagePolicy) -> None:
    policy.load_from_vector(policy.parameters_to_vector() + 0.05)


def other_strength(policy: LanguagePolicy) -> None:
    for part in policy.network.modules():
        if hasattr(part, "set_scale"):
            part.set_scale("default", 3.0)


def other_base(policy: LanguagePolicy) -> None:
    base = policy.language_model.model
    base.load_state_dict({name: weight + 0.02 for name, weight in base.state_dict().items()})


def written_into(policy: LanguagePolicy) -> None:
    for weight in policy.network.parameters():
        weight.data.add_(0.02)
    policy.forget()


@pytest.mark.parametrize("change", [other_vector, other_strength, other_base, written_into])
def test_nothing_is_remembered_of_other_weights(tiny, change):
    obs = weather_observations()
    policies = [make(PPO, tiny).policy for _ in range(2)]
    for policy in policies:
        perturb(policy)
    with torch.no_grad():
        before = policies[0].logits_and_values(obs)[0]  # the other one has nothing to remember
        for policy in policies:
            change(policy)
        found, expected = (policy.logits_and_values(obs)[0] for policy in policies)
    torch.testing.assert_close(found, expected)
    assert (found - before).abs().max() > 1e-3


@torch.no_grad()
def test_adapters_put_in_after_the_first_question_are_heard(tiny):
    prompts, candidates = [f"You are in a room. Cheese: {n} north.\n" for n in (1, 2)], [["go north", "wait"]] * 2
    models = [LanguageModel.load(tiny, torch.float32) for _ in range(2)]
    before = torch.stack(models[0].score(prompts, candidates))  # keeps what the prompts begin with
    for model in models:
        torch.manual_seed(1)
        unfreeze(model.model, 3, 4, 8)
        for name, weight in model.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    found, expected = (torch.stack(model.score(prompts, candidates)) for model in models)
    torch.testing.assert_close(found, expected)
    assert (found - before).abs().max() > 1e-2


def test_weights_put_in_the_place_of_others_are_heard(tiny):
    policy, obs = make(PPO, tiny).policy, weather_observations()
    with torch.no_grad():
        policy.logits_and_values(obs)
        policy.load_state_dict({name: weight.clone() for name, weight in policy.state_dict().items()}, assign=True)
        before = policy.logits_and_values(obs)[1]
        policy.value_net[3].bias.add_(1.0)
        torch.testing.assert_close(policy.logits_and_values(obs)[1], before + 1.0)
