"""The contract catches bugs: worlds with one planted each, most of them met in published environments."""

import numpy as np
import pytest

from astray.envs.cheese_corner import CheeseCorner
from astray.envs.gem_colour import GemColour
from astray.envs.grid import GridWorld
from astray.envs.keys_and_chests import KeysAndChests
from astray.envs.levels import Draws
from astray.experiments.contract import ContractError, subjects
from astray.experiments.contract_levels import CHECKS


class DroppedSeed(CheeseCorner):
    def sample(self, draws):
        return super().sample(Draws(np.zeros(len(draws), np.uint64), np.arange(len(draws), dtype=np.uint64)))


class GlobalGenerator(CheeseCorner):
    def sample(self, draws):
        level = super().sample(draws)
        return level | {"start": (level["start"] + np.random.randint(2)) % self.size**2}


class DiscountOffByOne(CheeseCorner):
    def action_values(self):
        return super().action_values() * self.discount


class Unsolvable(CheeseCorner):
    variants = ({"layout": "walls", "size": 6, "density": 0.5},)

    def solvable(self, levels):
        return np.ones(len(levels["start"]), bool)


class AmbiguousCalledDistinguishing(CheeseCorner):
    def classify(self, levels):
        level_class, margin = super().classify(levels)
        return np.where(level_class == "neither", "distinguishing", level_class), margin


class ShiftedInTraining(CheeseCorner):
    def sample(self, draws):
        self.shift = max(self.shift, 0.2)
        return super().sample(draws)


class StaleObservation(CheeseCorner):
    def planes(self, rows):
        shown = self.__dict__.setdefault("_shown", np.zeros((self.num_envs, *self.plane_shape), np.uint8))
        shown[: len(rows)] = super().planes(rows)
        return shown[: len(rows)]


class NextEpisodeAsLastObservation(CheeseCorner):
    def step(self, actions):
        told = super().step(actions)
        self.next_level(np.flatnonzero(told[1] | told[2]))
        return told


class OneStepMore(CheeseCorner):
    def step(self, actions):
        reward, terminated, _, events = super().step(actions)
        return reward, terminated, (self.steps > self.max_steps) & ~terminated, events


class BothEnds(CheeseCorner):
    def step(self, actions):
        reward, terminated, truncated, events = super().step(actions)
        return reward, terminated, truncated | terminated, events


class PaidTwice(CheeseCorner):
    def step(self, actions):
        reward, *rest = super().step(actions)
        return reward * 2, *rest


class EventWhileStandingStill(CheeseCorner):
    def advance(self, actions):
        events, over = super().advance(actions)
        events[:, 1] = self.state["agent"] == self.level["corner"]
        return events, over


class LeakedInventory(KeysAndChests):
    """As in a published port of the same world: keys in hand survive the end of the episode."""

    def begin(self, rows):
        held = self.state["held"][rows].copy() if self.state else 0
        super().begin(rows)
        self.state["held"][rows] = held


class HiddenState(KeysAndChests):
    """As in the same port: the state that is saved leaves out what is held."""

    def get_state(self):
        state = super().get_state()
        state["state"]["held"][:] = 0
        return state


class HiddenAttribute(CheeseCorner):
    def advance(self, actions):
        self.tired = getattr(self, "tired", 0) + 1
        return super().advance(np.where(self.tired % 5 == 0, 0, actions))


class WrongLegend(CheeseCorner):
    action_texts = ("go south", "go north", "go west", "go east")


class TextTooLong(CheeseCorner):
    max_text_length = 40


class TextWithoutTheGoal(CheeseCorner):
    def sentences(self, rows):
        return [text.split(". ")[0] for text in super().sentences(rows)]


class DrawsDependOnShift(CheeseCorner):
    def sample(self, draws):
        level = super().sample(draws)
        return level | {"start": (level["start"] + int(10 * self.shift)) % self.size**2}


class DrawsDependOnActions(CheeseCorner):
    def draw_levels(self, seeds, episodes):
        return super().draw_levels(seeds, episodes + np.uint64(self.steps.sum()))

    _bank_size = property(lambda self: 1, lambda self, value: None)


class SplitIgnored(CheeseCorner):
    def draw_levels(self, seeds, episodes):
        self.split = "all"
        return super().draw_levels(seeds, episodes)


class FingerprintOfTheTelling(CheeseCorner):
    told = ()


class FingerprintWithoutTheGoal(CheeseCorner):
    told = ("order", "cheese")


class LossyLevelText(CheeseCorner):
    def told_below(self, levels, index):
        return {}


class WrapsAround(CheeseCorner):
    """As in a published solver: cells as one line of numbers, without a border."""

    def destination(self, cells, actions):
        return (cells + np.array([-self.size, self.size, -1, 1])[actions]) % self.size**2


class WallsDoNotTurn(CheeseCorner):
    def turned(self, levels):
        turned = super().turned(levels)
        return self.named(turned | {"walls": levels["walls"]})


class GhostOnTheThing(CheeseCorner):
    def _twins(self, levels):
        return np.stack([levels[name] for name in self.things.values()], axis=1)


class ChanceInTheRules(CheeseCorner):
    def advance(self, actions):
        slip = np.random.default_rng().random(len(actions)) < 0.1
        return super().advance(np.where(slip, 0, actions))


class NoManual(CheeseCorner):
    """Eat the cheese."""


class DeadAction(CheeseCorner):
    action_texts = (*GridWorld.action_texts, "wait")

    def destination(self, cells, actions):
        return np.where(actions == 4, cells, super().destination(cells, np.minimum(actions, 3)))


class ProxyOnNoLevel(GemColour):
    def sample(self, draws):
        level = super().sample(draws)
        return level | {"yellow": level["gem"]}


class ExpertOfAnotherGoal(CheeseCorner):
    def action_values(self):
        return super().action_values()[:, ::-1]


class GoalOutOfTime(CheeseCorner):
    def worth(self, steps):
        return self.discount ** steps.astype(float)  # a step late, and as if there were no time limit


class SwervingMove(CheeseCorner):
    def destination(self, cells, actions):
        sideways = np.where(actions < 2, 3, 1)
        return super().destination(super().destination(cells, actions), sideways)


CAUGHT_BY = {
    DroppedSeed: "draws_are_pure",
    GlobalGenerator: "draws_are_pure",
    DiscountOffByOne: "values_are_exact",
    Unsolvable: "levels_are_solvable",
    AmbiguousCalledDistinguishing: "experts_tell_goals_apart",
    ShiftedInTraining: "draws_are_pure",
    StaleObservation: "determinism",
    NextEpisodeAsLastObservation: "invariants",
    OneStepMore: "invariants",
    BothEnds: "invariants",
    PaidTwice: "invariants",
    EventWhileStandingStill: "invariants",
    LeakedInventory: "invariants",
    HiddenState: "state_is_whole",
    HiddenAttribute: "state_is_whole",
    WrongLegend: "actions_do_what_they_say",
    TextTooLong: "gymnasium_checker",
    TextWithoutTheGoal: "observations_suffice",
    DrawsDependOnShift: "draws_are_pure",
    DrawsDependOnActions: "levels_ignore_actions",
    SplitIgnored: "splits_are_apart",
    FingerprintOfTheTelling: "told_the_same",
    FingerprintWithoutTheGoal: "draws_are_pure",
    LossyLevelText: "levels_print_and_parse",
    WrapsAround: "actions_do_what_they_say",
    WallsDoNotTurn: "told_the_same",
    GhostOnTheThing: "ghosts_are_apart",
    ChanceInTheRules: "determinism",
    NoManual: "manual",
    DeadAction: "actions_do_what_they_say",
    ProxyOnNoLevel: "experts_tell_goals_apart",
    ExpertOfAnotherGoal: "values_are_exact",
    GoalOutOfTime: "values_are_exact",
    SwervingMove: "actions_do_what_they_say",
}
for kind in CAUGHT_BY:
    if kind is not NoManual:
        kind.__doc__ = f"{kind.__base__.__doc__}\nAnother action may be: wait. "


def test_every_planted_bug_has_its_check():
    here = [value for value in globals().values() if isinstance(value, type) and value.__module__ == __name__]
    assert set(here) == set(CAUGHT_BY)


@pytest.mark.parametrize(("kind", "name"), CAUGHT_BY.items(), ids=[kind.__name__ for kind in CAUGHT_BY])
def test_planted_bug_is_caught(kind, name):
    (check,) = (check for check in CHECKS if check.__name__ == name)
    with pytest.raises(ContractError) as error:
        for subject in subjects(kind):
            check(subject)
    assert error.value.expected and error.value.got and error.value.mend
