"""Curiosity and rewards that read: n-grams by hand, and a language model's judgement, surprise and suggestions."""

from collections import Counter

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from tiny_llama import save_tiny_llama
from weather import Wardrobe

from astray.agents import LanguageModel, vec_env, with_rewards
from astray.agents.judge import LanguageJudge
from astray.agents.suggested_goals import SuggestedGoals
from astray.agents.surprisal import Surprisal
from astray.agents.text_novelty import TextNovelty
from astray.envs import InputError
from astray.envs.text import NamedDiscrete, TextBytes, encode
from astray.experiments.checkpoint import put_together, take_apart

LENGTH = 64
SPACE, MOVES = TextBytes(LENGTH), NamedDiscrete(["wait", "go on"])


class Oracle:
    """A language model whose answers are known, and which counts what it is asked."""

    def __init__(self):
        self.asked = Counter()

    def prompt(self, instruction, observation):
        return f"{instruction}|{observation}|"

    def score(self, prompts, candidates, normalization="sum"):
        self.asked["score", *prompts, *candidates[0]] += 1
        assert normalization in ("sum", "token")
        return [torch.tensor([-float(len(text)) for text in texts]) for texts in candidates]

    def generate(self, prompts, temperature):
        self.asked["generate", *prompts] += 1
        return ["1. eat an apple\n - drink water \n\n2) eat an apple" for _ in prompts]

    def embed(self, texts):
        self.asked["embed", *texts] += 1
        names = ("apple", "water", "sleep")
        return torch.tensor([[float(text.count(name)) for name in names] for text in texts])


def told(texts, before=None, actions=None, **more):
    """Steps that lead to texts."""
    before = ["start"] * len(texts) if before is None else before
    return made_up(encode(before, LENGTH), encode(texts, LENGTH), actions, **more)


def ready(module, num_envs=3):
    module.setup(SPACE, MOVES, num_envs)
    return module


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return LanguageModel.load(save_tiny_llama(tmp_path_factory.mktemp("tiny"), layers=1), dtype=torch.float32)


# ---------------------------------------------------------------- n-grams
def test_text_novelty_by_hand():
    module = ready(TextNovelty())
    # new: a, b, "a b" are all there is; each counts once for a text, how often it may be in it
    assert module.bonus(told(["a b"])).tolist() == [1]
    module.observe(told(["A b!", "a a"]))  # two steps: a twice; b, "a b", "a a" once
    root2, root3 = 2**-0.5, 3**-0.5
    expected = [(root3 + root2 + root2) / 3, (root3 + root2) / 2, (root3 + 1 + 1) / 3, 0]
    np.testing.assert_allclose(module.bonus(told(["a, b", "a a", "a c", "..."])), expected, rtol=1e-12)
    # a b c: a (3), b (2), c (1), "a b" (2), "b c" (1), "a b c" (1)
    np.testing.assert_allclose(module.bonus(told(["a b c"])), [(root3 + root2 + 1 + root2 + 1 + 1) / 6], rtol=1e-12)


@given(st.lists(st.text("ab ", max_size=8), min_size=1, max_size=6))
def test_a_text_told_again_pays_less_and_rows_do_not_matter(texts):
    module = ready(TextNovelty())
    one_by_one = [module.bonus(told([text]))[0] for text in texts]
    assert module.bonus(told(texts)).tolist() == one_by_one
    module.observe(told(texts))
    again = module.bonus(told(texts))
    assert all(now < then or now == then == 0 for now, then in zip(again, one_by_one, strict=True))


# ---------------------------------------------------------------- the judge
def test_the_judge_says_the_probability_of_yes_against_no():
    oracle = Oracle()
    judge = LanguageJudge(oracle, "Good?", SPACE)  # "Yes" has log-probability -3, "No" -2
    paid = judge(told(["one", "two", "one"]))
    assert paid.dtype == np.float64 and paid == pytest.approx(1 / (1 + np.e))
    judge(told(["two"]))
    asked = {("score", f"Good?|{text}|", "Yes", "No"): 1 for text in ("one", "two")}
    assert oracle.asked == asked  # each text once
    with pytest.raises(InputError, match=r"LanguageJudge reads texts, and Box.* is none"):
        LanguageJudge(oracle, "Good?", spaces.Box(-1, 1, (2,)))


def test_a_language_model_judges_a_world(tiny):
    envs = vec_env("cheese-corner", 2, observation="bytes")
    judge = LanguageJudge(tiny, "Is the cheese near? Answer Yes or No.", envs.observation_space)
    envs = with_rewards(envs, judge)
    envs.reset()
    _, rewards, _, _ = envs.step(np.array([0, 1]))
    texts = judge.read.texts(envs.rewards._observations)
    for text, reward in zip(texts, rewards, strict=True):
        start = tiny.tokens([tiny.prompt(judge.question, text)])[0]
        logits = tiny.model(torch.tensor([start])).logits[0, -1].double()
        yes, no = (tiny.tokenizer(word, add_special_tokens=False).input_ids for word in ("Yes", "No"))
        assert len(yes) == len(no) == 1
        assert reward == pytest.approx(logits[[*yes, *no]].softmax(0)[0].item(), abs=1e-5)


# ---------------------------------------------------------------- surprise
def test_surprisal_is_the_log_probability_of_the_next_text_by_token():
    oracle = Oracle()
    module = ready(Surprisal(oracle))
    steps = told([" end ", "end", ""], actions=[0, 1, 1])
    assert module.bonus(steps).tolist() == [3, 3, 0]
    module.bonus(steps)
    assert oracle.asked == {("score", f"start\n> {move}\n", "end"): 1 for move in MOVES.texts}


def test_surprisal_of_a_language_model(tiny):
    module = ready(Surprisal(tiny))
    (bonus,) = module.bonus(told(["A door opens."], ["You knock."], [1]))
    start, (rest,) = tiny.encode("You knock.\n> go on\n", ["A door opens."])
    logs = tiny.model(torch.tensor([start + rest])).logits[0].double().log_softmax(-1)
    tokens = [-logs[len(start) - 1 + number, token].item() for number, token in enumerate(rest)]
    assert len(tokens) > 2 and bonus == pytest.approx(np.mean(tokens), abs=1e-5)
    steps = told(["A door opens.", "It rains.", "A door opens.", "x"], actions=[1, 0, 1, 1])
    together = ready(Surprisal(tiny)).bonus(steps)
    alone = [ready(Surprisal(tiny)).bonus(steps[slice(row, row + 1)])[0] for row in range(4)]
    assert together.tolist() == alone  # bit by bit


def test_surprisal_reads_the_actions_that_a_text_offers():
    oracle = Oracle()
    envs = with_rewards(make_vec_env(Wardrobe, 1, seed=0), intrinsic={"surprisal": Surprisal(oracle)})
    first = envs.reset()
    text, actions = envs.observation_space.decode(
        np.concatenate([first[key][0] for key in ("text", "actions", "mask")])
    )
    envs.step(np.array([0]))
    assert oracle.asked == {("score", f"{text}\n> {actions[0]}\n", text): 1}


# ---------------------------------------------------------------- suggestions
GOALS = ["eat apple", "drink water", "sleep"]


def test_each_suggestion_pays_once_in_an_episode_by_hand():
    module = ready(SuggestedGoals(Oracle(), GOALS, threshold=0.5), 1)
    both = 2**-0.5  # the cosine of "apple, water" to "apple", and to "water"
    story = ["apple", "apple", "apple, water", "apple, water", "stone", "water apple sleep", "sleep", "sleep"]
    expected = [1, 0, both, 0, 0, 3**-0.5, 0, 0]
    for step, (text, pays) in enumerate(zip(story, expected, strict=True)):
        now = told([text], steps=[step])
        assert module.bonus(now) == pytest.approx([pays]), text
        module.observe(now)
    next_episode = told(["apple"], steps=[0])
    assert module.bonus(next_episode) == pytest.approx([1])


def test_suggestions_of_environments_are_apart_and_the_threshold_is_heeded():
    module = ready(SuggestedGoals(Oracle(), GOALS, threshold=0.8))
    module.observe(told(["apple", "stone", "water"]))
    now = told(["apple", "apple", "apple water"], steps=[1, 1, 1])
    assert module.bonus(now) == pytest.approx([0, 1, 0])  # 0.71 is not above 0.8
    assert [module.bonus(now[slice(row, row + 1)])[0] for row in range(3)] == module.bonus(now).tolist()


def test_the_model_is_asked_for_suggestions_once_for_each_text():
    oracle = Oracle()
    module = ready(SuggestedGoals(oracle, question="What now?", caption=lambda text: text.split(". ")[-1]))
    steps = told(["You wait. You see water.", "You see water.", "You see water. All is dark."], ["a", "a", "b"])
    assert module.bonus(steps) == pytest.approx([1, 1, 0])
    module.observe(steps)
    assert module.suggested("a") == ("eat an apple", "drink water")
    assert oracle.asked["generate", "What now?|a|"] == oracle.asked["generate", "What now?|b|"] == 1
    assert max(oracle.asked.values()) == 1


def test_an_embedding_of_ones_own():
    oracle = Oracle()
    module = SuggestedGoals(oracle, ["x"], embed=lambda texts: np.array([[len(text), 1] for text in texts]))
    assert ready(module).bonus(told(["yyy"])) == pytest.approx([4 / 20**0.5])
    assert not oracle.asked
    broken = SuggestedGoals(oracle, ["x"], embed=lambda texts: np.array([[np.nan]]))
    with pytest.raises(InputError, match="embed gave numbers that are not finite for 'x'"):
        ready(broken).bonus(told(["yyy"]))


def test_a_language_model_suggests(tiny):
    module = ready(SuggestedGoals(tiny, threshold=0.0))
    steps = told(["You see a door.", "It rains."])
    paid = module.bonus(steps)
    assert paid.shape == (2,) and np.isfinite(paid).all()
    assert (ready(SuggestedGoals(tiny, threshold=0.0)).bonus(steps[slice(1, 2)]) == paid[1:]).all()


@pytest.mark.parametrize("bad", [[], ["a", " "], "eat"])
def test_what_suggested_goals_refuse(bad):
    with pytest.raises(InputError, match=r"suggestions=.* must be a list of texts with words"):
        SuggestedGoals(Oracle(), bad)
    with pytest.raises(InputError, match=r"threshold=2 must lie in 0\.\.1"):
        SuggestedGoals(Oracle(), GOALS, threshold=2)


# ---------------------------------------------------------------- all
MODULES = {
    "novelty": TextNovelty,
    "surprisal": lambda: Surprisal(Oracle()),
    "suggestions": lambda: SuggestedGoals(Oracle(), ["apple", "cheese here"], embed=_letters),
}


def _letters(texts):
    return np.array([[text.lower().count(letter) for letter in "abcdefghijklmnoprst"] for text in texts])


def make(name, num_envs=3):
    envs = vec_env("cheese-corner", num_envs, observation="bytes")
    envs = with_rewards(envs, "0", {name: MODULES[name]()}, update_every=30)
    envs.seed(1)
    return envs


def played(envs, steps, first=0):
    numbers = np.arange(envs.num_envs)
    return [envs.step((numbers + step // 2) % 4)[1].tolist() for step in range(first, first + steps)]


@pytest.mark.parametrize("name", MODULES)
def test_saved_and_restored_exactly_and_a_bonus_changes_nothing(name):
    envs, fresh = make(name), make(name)
    envs.reset()
    assert any(map(any, played(envs, 33)))
    module, steps = envs.rewards.intrinsic[name], envs.rewards._buffer[-1]
    before = repr(module.state_dict())
    assert (module.bonus(steps) == module.bonus(steps)).all() and repr(module.state_dict()) == before
    tensors, arrays = {}, {}
    plain = take_apart(envs.get_state(), "state", tensors, arrays)
    fresh.reset()
    fresh.set_state(put_together(plain, tensors, arrays))
    assert played(envs, 30, 33) == played(fresh, 30, 33)


@pytest.mark.parametrize("name", MODULES)
def test_only_texts_are_read(name):
    for space in (spaces.Box(0, 1, (4, 5, 5), np.uint8), spaces.Discrete(3)):
        with pytest.raises(InputError, match=r"reads texts, and .* is none"):
            MODULES[name]().setup(space, MOVES, 1)


def test_surprisal_needs_texts_of_actions():
    with pytest.raises(InputError, match="Surprisal reads texts of actions"):
        Surprisal(Oracle()).setup(SPACE, spaces.Discrete(2), 1)


@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_all_of_them_train(algorithm):
    envs = vec_env("cheese-corner", 1, observation="bytes")
    envs = with_rewards(envs, intrinsic={name: module() for name, module in MODULES.items()}, update_every=32)
    settings = dict(n_steps=16, batch_size=16) if algorithm is PPO else dict(learning_starts=20)
    algorithm("MlpPolicy", envs, seed=0, device="cpu", **settings).learn(48)
    assert envs.rewards.told().keys() >= {f"rewards/{name}" for name in MODULES}
