"""Every curiosity module conforms; modules and stacks with a bug of public code planted in each are caught."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import planted_bugs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_bugs import BUGS_OF_MODULES, BUGS_OF_STACKS, LossOfEveryNumber, NeverForgets, stacked
from stable_baselines3 import DQN
from tiny_llama import save_tiny_llama

from astray.agents import (
    E3B,
    ICM,
    NGU,
    RE3,
    RIDE,
    RND,
    ActionEntropy,
    Curiosity,
    Disagreement,
    EpisodicCounts,
    LanguageModel,
    LifelongCounts,
    MatchedNoise,
    NovelD,
    PolicyInvariant,
    PseudoCounts,
    RelabelledReplayBuffer,
    SuggestedGoals,
    Surprisal,
    TextNovelty,
    vec_env,
    with_rewards,
)
from astray.experiments.check import check, outcome
from astray.experiments.conformance import reads, same, through_a_checkpoint
from astray.experiments.conformance_subjects import PLACES, Subject, subjects
from astray.experiments.conformance_training import CHECKS, TRAINING_CHECKS, advantages_by_hand
from astray.experiments.contract import ContractError


def noise(weight=1.0, seed=0):
    """As ``astray check`` would make it of a class that knows its other module."""
    return MatchedNoise(LifelongCounts(), weight, seed)


def invariant(weight=1.0, seed=0):
    """Counts that are taken back at the end of an episode."""
    return PolicyInvariant(LifelongCounts(), discount=0.9, weight=weight)


@cache
def tiny():
    """A language model that knows nothing."""
    with TemporaryDirectory() as folder:
        return LanguageModel.load(save_tiny_llama(Path(folder)), dtype=torch.float32)


def surprisal(weight=1.0, seed=0):
    """What a language model finds unlikely."""
    return Surprisal(tiny(), weight=weight, seed=seed)


def suggested(weight=1.0, seed=0):
    """Suggestions that every text is near to, for a model that knows nothing."""
    return SuggestedGoals(tiny(), ["go to the cheese", "see the corner"], threshold=0.0, weight=weight, seed=seed)


def embedded_rnd(weight=1.0, seed=0):
    """RND on what a language model makes of texts."""
    return RND(weight, embed=tiny().embed, seed=seed)


def embedded_e3b(weight=1.0, seed=0):
    """Likewise E3B."""
    return E3B(weight, embed=tiny().embed, seed=seed)


PLANES, BYTES, TORQUES = "CheeseCorner, planes", "CheeseCorner, bytes", "Pendulum, two torques"
MODULES = {
    **dict.fromkeys((NovelD, PseudoCounts, RE3, noise, invariant), (PLANES,)),
    **dict.fromkeys((ICM, Disagreement, RIDE, NGU, E3B), (PLANES, TORQUES)),
    **dict.fromkeys((LifelongCounts, EpisodicCounts, RND), tuple(PLACES)),
    ActionEntropy: (PLANES, "CartPole"),
    **dict.fromkeys((TextNovelty, surprisal, suggested, embedded_rnd, embedded_e3b), (BYTES,)),
}
"""Every module, and where it is tried. Trainings differ little between them: one module has them everywhere."""
CASES = [(kind, place) for kind, places in MODULES.items() for place in places]


@pytest.mark.parametrize(("kind", "place"), CASES, ids=[f"{kind.__name__}-{place}" for kind, place in CASES])
def test_module_conforms(kind, place):
    subject = Subject(kind, place)
    assert reads(subject) is None
    for one in CHECKS:
        if one not in TRAINING_CHECKS or place in (PLANES, BYTES) or kind is LifelongCounts:
            one(subject)


def test_what_a_module_cannot_read_is_passed_over():
    notes = {subject.place: reads(subject) for subject in subjects(TextNovelty)}
    assert [place for place, note in notes.items() if note is None] == [BYTES]
    assert "TextNovelty reads texts" in notes["CartPole"]


@pytest.mark.parametrize("place", PLACES)
def test_places_have_ends_of_every_kind(place):
    steps = Subject(LifelongCounts, place).steps()
    cut, ended = (sum(getattr(step, name).sum() for step in steps) for name in ("truncated", "terminated"))
    assert cut + ended >= 4 and (cut > 0 or place == "CartPole") and (ended > 0 or place == TORQUES)


# ---------------------------------------------------------------- planted bugs
def problem_of(name, subject):
    """What a check finds broken."""
    (one,) = (one for one in CHECKS if one.__name__ == name)
    problem, _ = outcome(one, subject)
    return problem


def test_every_planted_bug_has_its_check():
    planted = [value for value in vars(planted_bugs).values() if getattr(value, "__module__", "") == "planted_bugs"]
    kinds = [value for value in planted if isinstance(value, type) and issubclass(value, Curiosity)]
    assert set(kinds) == set(BUGS_OF_MODULES)
    named = {*BUGS_OF_MODULES.values(), *(name for _, _, name in BUGS_OF_STACKS.values())}
    assert named == {one.__name__ for one in CHECKS}


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize(("kind", "name"), BUGS_OF_MODULES.items(), ids=[kind.__name__ for kind in BUGS_OF_MODULES])
def test_a_bug_of_a_module_is_caught(kind, name):
    place = TORQUES if kind is LossOfEveryNumber else PLANES
    problem = problem_of(name, Subject(kind, place))
    assert problem is not None and problem.startswith("expected: ") and "\nto mend: " in problem


def test_a_mask_of_rows_on_numbers_of_actions_is_met_where_it_can_be():
    assert problem_of("bonuses_are_numbers", Subject(LossOfEveryNumber, PLANES)) is None
    assert "must match" in problem_of("bonuses_are_numbers", Subject(LossOfEveryNumber, TORQUES))


@pytest.mark.parametrize("bug", BUGS_OF_STACKS)
def test_a_bug_of_a_stack_is_caught(bug):
    wrap, callback, name = BUGS_OF_STACKS[bug]
    kind = EpisodicCounts if bug == "ends a step late" else LifelongCounts
    problem = problem_of(name, Subject(kind, PLANES, wrap, callback))
    assert problem is not None and problem.startswith("expected: ") and "no error" not in problem


def test_the_stack_that_the_bugs_are_planted_in_has_none():
    assert [one(Subject(EpisodicCounts, PLANES, stacked())) for one in TRAINING_CHECKS] == [None] * len(TRAINING_CHECKS)


# ---------------------------------------------------------------- what cannot occur here
@pytest.mark.parametrize("kind", [ICM, RIDE])
def test_what_is_predicted_does_not_move_towards_the_prediction(kind):
    # With phi(s) out of play, the forward loss has no gradient in the encoder.
    subject = Subject(kind, PLANES)
    module, step = subject.make(), subject.steps()[0]
    networks = module.networks
    with torch.no_grad():
        networks["forward_model"][0].weight.zero_()
    before, after = module._both(step)
    weights = list(networks["encoder"].parameters())
    right = torch.autograd.grad(module.loss(step)["forward"], weights, allow_unused=True)
    attached = torch.autograd.grad(module.errors(before, after, step).mean(), weights)
    assert not any(gradient is not None and gradient.any() for gradient in right)
    assert all(gradient.any() for gradient in attached)


def test_replayed_bonuses_are_of_the_moment():
    # What a plain buffer stored was new then.
    envs = with_rewards(vec_env("cheese-corner", 1, observation="planes"), "0", {"it": RND()}, update_every=16)
    buffer = {"replay_buffer_class": RelabelledReplayBuffer, "replay_buffer_kwargs": {"rewards": envs.rewards}}
    model = DQN("MlpPolicy", envs, buffer_size=256, learning_starts=1000, seed=0, device="cpu", **buffer)
    model.learn(128)
    rows = np.arange(128)
    drawn = model.replay_buffer._get_samples(rows)
    module = envs.rewards.intrinsic["it"]
    with torch.no_grad():
        expected = module.errors(drawn.next_observations.numpy()).numpy() / module.scale.spread
    np.testing.assert_allclose(drawn.rewards.flatten(), expected, rtol=1e-4)
    assert not np.allclose(model.replay_buffer.rewards[rows, 0], expected, rtol=0.1)


# ---------------------------------------------------------------- the checks' own arithmetic, and the command
def test_advantages_by_hand_by_hand():
    # gamma = 0.9, lambda = 0.8; the second of three steps ends an episode
    rewards, values = np.array([[1.0], [0.0], [2.0]]), np.array([[0.5], [1.0], [2.0]])
    dones, last = np.array([[False], [True], [False]]), np.array([3.0])
    deltas = [1 + 0.9 * 1 - 0.5, 0 - 1, 2 + 0.9 * 3 - 2]
    expected = [[deltas[0] + 0.72 * deltas[1]], [deltas[1]], [deltas[2]]]
    np.testing.assert_allclose(advantages_by_hand(rewards, values, last, dones), expected)


LEAVES = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float64)),
    st.integers(0, 3).map(lambda n: torch.arange(n)),
)
KEYS = st.one_of(st.text(max_size=5), st.integers(0, 2**63))


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(KEYS, st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3), max_leaves=6), max_size=4))
def test_states_come_through_a_checkpoint_whole(state):
    assert same(state, through_a_checkpoint(state))


def test_states_that_differ_are_told_apart():
    one = {"a": [1, np.arange(3)], "b": torch.zeros(2)}
    others = ({"a": [1, np.arange(3)]}, {"a": [1, np.arange(4)], "b": torch.zeros(2)}, one | {"b": torch.ones(2)})
    assert same(one, {"a": (1, np.arange(3)), "b": torch.zeros(2)}) and not any(same(one, other) for other in others)


SOURCE = '''
import numpy as np
from astray.agents import TextNovelty
from astray.envs import InputError

class Fine(TextNovelty):
    pass

class Shrugs(TextNovelty):
    """Repetition does not matter to it."""
    def observe(self, transitions):
        pass

class Reads(TextNovelty):
    def setup(self, *spaces):
        raise InputError("nothing is good enough")

class Crashes(TextNovelty):
    def setup(self, *spaces):
        raise KeyError("spaces")
'''


def test_the_command_checks_a_module_in_a_file(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(SOURCE)
    assert check(f"{tmp_path}/mine.py:Fine") == 0
    out = capsys.readouterr().out
    assert out.endswith("nothing broken\n") and "Fine on CheeseCorner, bytes" in out
    assert out.count("passed over: TextNovelty reads texts") == 0 and out.count("passed over: Fine reads texts") == 4
    assert check(f"{tmp_path}/mine.py:Shrugs") == 1
    out = capsys.readouterr().out
    assert "say `fades = False` in the class" in out and out.endswith("1 broken\n")
    assert check(f"{tmp_path}/mine.py:Reads") == 1
    assert "it can be used on none of them" in capsys.readouterr().out
    assert check(f"{tmp_path}/mine.py:Crashes") == 1
    assert "KeyError" in capsys.readouterr().out
    with pytest.raises(ValueError, match="defines no World or Curiosity 'Fne', only TextNovelty, Fine"):
        check(f"{tmp_path}/mine.py:Fne")


def test_a_check_says_what_it_expected_and_how_to_mend():
    with pytest.raises(ContractError) as error:
        next(one for one in CHECKS if one.__name__ == "episodes_begin_anew")(Subject(NeverForgets, PLANES))
    assert error.value.expected and error.value.got and "transitions.steps == 0" in error.value.mend
