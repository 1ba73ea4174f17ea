"""What every curiosity module keeps to, as checks that say what was expected, what was found, and how to mend it.

``astray check FILE:CLASS`` runs them on a module of one's own; the tests run them on every module of this package, and
on modules and stacks with bugs of public code planted in them. Checks of whole trainings, in PPO, A2C and DQN, are in
``astray.experiments.conformance_training``.
"""

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from astray.agents import Curiosity, Transitions
from astray.envs import InputError
from astray.experiments.checkpoint import put_together, take_apart
from astray.experiments.conformance_subjects import (
    BETWEEN_UPDATES,
    ENVS,
    Check,
    Subject,
    distinct,
    lived,
    placed,
    spaces_of,
)
from astray.experiments.contract import expect, global_chance, passing


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, bit by bit."""
    match one:
        case dict():
            return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
        case list() | tuple():
            return len(one) == len(other) and all(map(same, one, other))
        case torch.Tensor():
            return torch.equal(one, other)
        case np.ndarray() | np.generic():
            return np.array_equal(one, other)
    return one == other


def expect_close(got: Any, expected: Any, what: str, mend: str, relative: float = 1e-4) -> None:
    """Raises ``ContractError`` unless two arrays are equal up to rounding, which is relative to what bonuses are."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    expect(got.shape == expected.shape, f"{what}: an array {list(expected.shape)}", list(got.shape), mend)
    allowed = relative * max(float(np.abs(expected).max(initial=0.0)), 0.1)
    wrong = np.argwhere(~(np.abs(got - expected) <= allowed))
    if len(wrong):
        place = tuple(wrong[0].tolist())
        found = f"{got[place]:.6g}; {len(wrong)} of {got.size} differ"
        expect(False, f"{what}: {expected[place]:.6g} at {list(place)}", found, mend)


# ---------------------------------------------------------------- what it reads and answers
def reads(subject: Subject) -> str | None:
    """It is made with weight and seed, and reads these environments or says with an InputError that it cannot."""
    try:
        module = subject.make()
    except InputError as error:
        return f"passed over: {error}"
    is_one = isinstance(module, Curiosity)
    expect(is_one, "a subclass of Curiosity", type(module), "inherit from astray.agents.Curiosity")


def bonuses_are_numbers(subject: Subject) -> None:
    """Bonuses are one finite float64 for each environment: of one and of many, from the very first step on."""
    for count in (1, ENVS):
        module, steps = subject.make(count), [step[:count] for step in subject.steps()]
        for number, step in enumerate(steps, start=1):
            _expect_numbers(module.bonus(step), count, f"step {number} of {count} environments")
            module.observe(step)
            if number == 1 or number % BETWEEN_UPDATES == 0:  # the first update has a single step
                told = module.update(Transitions.joined(steps[max(0, number - BETWEEN_UPDATES) : number]))
                wrong = {name: value for name, value in told.items() if not np.isfinite(value)}
                expect(not wrong, "finite numbers from update()", wrong, "look at what a batch of one does")


def _expect_numbers(bonus: Any, count: int, where: str) -> None:
    is_array = isinstance(bonus, np.ndarray)
    got = f"{bonus.dtype}{list(bonus.shape)}" if is_array else type(bonus).__name__
    right = is_array and bonus.dtype == np.float64 and bonus.shape == (count,)
    expect(right, f"float64[{count}] from bonus() at {where}", got, "return one float64 for each row")
    mend = "look at divisions by a spread of 0, and at the variance of a batch of one"
    expect(np.isfinite(bonus).all(), f"finite bonuses at {where}", bonus, mend)


def bonus_changes_nothing(subject: Subject) -> None:
    """Asking for a bonus changes neither the module nor the steps, and the same question has the same answer."""
    module = subject.make()
    for number, step in enumerate(subject.steps()[: BETWEEN_UPDATES + 2], start=1):
        before, given = module.state_dict(), copy.deepcopy(step)
        first, again = module.bonus(step), module.bonus(step)
        mend = "let bonus() only read; move what it changes to observe() or update()"
        expect(same(first, again), f"equal bonuses when asked twice, {first}", again, mend)
        after = module.state_dict()
        moved = [name for name in before.keys() | after.keys() if not same(before.get(name), after.get(name))]
        expect(not moved, "a state_dict() that bonus() leaves as it was", f"another {', '.join(moved)}", mend)
        module.observe(step)
        if number == BETWEEN_UPDATES:
            module.update(step)
        mend = "copy an array before you write into it: others read these steps, too"
        expect(same(vars(step), vars(given)), "steps that are left as they were", "others", mend)


def chance_is_its_own(subject: Subject) -> None:
    """Nothing moves the random states that belong to everybody: Python's, NumPy's and torch's."""
    mend = "draw from self.rng = np.random.default_rng(self.seed); build networks under networks.seeded(self.seed)"
    before = _global_chance()
    module = subject.make()
    expect(_global_chance() == before, "global random states left alone by setup()", "one of them moved", mend)
    lived(module, subject.steps()[:BETWEEN_UPDATES])
    expect(_global_chance() == before, "global random states left alone", "one of them moved", mend)


def _global_chance() -> tuple[bytes, bytes]:
    return global_chance(), torch.get_rng_state().numpy().tobytes()


def equal_seeds_agree(subject: Subject) -> None:
    """Equal seeds and equal steps give equal bonuses."""
    first, second = (lived(subject.make(), subject.steps()) for _ in range(2))
    expect(same(first, second), "equal bonuses for equal seeds", "others", "let all chance come from self.seed")


def weight_is_left_to_the_stack(subject: Subject) -> None:
    """The bonus does not depend on the weight, by which it is multiplied afterwards."""
    steps = subject.steps()[: BETWEEN_UPDATES + 1]
    first, second = (lived(subject.make(weight=weight), steps) for weight in (1.0, 0.25))
    expect(same(first, second), "bonuses that weight leaves alone", "others", "return the bonus before its weight")


def belongs_to_its_environments(subject: Subject) -> None:
    """A module that is in use cannot be given to other environments, such as those of an evaluation."""
    module = subject.make()
    try:
        module.setup(*spaces_of(subject.place), ENVS)
    except InputError:
        return
    expect(False, "InputError from a second setup()", "no error", "call super().setup(...) first in setup()")


# ---------------------------------------------------------------- rows, environments and episodes
def rows_are_on_their_own(subject: Subject) -> None:
    """The bonuses of several environments are those of each alone."""
    module = subject.make()
    for step in subject.steps()[: 2 * BETWEEN_UPDATES]:
        rows = distinct(step)
        alone = np.concatenate([module.bonus(rows[row : row + 1]) for row in range(len(rows))])
        mend = "compute each row from itself and from memory, not from the other rows or their mean"
        expect_close(module.bonus(rows), alone, "bonuses of rows together as of each alone", mend)
        lived(module, [step])


def order_of_rows_means_nothing(subject: Subject) -> None:
    """What happened at the same time in several environments counts the same in whatever order it is told."""
    told, turned = subject.make(), subject.make()
    for step in subject.steps():
        told.observe(step)
        turned.observe(step[np.arange(ENVS)[::-1]])
    rows = distinct(subject.steps()[-1])
    mend = "rows are environments, not time: keep running sums for each of transitions.environments"
    expect_close(turned.bonus(rows), told.bonus(rows), "equal bonuses whatever the order of rows", mend)


def stored_steps_pay_the_same(subject: Subject) -> str | None:
    """Unless it says that it is episodic, a bonus can be computed again for steps from a replay buffer."""
    module = subject.make()
    if module.episodic:
        return "passed over: it is episodic"
    lived(module, subject.steps())
    rows = distinct(Transitions.joined(subject.steps()))
    nothing = {name: np.zeros(len(rows), np.int64) for name in ("environments", "episodes", "steps")}
    stored = replace(rows, rewards=np.zeros(len(rows)), happened={}, ever={}, **nothing)
    mend = "say `episodic = True` in the class, or use observations, actions and ends alone"
    expect_close(module.bonus(stored), module.bonus(rows), "equal bonuses without what a replay buffer forgets", mend)


def episodes_begin_anew(subject: Subject) -> str | None:
    """An episode's bonuses do not depend on which environment had the one before it, ended or not."""
    if not subject.make().episodic:
        return "passed over: it is not episodic"
    episode = subject.episodes()[0]
    for before in (episode, episode[: len(episode) // 2]):  # an environment may also be reset in the middle
        paid = []
        for environment in (0, 1):
            module = subject.make(2)
            for step in before:
                module.observe(placed(step, environment))
            paid.append(lived(module, [placed(step, 0, episodes=1) for step in episode]))
        mend = "forget an environment's episode where transitions.steps == 0; its start is observations of that step"
        expect_close(paid[0], paid[1], "bonuses of an episode as if another environment had had the one before", mend)


def environments_are_apart(subject: Subject) -> str | None:
    """An episode's memory is the same whether another environment's episode went on meanwhile or before."""
    if not subject.make().episodic:
        return "passed over: it is not episodic"
    mine, others = subject.episodes()[:2]
    count = min(len(mine), len(others)) - 1  # both go on
    mine, others = mine[:count], [placed(step, 1) for step in others[:count]]
    meanwhile = [step for pair in zip(mine, others, strict=True) for step in pair]
    paid = []
    for order in (meanwhile, [*others, *mine]):
        module = subject.make(2)
        for step in order:
            module.observe(step)
        paid.append([module.bonus(placed(step, 0, steps=count))[0] for step in mine])
    mend = "keep a memory for each of transitions.environments"
    expect_close(paid[0], paid[1], "bonuses as if the other environment had gone first", mend, relative=1e-3)


# ---------------------------------------------------------------- learning and saving
def repetition_fades(subject: Subject) -> str | None:
    """Doing the same again and again loses its bonus, against other things: within an episode, or in life."""
    module = subject.make()
    if not module.fades:
        return "passed over: it does not promise to fade"
    lived(module, subject.steps()[: BETWEEN_UPDATES // 2])  # some need a few steps before they pay anything
    rows = distinct(Transitions.joined(subject.steps()))
    repeated, other = rows[-ENVS:], rows[-2 * ENVS : -ENVS]

    def at(done: Transitions, step: int) -> Transitions:
        steps = np.full(ENVS, step if module.episodic else 0)
        return replace(done, environments=np.arange(ENVS), steps=steps)

    first, first_of_other = module.bonus(at(repeated, 0)).mean(), module.bonus(at(other, 0)).mean()
    if not (first > 0 and first_of_other > 0):
        return "passed over: it pays nothing for new steps"
    for step in range(30 if module.episodic else 100):
        module.observe(at(repeated, step))
        if not module.episodic:
            module.update(Transitions.joined([at(repeated, step)] * BETWEEN_UPDATES))
    left = module.bonus(at(repeated, 30)).mean() / first
    left_of_other = module.bonus(at(other, 30)).mean() / first_of_other
    mend = "remember in observe() or learn in update(); or say `fades = False` in the class"
    expect(left <= 0.75, "bonuses that fade to 0.75 of what they were, or less", f"{left:.2f}", mend)
    what = f"bonuses that fade more than those of other steps, to {left_of_other:.2f} of what they were"
    expect(left <= 0.75 * left_of_other, what, f"{left:.2f}: everything is paid less", mend)


def state_is_whole(subject: Subject) -> None:
    """Saved into a checkpoint, loaded and continued, it is the module itself: bonuses and updates bit by bit."""
    steps, half = subject.steps(), BETWEEN_UPDATES + 1
    module, restored = subject.make(), subject.make()
    lived(module, steps[:half])
    state = module.state_dict()
    whole = lived(module, steps[half:])
    with passing("a state that a checkpoint can hold", "numbers, arrays, tensors, texts, and lists and dicts of them"):
        kept = through_a_checkpoint(state)
    restored.load_state_dict(kept)
    parted = lived(restored, steps[half:])
    mend = "keep what changes in attributes: numbers, arrays, tensors, lists, dicts, sets, networks, generators"
    expect(
        same(parted, whole), "equal bonuses after loading", "others, or the saved state went on with the module", mend
    )
    before, after = module.state_dict(), restored.state_dict()
    other = [name for name in before if not same(before[name], after.get(name))]
    expect(not other, "an equal state after going on", f"another {', '.join(other)}", mend)


def through_a_checkpoint(state: dict[str, Any]) -> dict[str, Any]:
    """What comes back of a state: JSON and safetensors, as in ``astray.experiments.checkpoint``."""
    tensors: dict[str, torch.Tensor] = {}
    arrays: dict[str, np.ndarray] = {}
    plain = json.loads(json.dumps(take_apart(state, "state", tensors, arrays)))
    tensors = safetensors.torch.load(safetensors.torch.save(tensors))
    arrays = safetensors.numpy.load(safetensors.numpy.save(arrays))
    return put_together(plain, tensors, arrays)


MODULE_CHECKS: tuple[Check, ...] = (
    bonuses_are_numbers,
    bonus_changes_nothing,
    chance_is_its_own,
    equal_seeds_agree,
    weight_is_left_to_the_stack,
    belongs_to_its_environments,
    rows_are_on_their_own,
    order_of_rows_means_nothing,
    stored_steps_pay_the_same,
    episodes_begin_anew,
    environments_are_apart,
    repetition_fades,
    state_is_whole,
)
