"""Games of TextWorld: what is told, which commands there are, and what they earn."""

import importlib.util
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_sb3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from tiny_llama import save_tiny_llama

from astray.agents.policy import LanguagePolicy
from astray.envs import InputError
from astray.envs.text import TextChoices
from astray.envs.textworld import TextWorldEnv, generate_game, printable

needs_textworld = pytest.mark.skipif(
    importlib.util.find_spec("textworld") is None, reason="needs the package textworld"
)
KITCHEN = "Objective: Bring light.\n-= Kitchen =-\nA small kitchen.\n"
GARDEN = "Objective: Bring light.\n-= Garden =-\nA garden full of tables.\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> str:
    """A game made by hand: an apple in the kitchen, a lamp in the garden to its east.

    Going to the garden scores 2 and taking the lamp 3, which wins; eating the apple loses.
    """
    import textworld
    from textworld.generator.game import Event, Quest

    options = textworld.GameOptions()
    options.seeds, options.path = 0, str(tmp_path_factory.mktemp("home") / "tw-home.z8")
    maker = textworld.GameMaker(options)
    kitchen, garden = maker.new_room("kitchen"), maker.new_room("garden")
    apple, lamp = maker.new("f", "apple"), maker.new("o", "lamp")
    maker.connect(kitchen.east, garden.west)
    kitchen.add(apple)
    garden.add(lamp)
    maker.set_player(kitchen)
    arrived, lit, eaten = (
        Event(conditions={maker.new_fact(*fact)})
        for fact in (("at", maker.player, garden), ("in", lamp, maker.inventory), ("eaten", apple))
    )
    maker.quests = [Quest(win_events=[arrived], reward=2), Quest(win_events=[lit], fail_events=[eaten], reward=3)]
    game = maker.build()
    game.objective = "Bring light."
    game.infos[kitchen.id].desc, game.infos[garden.id].desc = "A small kitchen.", "A garden full of tables."
    return textworld.generator.compile_game(game, options)


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("generated")
    return [generate_game(folder, seed, rooms=2, objects=4, quest_length=2) for seed in (0, 1)]


def read(env: TextWorldEnv, observation: dict) -> tuple[str, dict[int, str]]:
    """The text, and the commands by number."""
    space = env.observation_space
    return space.decode(np.concatenate([observation[key] for key in space.KEYS]))


def play(env: TextWorldEnv, *commands: str) -> tuple:
    """What the last of these commands led to."""
    _, info = env.reset(seed=0)
    for command in commands:
        step = env.step(info["action_texts"].index(command))
        info = step[-1]
    return step


@needs_textworld
def test_a_game_in_words(home):
    env = TextWorldEnv(home)
    observation, info = env.reset(seed=0)
    commands = ("examine apple", "go east", "inventory", "look", "take apple")
    assert read(env, observation) == (
        KITCHEN + "There is an apple on the floor.\nYou are carrying nothing.",
        dict(enumerate(commands)),
    )
    scores = {"score": 0, "max_score": 5, "won": False, "lost": False}
    assert info == {"action_texts": commands, "game": home, **scores}

    observation, reward, terminated, truncated, info = play(env, "take apple")
    commands = ("drop apple", "eat apple", "examine apple", "go east", "inventory", "look")
    assert read(env, observation) == (
        KITCHEN + "You are carrying: an apple.\nYou pick up the apple from the ground.",
        dict(enumerate(commands)),
    )
    assert (reward, terminated, truncated, info["action_texts"]) == (0, False, False, commands)

    text, _ = read(env, play(env, "take apple", "go east")[0])
    assert text == (
        GARDEN + "There is a lamp on the floor.\nYou are carrying: an apple.\n"
        "Your score has just gone up by two points."
    )


@needs_textworld
def test_rewards_are_what_the_score_changes_by(home):
    env = TextWorldEnv(home)
    assert play(env, "go east")[1:4] == (2, False, False)
    assert play(env, "go east", "go west")[1:4] == (0, False, False)
    _, reward, terminated, truncated, info = play(env, "go east", "take lamp")
    assert (reward, terminated, truncated, info["won"], info["score"]) == (3, True, False, True, 5)
    _, reward, terminated, truncated, info = play(env, "go east", "go west", "take apple", "eat apple")
    assert (reward, terminated, truncated, info["lost"], info["score"]) == (0, True, False, True, 2)


@needs_textworld
def test_an_episode_ends_once(home):
    env = TextWorldEnv(home, max_steps=3)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    assert play(env, "look", "look")[2:4] == (False, False)
    assert play(env, "look", "look", "look")[2:4] == (False, True)
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    assert play(env, "look", "go east", "take lamp")[2:4] == (True, False)  # won in the last step


@needs_textworld
def test_a_number_without_a_command_is_a_step_in_which_nothing_happens(home):
    env = TextWorldEnv(home, max_steps=2)
    before, _ = env.reset(seed=0)
    observation, reward, terminated, truncated, _ = env.step(5)
    assert read(env, observation)[0] == read(env, before)[0] + "\nNothing happens: there is no such command now."
    assert (reward, terminated, truncated) == (0, False, False)
    assert env.step(5)[3]
    env.reset()
    with pytest.raises(InputError, match=r"action=64 must lie in 0\.\.63"):
        env.step(64)


@needs_textworld
def test_the_game_understands_every_command_it_offers(generated):
    env, rng = TextWorldEnv(generated, max_steps=30), np.random.default_rng(0)
    offered = set()
    for episode in range(4):
        _, info = env.reset(seed=episode)
        done = False
        while not done:
            action = int(rng.integers(len(info["action_texts"])))
            offered.add(info["action_texts"])
            observation, _, terminated, truncated, info = env.step(action)
            text, commands = read(env, observation)
            assert tuple(commands.values()) == info["action_texts"]
            for refusal in ("not a verb", "can't see any such thing", "didn't understand", "Nothing happens"):
                assert refusal not in text
            assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
            done = terminated or truncated
    assert len(offered) > 5


@needs_textworld
def test_generated_games_are_won_as_their_makers_say(generated):
    import textworld

    for game in generated:
        env = TextWorldEnv(game)
        walkthrough = textworld.Game.load(str(Path(game).with_suffix(".json"))).metadata["walkthrough"]
        assert len(walkthrough) == 2
        _, reward, terminated, _, info = play(env, *walkthrough)
        assert (reward, terminated, info["won"]) == (1, True, True)


@needs_textworld
def test_the_same_numbers_make_the_same_game(generated, tmp_path):
    again = generate_game(tmp_path / "anew", 0, rooms=2, objects=4, quest_length=2)
    assert Path(again).name == Path(generated[0]).name
    texts = [Path(game).with_suffix(".json").read_text() for game in (again, *generated)]
    assert texts[0] == texts[1] != texts[2]
    written = Path(again).stat().st_mtime_ns
    assert generate_game(tmp_path / "anew", 0, rooms=2, objects=4, quest_length=2) == again
    assert Path(again).stat().st_mtime_ns == written
    assert sorted(path.suffix for path in Path(again).parent.iterdir()) == [".json", ".z8"]


@needs_textworld
def test_a_seed_decides_everything(home, generated):
    def episodes(env: TextWorldEnv) -> list:
        rng, seen = np.random.default_rng(0), []
        observation, info = env.reset(seed=3)
        for _ in range(5):
            seen.append((info["game"], read(env, observation)))
            for _ in range(3):
                observation, reward, terminated, *_, info = env.step(rng.integers(4))
                seen.append((reward, read(env, observation)))
                if terminated:
                    break
            observation, info = env.reset()
        return seen

    games = [home, *generated]
    first = TextWorldEnv(games)
    assert episodes(first) == episodes(first) == episodes(TextWorldEnv(games))


@needs_textworld
def test_every_game_has_its_turn(home, generated):
    env = TextWorldEnv([home, *generated])
    env.reset(seed=0)
    drawn = [env.reset()[1]["game"] for _ in range(40)]
    assert set(drawn) == {home, *generated}


@needs_textworld
def test_environments_do_not_disturb_each_other(home, generated):
    one, other = TextWorldEnv(home), TextWorldEnv(generated[0])
    _, info = one.reset(seed=0)
    other.reset(seed=0)
    one.step(info["action_texts"].index("take apple"))
    other.step(0)
    other.close()
    assert "You are carrying: an apple." in read(one, one.step(5)[0])[0]
    other.close()
    assert other.reset(seed=0)[1]["game"] == generated[0]


@needs_textworld
def test_a_file_of_any_name(home, tmp_path):
    for end in (".z8", ".json"):
        (tmp_path / f"my game{end}").write_bytes(Path(home).with_suffix(end).read_bytes())
    renamed, env = TextWorldEnv(tmp_path / "my game.z8"), TextWorldEnv([home])
    for commands in (("look",), ("take apple", "go east"), ("go east", "take lamp")):
        assert read(renamed, play(renamed, *commands)[0]) == read(env, play(env, *commands)[0])


@needs_textworld
def test_an_id_of_ones_own_passes_the_checkers_of_gymnasium_and_stable_baselines3(generated):
    gym.register("test/TextWorld-v0", entry_point="astray.envs.textworld:TextWorldEnv")
    try:
        env = gym.make("test/TextWorld-v0", games=generated, max_actions=32, render_mode="ansi")
        env.reset(seed=0)
        assert env.action_space == gym.spaces.Discrete(32)
        assert env.render().startswith("Objective: ")
        check_env(env.unwrapped)
        check_for_sb3(env.unwrapped)
    finally:
        del gym.registry["test/TextWorld-v0"]


@needs_textworld
@pytest.mark.filterwarnings("ignore:.*render_mode:UserWarning")  # gymnasium's, about the pictures that are asked for
def test_make_vec_env_makes_several(home):
    envs = make_vec_env("astray/TextWorld-v0", 2, env_kwargs={"games": home})
    assert envs.reset()["text"].shape[0] == 2
    with pytest.raises(TypeError, match="render_mode='human' is not one of None, 'ansi'"):
        TextWorldEnv(home, render_mode="human")


@needs_textworld
def test_what_is_not_allowed_is_said(home, tmp_path):
    with pytest.raises(InputError, match=r"games=\[\] must name at least one game"):
        TextWorldEnv([])
    with pytest.raises(InputError, match=r"none\.z8' must be a \.z8 file of TextWorld's with its .json beside it"):
        TextWorldEnv([home, tmp_path / "none.z8"])
    with pytest.raises(InputError, match=r"tw-home\.json' must be a \.z8 file"):
        TextWorldEnv(Path(home).with_suffix(".json"))
    with pytest.raises(InputError, match="max_steps=0 must be at least 1"):
        TextWorldEnv(home, max_steps=0)
    with pytest.raises(InputError, match="quest_length=0 must be at least 1"):
        generate_game(tmp_path, 0, quest_length=0)
    for name, too_small, needed in (("max_actions", 4, 5), ("max_length", 20, 112), ("max_action_length", 8, 13)):
        with pytest.raises(InputError, match=f"{name}={too_small} is too small for .*, which needs {needed} here"):
            TextWorldEnv(home, **{name: too_small}).reset(seed=0)


@pytest.mark.parametrize("use", [lambda: TextWorldEnv("tw-game.z8"), lambda: generate_game("games", 0)])
def test_a_missing_package_is_named(monkeypatch, use):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'astray\[textworld\]'"):
        use()


def test_what_is_printable():
    raw = "\x1b[1;33mOpen\x1b[0m  the\tdoor\x07.\n\n   ____  $$\\\n| $$ |\n  ﬁne\u00a0caf\u00e9 \r\n*** The End ***\n"
    assert printable(raw) == "Open the door.\nfine caf\u00e9\n*** The End ***"


@needs_textworld
def test_a_language_model_learns_from_it(generated, tmp_path):
    envs = DummyVecEnv([lambda: TextWorldEnv(generated, max_steps=6)] * 2)
    settings = dict(model=save_tiny_llama(tmp_path), dtype=torch.float32, trained_layers=1)
    ppo = PPO(LanguagePolicy, envs, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu", policy_kwargs=settings)
    assert isinstance(ppo.observation_space, TextChoices)
    before = [weight.clone() for weight in ppo.policy.parameters() if weight.requires_grad]
    ppo.learn(32)
    learned = [weight for weight in ppo.policy.parameters() if weight.requires_grad]
    assert all(torch.isfinite(weight).all() for weight in learned)
    assert any(not torch.equal(a, b) for a, b in zip(before, learned, strict=True))
    observations = ppo.rollout_buffer.observations
    chosen = ppo.rollout_buffer.actions.reshape(-1, 1).astype(int)
    assert np.take_along_axis(observations["mask"].reshape(len(chosen), -1), chosen, 1).all()
