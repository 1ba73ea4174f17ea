"""The contract that every world keeps, as checks that say what was expected, what was found, and how to mend it.

``astray check FILE:CLASS`` runs them on a world of one's own; the tests run them on every registered one, and on worlds
with a bug planted in each. Checks of levels and goals are in ``astray.experiments.contract_levels``.
"""

import copy
import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from astray.agents.vec_env import WorldVecEnv
from astray.envs import World
from astray.envs.board import BoardWorld
from astray.envs.vector import WorldEnv, WorldVectorEnv

HEADINGS = (
    "Description",
    "Goals",
    "Shift",
    "Actions",
    "Observation",
    "Rewards",
    "Episode end",
    "Arguments",
    "Version history",
)
DIRECTIONS = {
    "north": (-1, 0),
    "south": (1, 0),
    "west": (0, -1),
    "east": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
}
RANDOM_STEPS = 100_000


class ContractError(AssertionError):
    """A world does not do what is expected of every world."""

    def __init__(self, expected: str, got: str, mend: str):
        super().__init__(f"expected: {expected}\ngot: {got}\nto mend: {mend}")
        self.expected, self.got, self.mend = expected, got, mend


def expect(so: Any, expected: str, got: Any, mend: str) -> None:
    """Raises ``ContractError`` unless ``so``."""
    if not so:
        raise ContractError(expected, str(got), mend)


@dataclass(frozen=True)
class Subject:
    """A world as it is checked: a class with arguments.

    Attributes:
        kind: the class.
        arguments: beside ``shift``, ``observation`` and ``style``.
    """

    kind: type[World]
    arguments: tuple[tuple[str, Any], ...] = ()

    def make(self, num_envs: int = 1, **more: Any) -> World:
        """The world with some rows; by default at its decorrelated arguments, where everything occurs."""
        return self.kind(num_envs, **self.kind.decorrelated | dict(self.arguments) | more)

    def env(self, **more: Any) -> WorldEnv:
        """The world as one Gymnasium environment."""
        return WorldEnv(self.kind, **self.kind.decorrelated | dict(self.arguments) | more)

    def envs(self, num_envs: int, mode: str, **more: Any) -> WorldVectorEnv:
        """The world as a Gymnasium vector environment."""
        arguments = self.kind.decorrelated | dict(self.arguments) | more
        return WorldVectorEnv(self.kind, num_envs, autoreset_mode=mode, **arguments)

    @property
    def numeric(self) -> list[str]:
        """The observations that Stable-Baselines3 can carry."""
        return [name for name in self.kind.observations if name != "text"]

    def actions(self, seed: int, *shape: int) -> np.ndarray:
        """Random actions."""
        return np.random.default_rng(seed).integers(len(self.kind.action_texts), size=shape)


def global_chance() -> bytes:
    """The state of the random generators that belong to everybody."""
    return pickle.dumps((random.getstate(), np.random.get_state()))


Check = Callable[[Subject], str | None]


# ---------------------------------------------------------------- what a world declares
def declarations(subject: Subject) -> None:
    """Names, goals and rewards fit together."""
    kind = subject.kind
    for what in ("action_texts", "event_names"):
        texts = getattr(kind, what)
        expect(texts and len(set(texts)) == len(texts), f"{what} that differ", texts, f"rename in {what}")
    unknown = [event for event in (*kind.goals.values(), *kind.event_rewards) if event not in kind.event_names]
    expect(not unknown, "goals and event_rewards about event_names", unknown, "add them to event_names")
    expect(len(set(kind.goals.values())) == len(kind.goals), "an event of its own for every goal", kind.goals, "goals")
    paid = any(pay > 0 for pay in kind.event_rewards.values())
    expect(paid, "a reward for something", kind.event_rewards, "let event_rewards pay for the intended goal")
    expect(0 < kind.discount < 1, "a discount between 0 and 1", kind.discount, "choose one such as 0.97")
    kinds = ("level", "horizon", "continual", "none")
    expect(kind.shift_kind in kinds, f"shift_kind among {kinds}", kind.shift_kind, "choose one of them")
    one = subject.make()
    expect(one.instruction.strip(), "an instruction", one.instruction, "say in it what the agent wants")


def manual(subject: Subject) -> None:
    """The docstring says what the goals and the shift are; a world of this package has all headings of a manual."""
    text = subject.kind.__doc__ or ""
    found = [line.strip("# ") for line in text.splitlines() if line.strip().startswith("## ")]
    ours = subject.kind.__module__.startswith("astray.envs.")
    needed = [heading for heading in HEADINGS if ours or heading in ("Goals", "Shift")]
    missing = [heading for heading in needed if heading not in found]
    expect(not missing, f"a docstring with the headings {', '.join(needed)}", f"no {missing}", "add them to the class")
    named = [f"``{name}``" for pair in subject.kind.goals.items() for name in pair]
    missing = [name for name in (*subject.kind.action_texts, *named) if name not in text]
    expect(
        not missing, "a docstring that names every action, goal and event of a goal", f"no {missing}", "describe them"
    )


# ---------------------------------------------------------------- Gymnasium and Stable-Baselines3
def gymnasium_checker(subject: Subject) -> None:
    """Gymnasium's own checker finds nothing, not even a warning, in any observation and style."""
    for observation in subject.kind.observations:
        for style in ("relative", "map") if observation in ("text", "bytes") else ("relative",):
            env = subject.env(observation=observation, style=style, render_mode="ansi")
            with warnings.catch_warnings(), passing("Gymnasium's check_env passes", f"{observation}, {style}"):
                warnings.simplefilter("error")
                check_env(env, skip_render_check=True)
            expect(isinstance(env.render(), str), "text from render()", type(env.render()), "return text from ascii()")
    if issubclass(subject.kind, BoardWorld):
        env = subject.env(render_mode="rgb_array")
        env.reset(seed=0)
        picture = np.asarray(env.render())
        seen = len(np.unique(picture.reshape(-1, 3), axis=0))
        expect(picture.dtype == np.uint8 and seen > 2, "a picture in several colours", f"{seen} colours", "image()")


def stable_baselines_checker(subject: Subject) -> None:
    """Stable-Baselines3's checker passes on every numeric observation."""
    for observation in subject.numeric:
        with warnings.catch_warnings(), passing("Stable-Baselines3's check_env passes", observation):
            warnings.simplefilter("error")
            # SB3 takes every 3-D box for an image; ours are small planes of zeros and ones for MLPs.
            warnings.filterwarnings("ignore", message=".*(image|minimal resolution).*")
            check_env_sb3(subject.env(observation=observation))


def determinism(subject: Subject) -> None:
    """Equal seeds and actions give equal episodes over 200 steps, and chance is nobody else's."""
    mend = "let all chance come from the draws, and dynamics from level and state alone"
    for observation in subject.kind.observations:
        envs = [subject.env(observation=observation) for _ in range(2)]
        before = global_chance()
        results = [env.reset(seed=7) for env in envs]
        expect(data_equivalence(results[0], results[1]), "equal first observations for equal seeds", results, mend)
        for action in subject.actions(0, 200).tolist():
            last, as_it_was = results[0][0], copy.deepcopy(results[0][0])
            results = [env.step(action) for env in envs]
            kept = data_equivalence(last, as_it_was)
            expect(kept, "an observation that later steps leave as it was", "another", "return fresh arrays")
            expect(data_equivalence(results[0], results[1]), "equal steps for equal seeds and actions", results, mend)
            seen = results[0][0]
            inside = envs[0].observation_space.contains(seen)
            expect(inside, f"an observation inside {envs[0].observation_space}", repr(seen), "max_text_length, planes")
            if results[0][2] or results[0][3]:
                results = [env.reset() for env in envs]
                expect(data_equivalence(results[0], results[1]), "equal next episodes for equal seeds", results, mend)
        after = global_chance()
        expect(before == after, "global random generators left alone", "one of them moved", mend)


# ---------------------------------------------------------------- episodes
def views_agree(subject: Subject) -> None:
    """One environment, a batch (both ways of autoreset) and the SB3 view tell the same story, to the end."""
    for observation in subject.kind.observations:
        for mode in ("next_step", "same_step"):
            _batch_agrees(subject, observation, mode)
    for observation in subject.numeric:
        _sb3_agrees(subject, observation)


def _batch_agrees(subject: Subject, observation: str, mode: str) -> None:
    n, mend = 4, "let rows not influence each other, and observations be fresh arrays"
    envs, singles = (
        subject.envs(n, mode, observation=observation),
        [subject.env(observation=observation) for _ in range(n)],
    )
    observations, _ = envs.reset(seed=3)
    for row, single in enumerate(singles):
        alone = single.reset(seed=3 + row)[0]
        expect(data_equivalence(observations[row], alone), f"row {row} as a single env", observations[row], mend)
    over = np.zeros(n, bool)
    for actions in subject.actions(1, 80, n):
        observations, reward, terminated, truncated, info = envs.step(actions)
        for row, single in enumerate(singles):
            if over[row]:  # next_step: the batch ignored the action and began a new episode
                alone = single.reset()[0]
                outcome = [reward[row], terminated[row], truncated[row], info["events"][row].any()]
                expect(not any(outcome), "nothing happens as an episode begins", outcome, mend)
                over[row] = False
            else:
                alone, *outcome, told = single.step(int(actions[row]))
                got = [reward[row], terminated[row], truncated[row]]
                expect(got == outcome[:3], f"reward and end of row {row} as of a single env: {outcome}", got, mend)
                ended = outcome[1] or outcome[2]
                last: dict[str, Any] = info["final_info"] if ended and mode == "same_step" else info
                names = tuple(n for n, so in zip(single.event_names, last["events"][row], strict=True) if so)
                expect(names == told["events"], f"events {told['events']}", names, mend)
                visits = last["goals"][row].tolist()
                expect(visits == list(told["goals"].values()), f"first visits {told['goals']}", visits, mend)
                if ended and mode == "same_step":
                    final = info["final_obs"][row]
                    expect(data_equivalence(final, alone), f"the true final observation {alone}", final, mend)
                    alone = single.reset()[0]
                over[row] = ended and mode == "next_step"
            expect(data_equivalence(observations[row], alone), f"row {row}: {alone}", observations[row], mend)


def _sb3_agrees(subject: Subject, observation: str) -> None:
    n, mend = 3, "let rows not influence each other, and observations be fresh arrays"
    envs, singles = (
        WorldVecEnv(subject.make(n, observation=observation)),
        [subject.env(observation=observation) for _ in range(n)],
    )
    envs.seed(11)
    seen: Any = envs.reset()
    for row, single in enumerate(singles):
        alone = single.reset(seed=11 + row)[0]
        expect(data_equivalence(seen[row], alone), f"row {row} as a single env", seen[row], mend)
    for actions in subject.actions(2, 80, n):
        seen, rewards, dones, infos = envs.step(actions)
        for row, single in enumerate(singles):
            alone, reward, terminated, truncated, told = single.step(int(actions[row]))
            got = float(rewards[row]), bool(dones[row]), infos[row]["events"]
            expected = float(np.float32(reward)), terminated or truncated, told["events"]
            expect(got == expected, f"row {row}: {expected}", got, mend)
            if dones[row]:
                final = infos[row]["terminal_observation"]
                expect(data_equivalence(final, alone), f"the true final observation {alone}", final, mend)
                limited = infos[row]["TimeLimit.truncated"]
                expect(limited == truncated, f"TimeLimit.truncated = {truncated}", limited, mend)
                alone = single.reset()[0]
            expect(data_equivalence(seen[row], alone), f"row {row}: {alone}", seen[row], mend)


def state_is_whole(subject: Subject) -> None:
    """A pickled copy, and a new world that was given the state, go on as the world itself does."""
    observation = subject.numeric[-1]
    played, fresh = (subject.make(3, observation=observation) for _ in range(2))
    actions = subject.actions(4, 90, 3)
    played.reset(seed=5)
    for row in actions[:9]:
        over = np.logical_or(*played.step(row)[1:3])
        played.next_level(np.flatnonzero(over))
    fresh.reset(seed=1)
    fresh.set_state(played.get_state())
    copies = [("a pickled copy", pickle.loads(pickle.dumps(played))), ("a world that was given the state", fresh)]
    mend = "keep everything that changes in self.state, as arrays"
    for row in actions[9:]:
        told = played.step(row)
        over = np.flatnonzero(told[1] | told[2])
        for name, other in copies:
            expect(data_equivalence(other.step(row), told), f"{name} goes on alike", "another step", mend)
        for each in (played, fresh, copies[0][1]):
            each.next_level(over)
        for name, other in copies:
            same = data_equivalence(other.observe(), played.observe()) and data_equivalence(other.state, played.state)
            expect(same, f"{name} goes on alike", "another observation", mend)


def invariants(subject: Subject) -> None:
    """Over 100,000 random steps: rewards are what events pay, ends are ends, nothing happens where nothing changes."""
    n = 256
    played = subject.make(n, observation=subject.numeric[-1])
    played.reset(seed=0)
    for actions in subject.actions(3, RANDOM_STEPS // n, n):
        before, visited = copy.deepcopy(played.state), played.first_visit.copy()
        reward, terminated, truncated, events = played.step(actions)
        pays = events @ [played.event_rewards.get(name, 0.0) for name in played.event_names]
        expect(np.array_equal(reward, pays), "rewards that event_rewards pays", reward, "pay by event_rewards alone")
        expect(not (terminated & truncated).any(), "either termination or truncation", "both", "leave step() alone")
        limit = (played.steps >= played.max_steps) & ~terminated
        expect(np.array_equal(truncated, limit), "truncation at max_steps", truncated, "leave step() alone")
        still = np.ones(n, bool)
        for name, values in played.state.items():
            still &= (values == before[name]).reshape(n, -1).all(axis=1)
        idle = still & events.any(axis=1) & ~terminated
        mend = "report an event only as it happens"
        expect(not idle.any(), "no event where the state stays", events[idle][:1], mend)
        goals = events[:, [played.event_names.index(event) for event in played.goals.values()]]
        first = np.where((visited < 0) & goals, played.steps[:, None], visited)
        expect(np.array_equal(first, played.first_visit), "first visits of goals", played.first_visit, "leave step()")
        if isinstance(played, BoardWorld):
            _on_the_board(played)
        over = np.flatnonzero(terminated | truncated)
        played.next_level(over)
        expect((played.first_visit[over] < 0).all(), "no goal reached as an episode begins", "some", "leave step()")
        fresh = played.start({name: values[over] for name, values in played.level.items()})
        same = all(np.array_equal(played.state[name][over], values) for name, values in fresh.items())
        expect(same and set(fresh) == set(played.state), "episodes that begin as start() says", "others", "start()")


def _on_the_board(played: BoardWorld) -> None:
    agent, n = played.state["agent"], played.num_envs
    inside = ((agent >= 0) & (agent < played.height * played.width)).all()
    expect(inside, "an agent on the board", agent, "let moves off the board lead nowhere")
    if played.walled:
        walls = played.level["walls"].reshape(n, -1)[np.arange(n), agent]
        expect(not walls.any(), "an agent outside walls", np.flatnonzero(walls), "let moves into walls lead nowhere")
    planes = BoardWorld.planes(played, np.arange(n)).reshape(n, -1, played.height * played.width)
    expect((planes[:, 1].argmax(1) == agent).all(), "the agent's plane where the agent is", agent, "planes()")
    for channel, name in enumerate(played.things.values(), start=2):
        there = (played.cells(name).reshape(n, -1) >= 0).sum(axis=1)
        shown, drawn = planes[:, channel].sum(axis=1), (played.level[name].reshape(n, -1) >= 0).sum(axis=1)
        expect((shown == there).all(), f"{name} in their plane", shown, "planes() and cells()")
        expect((there <= drawn).all(), f"no more {name} than the level holds", there, "cells()")


# ---------------------------------------------------------------- actions and bad input
def actions_do_what_they_say(subject: Subject) -> None:
    """An action named after a direction moves the agent there or nowhere, and every action does something somewhere."""
    dead = set(subject.kind.action_texts) - _changing_actions(subject)
    for variant in subject.kind.variants:  # an action may be about what only another variant has
        if dead:
            dead -= _changing_actions(Subject(subject.kind, tuple(variant.items())))
    expect(not dead, "actions that change something in some state", f"{sorted(dead)} never do", "remove them")


@cache
def _changing_actions(subject: Subject) -> set[str]:
    """The actions that ever changed the state in many random episodes."""
    n, changing = 400, set()
    played = subject.make(n)
    played.reset(seed=0)
    for actions in subject.actions(0, 4 * played.max_steps, n):
        before = copy.deepcopy(played.state)
        _, ended, truncated, _ = played.step(actions)
        changing |= set(actions[ended].tolist())
        for name, values in played.state.items():
            changing |= set(actions[(values != before[name]).reshape(n, -1).any(axis=1)].tolist())
        if isinstance(played, BoardWorld):
            _moves_as_told(played, before["agent"], actions)
        played.next_level(np.flatnonzero(ended | truncated))
    return {played.action_texts[action] for action in changing}


def _moves_as_told(played: BoardWorld, before: np.ndarray, actions: np.ndarray) -> None:
    down, right = np.array(np.divmod(played.state["agent"], played.width)) - np.divmod(before, played.width)
    for action, text in enumerate(played.action_texts):
        if way := DIRECTIONS.get(text.split()[-1]):
            along, across = down * way[0] + right * way[1], down * way[1] + right * way[0]
            # Seen from the side, whoever goes left or right may fall; seen from above, ways are straight.
            astray = across != 0 if played.compass[0] != "up" else (across != 0) & (along == 0)
            wrong = (actions == action) & ((along < 0) | astray)
            got = f"{text!r} moved an agent by {down[wrong][:1]} down and {right[wrong][:1]} right"
            expect(not wrong.any(), "moves in the direction that the text says", got, "action_texts, or advance()")


def wrong_steps(subject: Subject) -> None:
    """A step before reset, after the end, or by no action is one clear error that changes nothing."""
    env, mend = subject.env(), "leave step() to World and WorldEnv"
    for attempt in (lambda: env.step(0), lambda: _past_the_end(env)):
        try:
            attempt()
        except gym.error.ResetNeeded:
            continue
        expect(False, "ResetNeeded for a step before reset() or after the end", "a step", mend)
    env.reset(seed=0)
    before = env.world.get_state()
    for action in (len(subject.kind.action_texts), -1, 0.5, "go"):
        try:
            env.step(action)
        except ValueError as error:
            expect("\n" not in str(error), "an error of one sentence", error, mend)
            same = data_equivalence(env.world.get_state(), before)
            expect(same, "a state that a wrong action leaves as it was", "another state", mend)
            continue
        expect(False, f"an error for the action {action!r}", "a step", mend)


def _past_the_end(env: WorldEnv) -> None:
    env.reset(seed=0)
    for _ in range(env.world.max_steps + 1):
        env.step(0)


@contextmanager
def passing(expected: str, where: str) -> Iterator[None]:
    """Turns whatever a foreign checker raises into a broken contract."""
    try:
        yield
    except Exception as error:
        raise ContractError(f"{expected} ({where})", f"{error}", "see what it says") from error


EPISODE_CHECKS: tuple[Check, ...] = (
    declarations,
    manual,
    gymnasium_checker,
    stable_baselines_checker,
    determinism,
    views_agree,
    state_is_whole,
    invariants,
    actions_do_what_they_say,
    wrong_steps,
)


def subjects(kind: type[World]) -> Iterator[Subject]:
    """A world as it is by default, and its variants."""
    yield Subject(kind)
    for variant in kind.variants:
        yield Subject(kind, tuple(variant.items()))
