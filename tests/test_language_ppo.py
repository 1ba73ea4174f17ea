"""LanguagePPO: the same update as PPO, with fewer passes; and what a language policy can be asked to do in it."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tiny_llama import save_tiny_llama
from torch import nn
from weather import WEATHER, Wardrobe, Weather

from astray.agents import LanguagePPO
from astray.agents.acting import PolicyAgent
from astray.agents.language_model import LanguageModel
from astray.agents.policy import IMPOSSIBLE, LanguagePolicy
from astray.agents.self_check import SelfCheckError, self_check
from astray.envs.text import encode

SMALL = dict(n_steps=8, batch_size=16, n_epochs=1, learning_rate=1e-3, device="cpu", seed=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=3)


def make(algorithm: type[PPO], model: str, env=Weather, env_kwargs=None, policy=None, **settings):
    policy_kwargs = dict(model=model, dtype=torch.float32, trained_layers=2) | (policy or {})
    envs = make_vec_env(env, 2, env_kwargs=env_kwargs)
    return algorithm(LanguagePolicy, envs, policy_kwargs=policy_kwargs, **(SMALL | settings))


def perturb(policy: LanguagePolicy) -> None:
    """Adapters begin as zero; make them say something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.optimizer.param_groups[0]["params"]:
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def trained(policy: LanguagePolicy) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.named_parameters() if weight.requires_grad}


def weather_observations() -> torch.Tensor:
    return torch.as_tensor(encode([*WEATHER, "Nothing.", WEATHER[0]], 16))


@pytest.mark.parametrize("settings", [{}, {"clip_range_vf": 0.1, "ent_coef": 0.1, "normalize_advantage": False}])
def test_an_update_is_that_of_ppo_whatever_the_micro_batches(tiny, settings):
    found = []
    for algorithm, more in ((PPO, {}), (LanguagePPO, {}), (LanguagePPO, {"micro_batch_size": 1})):
        model = make(algorithm, tiny, **settings, **more)
        perturb(model.policy)
        before = trained(model.policy)
        model.learn(16)
        found.append({name: weight - before[name] for name, weight in trained(model.policy).items()})
    for other in found[1:]:
        for name, change in found[0].items():
            torch.testing.assert_close(other[name], change, atol=2e-6, rtol=1e-3)
    assert max(change.abs().max() for change in found[0].values()) > 1e-4


class Computed(BaseCallback):
    """Counts the observations that are computed with a gradient, and the passes without one."""

    def _on_training_start(self) -> None:
        self.with_gradient, self.passes = 0, []
        policy, compute = self.model.policy, self.model.policy._compute

        def counted(rows):
            if torch.is_grad_enabled():
                self.with_gradient += len(rows)
            else:
                self.passes.append(len(rows))
            return compute(rows)

        policy._compute = counted

    def _on_step(self) -> bool:
        return True


def test_an_epoch_computes_each_distinct_observation_once(tiny):
    model, computed = make(LanguagePPO, tiny, n_steps=16, batch_size=16, n_epochs=3, micro_batch_size=1), Computed()
    model._checked = True
    model.learn(32, callback=computed)
    assert computed.with_gradient == 3 * len(WEATHER)


def test_few_observations_are_in_every_minibatch(tiny):
    model, computed = make(LanguagePPO, tiny, n_steps=16, batch_size=8, n_epochs=3), Computed()
    model._checked = True
    steps = []
    step = model._step
    model._step = lambda parts: steps.append(sum(len(chosen) for _, chosen in parts)) or step(parts)
    model.learn(32, callback=computed)
    assert computed.with_gradient == 3 * 4 * len(WEATHER)
    assert len(steps) == 3 * 4 and sum(steps) == 3 * 32 and min(steps) >= 6


def test_minibatches_hold_all_steps_once(tiny):
    model = make(LanguagePPO, tiny, env=Wardrobe, n_steps=32, batch_size=16, micro_batch_size=3)
    steps = []
    losses = model._losses
    model._losses = lambda group, chosen, *more: steps.append(len(chosen)) or losses(group, chosen, *more)
    model.learn(64)
    assert sum(steps) == 64
    groups, parts, repeats = model._groups(next(model.rollout_buffer.get()))
    assert parts == 4 and repeats == 1
    assert max(len(set(model.policy.rows(group.observations))) for group in groups) <= 3


@pytest.mark.parametrize("algorithm", [PPO, LanguagePPO])
def test_truncated_episodes_are_bootstrapped(tiny, algorithm):
    model, computed = make(algorithm, tiny, env_kwargs={"truncate": True}), Computed()
    model.learn(16, callback=computed)
    # the first rollout, with the value head as it was: reward plus the discounted value of the last observation
    fresh = make(algorithm, tiny, env_kwargs={"truncate": True})
    buffer = model.rollout_buffer
    values = (
        fresh.policy.predict_values(torch.as_tensor(buffer.observations.reshape(16, -1))).detach().numpy().flatten()
    )
    wins = buffer.rewards.T.flatten() - fresh.gamma * values  # the buffer has turned its observations, env by env
    np.testing.assert_allclose(wins, wins.round(), atol=1e-5)
    assert set(wins.round().tolist()) <= {0.0, 1.0}


def test_values_of_truncated_episodes_are_computed_together(tiny):
    model = make(LanguagePPO, tiny, env_kwargs={"truncate": True})
    infos = [{"TimeLimit.truncated": True, "terminal_observation": row.numpy()} for row in weather_observations()]
    asked = []
    compute = model.policy._compute
    model.policy._compute = lambda rows: asked.append(len(rows)) or compute(rows)
    model._setup_learn(16)
    model._update_info_buffer(infos, np.ones(4, bool))
    for info in infos:
        model.policy.predict_values(model.policy.obs_to_tensor(info["terminal_observation"])[0].detach())
    assert asked[0] == 3


def test_more_groups_than_observations_are_not_made(tiny):
    model = make(LanguagePPO, tiny, env=Wardrobe, n_steps=5, batch_size=2, micro_batch_size=1)
    steps = []
    step = model._step
    model._step = lambda minibatch: steps.append(sum(len(chosen) for _, chosen in minibatch)) or step(minibatch)
    model.learn(10)
    assert sum(steps) == 10


def test_target_kl_stops_before_the_step(tiny):
    model = make(LanguagePPO, tiny, n_epochs=5, target_kl=1e-12)
    model.learn(16)
    assert model._n_updates == 2, "at a ratio of 1 there is nothing to stop for"
    other = make(LanguagePPO, tiny, n_epochs=1)
    other.learn(16)
    for name, weight in trained(model.policy).items():
        torch.testing.assert_close(weight, trained(other.policy)[name])


def test_in_bfloat16_ratios_begin_at_one(tiny):
    model = make(
        LanguagePPO, tiny, env=Wardrobe, policy={"dtype": torch.bfloat16}, n_steps=32, batch_size=64, micro_batch_size=2
    )
    model._checked = True  # such a small random model prefers other actions than in float32
    perturb(model.policy)
    model.learn(64)
    assert model.logger.name_to_value["train/approx_kl"] == 0
    assert model.logger.name_to_value["train/clip_fraction"] == 0


def test_divergence_from_the_model_without_adapters(tiny):
    far, near = (make(LanguagePPO, tiny, base_kl_coef=coef, n_epochs=30) for coef in (0.0, 100.0))
    for model in (far, near):
        obs = weather_observations()
        with torch.no_grad():
            base = model.policy.logits_and_values(obs)[0]
        model.learn(16)
        torch.testing.assert_close(model.policy.base_logits(obs), base)
    distance = [(m.policy.logits_and_values(obs)[0].softmax(-1) - base.softmax(-1)).abs().max() for m in (far, near)]
    assert distance[1] < distance[0] / 3
    assert far.logger.name_to_value.get("train/base_kl") is None
    assert near.logger.name_to_value["train/base_kl"] > 0


def test_the_base_is_unknown_where_its_own_weights_learn(tiny):
    with pytest.raises(ValueError, match="lora_rank=None"):
        make(LanguagePPO, tiny, policy={"lora_rank": None}, base_kl_coef=0.1)


@pytest.mark.parametrize("algorithm", [PPO, LanguagePPO])
def test_the_value_head_has_a_rate_of_its_own(tiny, algorithm):
    model = make(algorithm, tiny, policy={"head_rate": 10.0})
    before = trained(model.policy)
    model.learn(16)  # one step of Adam moves every weight by about its rate
    moved = {name: (weight - before[name]).abs().max().item() for name, weight in trained(model.policy).items()}
    assert max(step for name, step in moved.items() if "value_net" in name) == pytest.approx(1e-2, rel=0.1)
    assert max(step for name, step in moved.items() if "lora" in name) == pytest.approx(1e-3, rel=0.1)
    assert {group["lr"] for group in model.policy.optimizer.param_groups} == {1e-3}


class Diary(Weather):
    """No day is like another."""

    day = 0

    def observe(self) -> np.ndarray:
        Diary.day += 1
        return encode([f"Day {Diary.day}."], 16)[0]


def test_small_minibatches_are_computed_once(tiny):
    counted = Computed()
    make(LanguagePPO, tiny, env=Diary, n_steps=32, batch_size=4, n_epochs=1).learn(64, callback=counted)
    assert 64 <= counted.with_gradient <= 64 + 4, "an epoch, and the self-check"


def test_an_update_that_is_not_finite_is_not_taken(tiny):
    class Broken(Weather):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, float("nan"), *rest

    model = make(LanguagePPO, tiny, env=Broken)
    before = trained(model.policy)
    with pytest.raises(ValueError, match="a reward is not finite"):
        model.learn(16)
    for name, weight in trained(model.policy).items():
        torch.testing.assert_close(weight, before[name])


def test_choices_that_vary(tiny):
    model = make(LanguagePPO, tiny, env=Wardrobe, n_steps=32, batch_size=64, n_epochs=2)
    model.learn(128)  # the environment accepts possible actions only
    policy, space = model.policy, model.observation_space
    told = [space.encode(WEATHER[0], ["stay"]), space.encode(WEATHER[0], ["stay", "take the hat", "go"], [1, 0, 1])]
    obs = policy.obs_to_tensor({key: np.stack([row[key] for row in told]) for key in space})[0]
    distribution = policy.get_distribution(obs).distribution
    assert distribution.probs[0].tolist() == [1, 0, 0, 0]
    assert distribution.probs[1, [1, 3]].tolist() == [0, 0] and distribution.probs[1].sum().item() == pytest.approx(1)
    assert distribution.entropy().isfinite().all()
    with torch.no_grad():
        prompt = policy.language_model.prompt(space.instruction, WEATHER[0])
        expected = policy.language_model.score([prompt], [["stay", "go"]])[0]
    torch.testing.assert_close(policy.logits_and_values(obs)[0][1, [0, 2]], expected, atol=1e-4, rtol=0)
    policy.optimizer.zero_grad()
    _, log_probs, entropy = policy.evaluate_actions(obs, torch.tensor([0, 2]))
    (log_probs.sum() + entropy.sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in policy.network.parameters() if weight.requires_grad)
    assert policy.logits_and_values(obs)[0].min() == IMPOSSIBLE


def test_choices_are_one_text_each():
    space = Wardrobe().observation_space
    for wrong, said in (
        (("It rains.", list("abcde")), "5 actions do not fit into max_actions=4"),
        (("It rains.", ["a" * 25]), "25 bytes does not fit into max_action_length=24"),
        (("It rains all day long.", ["a"]), "22 bytes does not fit into max_length=16"),
        (("It rains.", []), "at least one action must be possible"),
    ):
        with pytest.raises(ValueError, match=said):
            space.encode(*wrong)


def test_persona_comes_before_the_instruction(tiny):
    policy = make(PPO, tiny, policy={"persona": "You are a sailor."}).policy
    (row,) = policy.rows(weather_observations()[:1])
    prompt = policy.language_model.tokenizer.decode(policy.question(row).prompt)
    assert "You are a sailor.\nDress for the weather." in prompt


def test_only_language_policies(tiny):
    with pytest.raises(ValueError, match="must be a LanguagePolicy"):
        LanguagePPO("MlpPolicy", "CartPole-v1", device="cpu")
    for wrong, said in (({"micro_batch_size": 0}, "micro_batch_size=0"), ({"base_kl_coef": -1}, "base_kl_coef=-1")):
        with pytest.raises(ValueError, match=said):
            make(LanguagePPO, tiny, **wrong)
    for wrong, said in (
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": 1e-8}, "temperature=1e-08"),
        ({"lora_rank": 0}, "lora_rank=0"),
        ({"head_rate": 0}, "head_rate=0"),
    ):
        with pytest.raises(ValueError, match=said):
            make(PPO, tiny, policy=wrong)


def test_the_self_check_finds_dropout(tiny):
    policy = make(PPO, tiny).policy
    policy.set_training_mode(True)
    obs, actions = weather_observations(), torch.tensor([0, 1, 0, 1])
    self_check(policy, obs, actions)
    mlp = policy.language_model.model.base_model.layers[-1].mlp
    mlp.down_proj = nn.Sequential(mlp.down_proj, nn.Dropout(0.5).train())
    policy.clear_cache()
    with pytest.raises(SelfCheckError, match="as dropout does"):
        self_check(policy, obs, actions)


def test_the_self_check_finds_what_would_not_learn(tiny):
    obs, actions = weather_observations(), torch.tensor([0, 1, 0, 1])
    for part, said in (("network", "probabilities of actions"), ("value_net", "the values")):
        policy = make(PPO, tiny).policy
        policy.set_training_mode(True)
        module = policy.language_model.model.base_model.layers[-1].mlp if part == "network" else policy.value_net[2]
        module.register_forward_hook(lambda _module, _inputs, output: output.detach())
        with pytest.raises(SelfCheckError, match=f"no gradient of .*{said}"):
            self_check(policy, obs, actions)


def test_the_self_check_compares_with_float32(tiny, monkeypatch):
    policy = make(PPO, tiny, policy={"dtype": torch.bfloat16}).policy
    policy.set_training_mode(True)
    obs, actions = weather_observations(), torch.tensor([0, 1, 0, 1])
    self_check(policy, obs, actions)
    asked = policy.logits_and_values
    monkeypatch.setattr(policy, "logits_and_values", lambda obs: (-asked(obs)[0], asked(obs)[1]))
    with pytest.warns(UserWarning, match=r"in torch\.bfloat16, .* prefers another action than in float32 on"):
        self_check(policy, obs, actions)
    monkeypatch.setattr("astray.agents.self_check.free_memory", lambda device: 1000)
    with pytest.warns(UserWarning, match="too little memory to compare"):
        self_check(policy, obs, actions)


def test_scores_that_are_no_numbers_name_the_prompt(tiny):
    policy = make(PPO, tiny).policy
    with torch.no_grad():
        policy.optimizer.param_groups[0]["params"][0].fill_(torch.nan)
    with pytest.raises(ValueError, match=r"(?s)after the prompt .*It rains.* are NaN"):
        PolicyAgent(policy).probabilities(weather_observations()[:1].numpy(), {})


def test_model_files_are_checked_before_loading(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("astray.agents.weights.free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match=r"weights, 0\.0 GiB as torch\.float32, and 0\.0 GiB are free on cpu: use"):
        LanguageModel.load(tiny, dtype=torch.float32)
    monkeypatch.undo()
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).symlink_to(f"{tiny}/{name}")
    with pytest.raises(ValueError, match="no tokenizer that transformers can read"):
        LanguageModel.load(str(tmp_path / "bare"), dtype=torch.float32)
