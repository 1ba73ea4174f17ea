"""A corner that is not shown, features of a frozen language model, and the study of both."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from tiny_llama import save_tiny_llama
from weather import INSTRUCTION, WEATHER, Wardrobe, Weather

from astray.agents import LanguageFeatures, LanguageModel
from astray.envs.cheese_corner import CheeseCorner
from astray.envs.text import decode, encode
from astray.experiments.cell import make_model
from astray.experiments.checkpoint import load_checkpoint
from astray.experiments.run import run_study
from astray.experiments.selection import studies
from astray.experiments.what_is_shown import FROZEN, STUDY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=2)


@pytest.mark.parametrize("observation", ["bytes", "planes", "egocentric"])
def test_a_corner_that_is_not_shown_is_all_that_is_missing(observation):
    shown, hidden = (CheeseCorner(64, observation=observation, shift=1.0, corner_shown=s) for s in (True, False))
    actions = np.arange(64) % 4
    for world in (shown, hidden):
        world.reset(seed=0)
        world.step(actions)
    full, rest = shown.observe(), hidden.observe()
    if observation == "bytes":
        for told, left in zip(decode(full), decode(rest), strict=True):
            (cheese,) = [part for part in told.split(". ") if "Cheese" in part]
            assert left.rstrip(".") == cheese.rstrip(".") and "corner" not in left
    else:
        assert full[:, -1].any() and not rest[:, -1].any()
        np.testing.assert_array_equal(full[:, :-1], rest[:, :-1])
    for world in (shown, hidden):
        world.step((actions + 1) % 4)
    np.testing.assert_array_equal(shown.first_visit, hidden.first_visit)


def test_a_map_shows_the_corner():
    with pytest.raises(ValueError, match="corner_shown=False: a map shows the corner"):
        CheeseCorner(style="map", corner_shown=False)


def test_features_are_what_the_model_makes_of_the_text(tiny):
    space = Weather().observation_space
    extractor = LanguageFeatures(space, tiny)
    rows = torch.as_tensor(encode([*WEATHER, WEATHER[0]], space.max_length)).float()  # as Stable-Baselines3 gives them
    model = LanguageModel.load(tiny, torch.float32)
    expected = model.embed([model.prompt(INSTRUCTION, text) for text in [*WEATHER, WEATHER[0]]])
    asked = []
    read = extractor._read
    extractor._read = lambda rows, device: asked.append(len(rows)) or read(rows, device)
    for _ in range(2):
        torch.testing.assert_close(extractor(rows), extractor.norm(expected))
    assert asked == [2], "each text is read once"
    assert [name for name, _ in extractor.named_parameters()] == ["norm.weight", "norm.bias"]


def test_a_cell_with_frozen_features_is_kept_and_goes_on(tiny, tmp_path):
    frozen = {"features_extractor_class": LanguageFeatures, "features_extractor_kwargs": {"model": tiny}}
    settings = dict(n_steps=8, batch_size=16, n_epochs=1, policy_kwargs=frozen)
    few = dict(test_ambiguous=2, test_distinguishing=2, timing_ambiguous=1, timing_distinguishing=1)
    arm = replace(FROZEN, settings=settings, num_envs=4, steps=64, test_every=32, train_shifts=(0.0,), seeds=1)
    study = replace(STUDY, arms=(arm,), **few)
    run_study(study, tmp_path, jobs=1)
    (cell,) = study.cells()
    model = make_model(study, cell, tmp_path)
    rows, _ = load_checkpoint(tmp_path / "checkpoints" / cell.name, model)
    assert model.num_timesteps == 64 and set(rows["step"]) == {0, 32}


def test_features_of_another_model_are_refused(tiny, tmp_path):
    space = Weather().observation_space
    trained = LanguageFeatures(space, tiny).state_dict()
    LanguageFeatures(space, tiny).load_state_dict(trained)
    with pytest.raises(ValueError, match="trained on a base model with fingerprint"):
        LanguageFeatures(space, save_tiny_llama(tmp_path, seed=1)).load_state_dict(trained)


def test_a_policy_on_features_learns_and_is_saved_without_the_model(tmp_path):
    extractor = dict(features_extractor_class=LanguageFeatures)  # a random model's features would be nearly equal
    settings: dict = dict(n_steps=32, batch_size=64, learning_rate=1e-3, gamma=0.0, device="cpu", seed=0)
    # once every answer is right, all that normalised advantages hold is noise, and the policy falls apart
    settings["normalize_advantage"] = False
    model = PPO("MlpPolicy", make_vec_env(Weather, 8, seed=0), policy_kwargs=extractor, **settings)
    model.learn(4 * 8 * 32)
    rows = encode(WEATHER, model.observation_space.max_length)
    assert model.predict(rows, deterministic=True)[0].tolist() == [0, 1]
    model.save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").stat().st_size < 2e6
    loaded = PPO.load(tmp_path / "model.zip", device="cpu")
    assert loaded.predict(rows, deterministic=True)[0].tolist() == [0, 1]


def test_features_are_of_texts():
    with pytest.raises(ValueError, match="LanguageFeatures reads TextBytes"):
        LanguageFeatures(Wardrobe().observation_space)


def test_the_study_trains_all_on_the_same_levels_with_the_same_budget():
    assert "what-is-shown" in studies()
    assert len(STUDY.arms) == 6
    assert {arm.train_shifts for arm in STUDY.arms} == {(0.0, 0.03, 0.1, 0.3)}
    assert {(arm.steps, arm.num_envs, arm.settings["n_steps"]) for arm in STUDY.arms} == {(8192, 8, 64)}
    assert [arm.arguments.get("corner_shown", True) for arm in STUDY.arms] == [True] * 3 + [False] * 3
