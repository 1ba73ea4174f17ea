"""Missions of MiniGrid and BabyAI in words: what is said is what is in view, no more and no less."""

import sys
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_sb3
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_llama import save_tiny_llama

from astray.agents.policy import LanguagePolicy
from astray.envs import InputError
from astray.envs.minigrid import MissionText, mission_text
from astray.envs.text import NamedDiscrete, TextBytes, decode

try:
    import minigrid.wrappers as wrappers
    from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
    from minigrid.core.grid import Grid
    from minigrid.core.mission import MissionSpace
    from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall
    from minigrid.minigrid_env import MiniGridEnv
except ModuleNotFoundError:
    MiniGridEnv = gym.Env

needs_minigrid = pytest.mark.skipif(MiniGridEnv is gym.Env, reason="needs the package minigrid")
EAST, NORTH = 0, 3
TEXTS = ("turn left", "turn right", "go forward", "pick up", "drop", "open or close", "done")


class Place(MiniGridEnv):
    """A room of 7 by 7 with its walls, the things of ``things`` by cell, and the agent."""

    def __init__(self, things: dict, agent=(3, 5), direction=NORTH, **arguments):
        super().__init__(MissionSpace(lambda: "find the goal"), grid_size=7, max_steps=20, **arguments)
        self.things, self.start, self.facing = things, agent, direction

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        for cell, thing in self.things.items():
            self.grid.set(*cell, thing)
        self.agent_pos, self.agent_dir, self.mission = self.start, self.facing, "find the goal"


def told(env: gym.Env) -> str:
    return decode(env.reset(seed=0)[0][None])[0]


def after(env: gym.Env, *actions: str) -> str:
    """What is told after these actions, by their texts."""
    for action in actions:
        observation = env.step(env.action_space.texts.index(action))[0]
    return decode(observation[None])[0]


@needs_minigrid
def test_a_room_in_words():
    # North is up; A is the agent, who looks north. B red ball, K yellow key, X green box, G goal, L lava, F purple
    # floor, D locked blue door.
    #   # # # # D # #
    #   # G . . . . #
    #   # . . . . F #
    #   # . B . . . #
    #   # L . K . . #
    #   # . . A . X #
    #   # # # # # # #
    things = {
        (2, 3): Ball("red"),
        (3, 4): Key("yellow"),
        (5, 5): Box("green"),
        (1, 1): Goal(),
        (1, 4): Lava(),
        (5, 2): Floor("purple"),
        (4, 0): Door("blue", is_locked=True),
    }
    env = MissionText(Place(things))
    assert told(env) == (
        "Mission: find the goal.\n"
        "You see a yellow key 1 ahead, a green box 2 right, a red ball 2 ahead and 1 left, a green goal 4 ahead and "
        "2 left, a locked blue door 5 ahead and 1 right.\n"
        "Walls: 3 left from 0 to 5 ahead; 3 right from 0 to 5 ahead; 5 ahead from 3 left to 0; "
        "5 ahead from 2 right to 3 right.\n"
        "Purple floor: 3 ahead and 2 right.\n"
        "Lava: 1 ahead and 2 left.\n"
        "You carry nothing."
    )
    assert after(env, "pick up", "turn right") == (
        "Mission: find the goal.\n"
        "You see a green box 2 ahead.\n"
        "Walls: 3 ahead from 3 left to 1 right; 1 right from 0 to 3 ahead.\n"
        "Purple floor: 2 ahead and 3 left.\n"
        "You carry a yellow key."
    )


@needs_minigrid
def test_doors_are_open_closed_or_locked():
    env = MissionText(Place({(3, 4): Door("red"), (2, 5): Wall(), (4, 5): Wall()}))
    assert "You see a closed red door 1 ahead.\n" in told(env)
    assert "You see an open red door 1 ahead.\n" in after(env, "open or close")
    env = MissionText(Place({(3, 4): Door("red", is_locked=True)}))
    assert "You see a locked red door 1 ahead.\n" in told(env)
    assert "You see a locked red door 1 ahead.\n" in after(env, "open or close")


@needs_minigrid
def test_an_empty_view_and_a_pair_of_stretches():
    lava = {(x, 3): Lava() for x in (2, 3, 4)} | {(4, 2): Lava()}
    lines = told(MissionText(Place(lava))).split("\n")
    assert lines[1] == "You see no things."
    assert lines[3] == "Lava: 2 ahead from 1 left to 1 right; 1 right from 2 to 3 ahead."


@needs_minigrid
def test_walls_among_walls_are_left_out():
    env = MissionText(Place({}, agent=(1, 5), see_through_walls=True))  # looks north; all behind the border is wall
    assert told(env).split("\n")[2] == "Walls: 1 left from 0 to 5 ahead; 5 ahead from 1 left to 3 right."


@needs_minigrid
def test_nothing_hidden_is_told():
    barrier = {(x, 3): Wall() for x in range(1, 6)}
    behind = {(2, 1): Ball("red"), (4, 2): Goal()}
    beside = {(1, 6): Door("green")}  # behind the agent's back
    assert told(MissionText(Place(barrier))) == told(MissionText(Place(barrier | behind | beside)))
    directions = {told(MissionText(Place({}, agent=(3, 3), direction=direction))) for direction in range(4)}
    assert len(directions) == 1


@needs_minigrid
@pytest.mark.parametrize(
    "name",
    ["BabyAI-BossLevel-v0", "BabyAI-PutNextS5N2Carrying-v0", "MiniGrid-LavaCrossingS9N2-v0", "MiniGrid-FourRooms-v0"],
)
def test_nothing_in_view_is_left_out(name, capsys):
    env, rng = mission_text(name), np.random.default_rng(0)
    images = {}
    for seed in range(4):
        observation, _ = env.reset(seed=seed)
        for _ in range(60):
            shown = env.env.unwrapped.gen_obs()
            key = decode(observation[None])[0]
            assert shown["mission"] in key
            assert images.setdefault(key, shown["image"].tobytes()) == shown["image"].tobytes()
            observation, _, terminated, _, _ = env.step(rng.integers(6))
            if terminated:
                break
    assert len(images) > 20


@needs_minigrid
def test_spaces():
    env = mission_text("BabyAI-GoToRedBallNoDists-v0")
    assert isinstance(env.observation_space, TextBytes)
    assert env.action_space == NamedDiscrete(TEXTS)
    assert all(f"\n{text}: " in env.observation_space.instruction for text in TEXTS)
    env = mission_text("BabyAI-GoToRedBallNoDists-v0", actions=("forward", "left"), max_length=512)
    assert env.action_space == NamedDiscrete(["go forward", "turn left"])
    assert "pick up" not in env.observation_space.instruction
    assert env.reset(seed=0)[0].shape == (512,)
    assert mission_text("MiniGrid-Dynamic-Obstacles-5x5-v0").action_space.texts == TEXTS[:3]


@needs_minigrid
def test_actions_are_those_of_the_texts():
    env = MissionText(Place({}), actions=("forward", "left"))
    env.reset(seed=0)
    env.step(0)
    assert tuple(env.unwrapped.agent_pos) == (3, 4)
    env.step(np.int64(1))
    assert env.unwrapped.agent_dir == (NORTH - 1) % 4


@needs_minigrid
def test_rewards_and_ends_are_the_environments_own():
    env = MissionText(Place({(3, 4): Goal()}))
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(2)
    assert (reward, terminated, truncated) == (1 - 0.9 / 20, True, False)


@needs_minigrid
def test_the_default_length_holds_every_view():
    env = MissionText(Place({}))
    image = np.empty((7, 7, 3), np.uint8)
    image[:] = OBJECT_TO_IDX["door"], COLOR_TO_IDX["purple"], STATE_TO_IDX["closed"]
    assert len(env.tell(image, "m" * 800)) <= env.observation_space.max_length


@needs_minigrid
def test_the_checkers_of_gymnasium_and_stable_baselines3_pass():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(mission_text("BabyAI-GoToLocal-v0"), skip_render_check=True)  # pictures are MiniGrid's
    check_for_sb3(mission_text("BabyAI-GoToLocal-v0"))


@needs_minigrid
def test_an_id_of_ones_own():
    gym.register("test/MissionText-v0", entry_point="astray.envs.minigrid:mission_text")
    try:
        env = gym.make("test/MissionText-v0", mission_env="BabyAI-GoToObj-v0", actions=("left", "right", "forward"))
        assert env.action_space == NamedDiscrete(TEXTS[:3])
        assert decode(env.reset(seed=0)[0][None])[0].startswith("Mission: go to ")
    finally:
        del gym.registry["test/MissionText-v0"]


@needs_minigrid
def test_a_seed_decides_everything():
    def play(seed: int) -> list[str]:
        env, rng = mission_text("BabyAI-GoToLocal-v0"), np.random.default_rng(0)
        texts = [env.reset(seed=seed)[0]]
        for _ in range(30):
            observation, _, terminated, truncated, _ = env.step(rng.integers(7))
            texts.append(env.reset()[0] if terminated or truncated else observation)
        return decode(np.stack(texts))

    assert play(7) == play(7) != play(8)


@needs_minigrid
def test_what_is_not_allowed_is_said():
    place = Place({})
    with pytest.raises(InputError, match="actions='jump' is not one of 'left', 'right'"):
        MissionText(place, actions=("left", "jump"))
    with pytest.raises(InputError, match=r"actions=\('left', 'left'\) must name at least one action, and none twice"):
        MissionText(place, actions=("left", "left"))
    with pytest.raises(InputError, match="tells MiniGrid's image and mission"):
        MissionText(gym.make("CartPole-v1"))
    with pytest.raises(InputError, match=r"max_length=64 is too small for a text of [0-9]+ bytes"):
        MissionText(place, max_length=64).reset(seed=0)
    env = MissionText(place)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"action=-1 must lie in 0\.\.6"):
        env.step(-1)


@needs_minigrid
@pytest.mark.parametrize("wrapper", ["FullyObsWrapper", "RGBImgPartialObsWrapper", "OneHotPartialObsWrapper"])
def test_another_image_is_refused(wrapper):
    env = MissionText(getattr(wrappers, wrapper)(Place({})))
    with pytest.raises(InputError, match="MissionText reads MiniGrid's"):
        env.reset(seed=0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'astray\[minigrid\]'"):
        mission_text()


@needs_minigrid
def test_a_language_model_learns_from_it(tmp_path):
    envs = DummyVecEnv([lambda: mission_text("BabyAI-GoToRedBallNoDists-v0")] * 2)
    settings = dict(model=save_tiny_llama(tmp_path), dtype=torch.float32, trained_layers=1)
    ppo = PPO(LanguagePolicy, envs, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu", policy_kwargs=settings)
    before = [weight.clone() for weight in ppo.policy.parameters() if weight.requires_grad]
    ppo.learn(32)
    learned = [weight for weight in ppo.policy.parameters() if weight.requires_grad]
    assert all(torch.isfinite(weight).all() for weight in learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))
