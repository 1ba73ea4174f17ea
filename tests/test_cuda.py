"""A language model on a GPU says and learns what it does on the CPU; skipped where there is no GPU."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from test_study import LANGUAGE
from tiny_llama import save_tiny_llama
from weather import WEATHER, Wardrobe, Weather

from astray.agents import LanguageFeatures, LanguagePPO
from astray.agents.language_model import LanguageModel, faster_dtype
from astray.agents.policy import LanguagePolicy
from astray.envs.text import encode
from astray.experiments.cell import run_cell
from astray.experiments.run import run_study

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

PROMPTS = ["The mouse is here, the cheese is three steps north.\n", "The mouse is here, and nothing else.\n"]
CANDIDATES = [["go north", "go south", "eat"], ["go north", "wait"]]
SMALL = dict(n_steps=8, batch_size=16, n_epochs=1, learning_rate=1e-3, seed=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=3)


def on(device: str, algorithm: type, model: str, env=Weather, dtype=torch.float32, **policy):
    kwargs = dict(model=model, dtype=dtype, trained_layers=2) | policy
    settings = {name: value for name, value in SMALL.items() if algorithm is not A2C or "_" not in name}
    return algorithm(LanguagePolicy, make_vec_env(env, 2), policy_kwargs=kwargs, device=device, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_model_says_the_same(dtype):
    precise, model = LanguageModel.load(dtype=torch.float32), LanguageModel.load(dtype=dtype, device="cuda")
    assert model.model.device.type == "cuda"
    tolerance = 1e-3 if dtype == torch.float32 else 0.3
    scores = zip(precise.score(PROMPTS, CANDIDATES), model.score(PROMPTS, CANDIDATES), strict=True)
    for expected, found in scores:
        torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=0)
    if dtype == torch.float32:
        torch.testing.assert_close(model.embed(PROMPTS).cpu(), precise.embed(PROMPTS), atol=1e-2, rtol=1e-2)
        greedy = dict(max_new_tokens=6, temperature=0.0)
        assert model.generate(PROMPTS, **greedy) == precise.generate(PROMPTS, **greedy)
    answers = model.generate(PROMPTS, constraint="north|south", rng=np.random.default_rng(0))
    assert set(answers) <= {"north", "south"}


@pytest.mark.parametrize("env", [Weather, Wardrobe])
def test_an_update_is_that_on_the_cpu(tiny, env):
    changed = []
    for device in ("cpu", "cuda"):
        model = on(device, LanguagePPO, tiny, env)
        before = {name: weight.detach().cpu().clone() for name, weight in model.policy.named_parameters()}
        rollout_on_the_cpu(model)
        model.train()
        after = {name: weight.detach().cpu() for name, weight in model.policy.named_parameters()}
        changed.append({name: after[name] - before[name] for name in before})
    assert max(change.abs().max() for change in changed[0].values()) > 1e-4
    for name, change in changed[0].items():
        # Adam's first step has the size of the rate, whatever that of the gradient: signs of the smallest differ
        close = (changed[1][name] - change).abs() < 1e-5
        assert close.float().mean() > 0.99, name


def rollout_on_the_cpu(model: PPO) -> None:
    """The same steps whatever the device, which draws actions with a generator of its own."""
    model._setup_learn(16)
    buffer, rng, obs = model.rollout_buffer, np.random.default_rng(0), model.env.reset()
    for _ in range(model.n_steps):
        actions = np.zeros((2, 1), np.int64)
        with torch.no_grad():
            values, log_probs, _ = model.policy.evaluate_actions(
                model.policy.obs_to_tensor(obs)[0], torch.as_tensor(actions[:, 0], device=model.device)
            )
        buffer.add(obs, actions, rng.normal(size=2), np.ones(2), values, log_probs)
        obs = model.env.step(actions[:, 0])[0]
    buffer.compute_returns_and_advantage(torch.zeros(2), np.ones(2))


@pytest.mark.parametrize("algorithm", [PPO, A2C, LanguagePPO])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_saving_and_loading(tiny, tmp_path, algorithm, dtype):
    model = on("cuda", algorithm, tiny, dtype=dtype).learn(64)
    observations = encode(WEATHER, 16)
    model.save(tmp_path / "model.zip")
    for device in ("cuda", "cpu"):
        loaded = algorithm.load(tmp_path / "model.zip", device=device)
        assert loaded.policy.device.type == device
        found = loaded.policy.get_distribution(loaded.policy.obs_to_tensor(observations)[0]).distribution.probs
        expected = model.policy.get_distribution(model.policy.obs_to_tensor(observations)[0]).distribution.probs
        torch.testing.assert_close(found.cpu(), expected.cpu(), atol=1e-4 if dtype == torch.float32 else 0.05, rtol=0)


def test_what_was_computed_elsewhere_is_not_used(tiny):
    policy = on("cpu", LanguagePPO, tiny).policy
    obs, _ = policy.obs_to_tensor(encode(WEATHER, 16))
    with torch.no_grad():
        expected, base = policy.logits_and_values(obs)[0], policy.base_logits(obs)
        for device in ("cuda", "cpu"):
            policy.to(device)
            torch.testing.assert_close(policy.logits_and_values(obs.to(device))[0].cpu(), expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(policy.base_logits(obs.to(device)).cpu(), base, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:You are trying to run PPO on the GPU")
def test_frozen_features(tiny):
    kwargs = dict(features_extractor_class=LanguageFeatures, features_extractor_kwargs=dict(model=tiny))
    found = []
    for device in ("cpu", "cuda"):
        model = PPO("MlpPolicy", make_vec_env(Weather, 2), policy_kwargs=kwargs, device=device, **SMALL)
        obs, _ = model.policy.obs_to_tensor(encode(WEATHER, 16))
        found.append(model.policy.extract_features(obs).detach().cpu())
        assert model.learn(32)
    torch.testing.assert_close(*found, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("learns", [{"lora_rank": None, "trained_layers": 3}, {"gradient_checkpointing": True}])
def test_other_ways_to_train(tiny, learns):
    assert on("cuda", LanguagePPO, tiny, **learns).learn(32)


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    arm = replace(LANGUAGE.arms[0], settings=LANGUAGE.arms[0].settings | {"device": "cuda"})
    study = replace(LANGUAGE, arms=(arm,))
    (cell,) = study.cells()
    run_study(study, tmp_path / "whole", jobs=1)

    class KilledError(Exception):
        pass

    def kill(steps: int) -> None:
        if steps >= 64:
            raise KilledError

    folder = tmp_path / "killed"
    folder.mkdir()
    for part in ("rows", "timings", "episodes", "maps"):
        (folder / part).mkdir()
    (folder / "environment.json").write_text((tmp_path / "whole" / "environment.json").read_text())
    with pytest.raises(KilledError):
        run_cell(study, cell, folder, kill)
    steps: list[int] = []
    run_cell(study, cell, folder, steps.append)
    assert steps[0] == 32
    file = f"rows/{cell.name}.parquet"
    whole, killed = pd.read_parquet(tmp_path / "whole" / file), pd.read_parquet(folder / file)
    assert_frame_equal(whole, killed)


def test_large_products_are_in_bfloat16():
    assert faster_dtype("cuda") == torch.bfloat16
