"""Playing levels in the terminal, with the text that a language model reads: by hand, or watching a policy."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from astray.envs import World, find_world
from astray.envs.levels import Levels, take
from astray.experiments.levels import check_seed, make_world

if TYPE_CHECKING:
    from astray.agents.acting import StochasticAgent

ROW = np.array([0])
BAR = 20


def play_world(
    world: str | type[World],
    shift: float,
    seed: int,
    read: Callable[[str], str] = input,
    ansi: bool = True,
    levels: Levels | None = None,
    **arguments: Any,
) -> None:
    """Plays by hand: shows picture, text and events, and reads a move a turn until the episode or the input ends.

    Args:
        world: an id, a command-line name, or a class.
        shift: of the level.
        seed: of the level.
        read: asks for a line; raises ``EOFError`` at the end of the input.
        ansi: whether the picture is shown; without it there is only what the model reads.
        levels: given levels, played one after the other, in place of the seed's first.
        **arguments: the world's.
    """
    played = make_world(find_world(world), 1, **{"shift": shift} | arguments)
    begun = begin_each(played, seed, levels, len(levels["fingerprint"]) if levels else 1)
    print(f"{played.instruction}\nType a move, its first letters or its number, or q to leave.")
    try:
        for _ in begun:
            if not _play_episode(played, read, ansi):
                return
    except (EOFError, KeyboardInterrupt):
        print()


def _play_episode(world: World, read: Callable[[str], str], ansi: bool) -> bool:
    """Plays from where the world stands; False if the player leaves."""
    texts, total, over = world.action_texts, 0.0, False
    while not over:
        print(f"\n{shown(world, ansi)}")
        if sys.stdin.isatty():
            print("  ".join(f"{number} {text}" for number, text in enumerate(texts)))
        answer = read("> ").strip()
        if answer.lower() in ("q", "quit"):
            return False
        actions = meanings(answer, texts)
        if len(actions) != 1:
            what = "could be any" if actions else "is none"
            print(f"{answer!r} {what} of: {', '.join(texts[action] for action in actions or range(len(texts)))}")
            continue
        reward, terminated, truncated, events = world.step(np.array(actions))
        total, over = total + reward[0], bool(terminated[0] or truncated[0])
        print(happened(names_of(world, events[0]), reward[0]), end="")
    print(f"\n{shown(world, ansi)}\n{ending(world, total)}")
    return True


def show_policy(
    agent: "StochasticAgent",
    world: World,
    seed: int,
    levels: Levels | None = None,
    ansi: bool = True,
    delay: float = 0.0,
) -> None:
    """Shows how a policy plays: before each step the probabilities of its actions, and which one was taken.

    Args:
        agent: the policy.
        world: of one row, with the observation that the policy sees.
        seed: of level and actions.
        levels: given levels, in place of the seed's first.
        ansi: whether the picture is shown.
        delay: seconds between steps.
    """
    check_seed(seed)
    rng = np.random.default_rng(seed)
    width = max(map(len, world.action_texts))
    print(world.instruction)
    try:
        for _ in begin_each(world, seed, levels, len(levels["fingerprint"]) if levels else 1):
            total = 0.0
            for moment in watch(agent, world, rng, lambda: shown(world, ansi)):
                total += moment.reward
                print(f"\n{moment.view}")
                for action, (text, share) in enumerate(zip(world.action_texts, moment.probabilities, strict=True)):
                    mark = ">" if action == moment.action else " "
                    print(f"{mark} {text:{width}} {share:.2f} {'=' * round(BAR * share)}".rstrip())
                print(happened(moment.events, moment.reward), end="", flush=True)
                time.sleep(delay)
            print(f"\n{shown(world, ansi)}\n{ending(world, total)}")
    except KeyboardInterrupt:
        print()


@dataclass
class Moment:
    """One step of an episode.

    Attributes:
        number: of the step, from 1.
        view: what was there before it.
        probabilities: of each action, ``float64[A]``.
        action: the one that was taken.
        reward: what it paid.
        events: what happened.
    """

    number: int
    view: Any
    probabilities: np.ndarray
    action: int
    reward: float
    events: tuple[str, ...]


def watch(
    agent: "StochasticAgent", world: World, rng: np.random.Generator, look: Callable[[], Any]
) -> Iterator[Moment]:
    """Plays an episode of a world of one row from where it stands; ``look`` sees it before each step."""
    from astray.experiments.playing import play  # which imports torch, and a person may want to play by hand

    steps = play(agent, world, rng)
    number, view = 1, look()
    while (step := next(steps, None)) is not None:
        events = names_of(world, step.events[0])
        yield Moment(number, view, step.probabilities[0], int(step.actions[0]), float(step.reward[0]), events)
        number, view = number + 1, look()


def begin_each(world: World, seed: int, levels: Levels | None, count: int) -> Iterator[int]:
    """Puts a world of one row at the start of one episode after the other: given levels in turn, or the seed's."""
    for number in range(count):
        if levels:
            world.set_levels(take(levels, [number % len(levels["fingerprint"])]))
        else:
            world.reset(seed=None if number else seed)
        yield number


def shown(world: World, ansi: bool) -> str:
    """The picture of a world of one row, and what a language model reads."""
    text = world.sentences(ROW)[0]
    picture = world.ascii() if ansi else text
    return text if picture == text else f"{picture}\n{text}"


def names_of(world: World, events: np.ndarray) -> tuple[str, ...]:
    """The names of what happened (``bool[E]``)."""
    return tuple(name for name, is_so in zip(world.event_names, events, strict=True) if is_so)


def happened(events: Sequence[str], reward: float) -> str:
    """A line for every event, and for a reward."""
    return "".join([*(f"* {event}\n" for event in events), f"* reward {reward:g}\n" if reward else ""])


def ending(world: World, total: float) -> str:
    """What came of an episode of a world of one row: return, which goal came first, and when each was reached."""
    visits = dict(zip(world.goals, world.first_visit[0].tolist(), strict=True))
    reached = {goal: step for goal, step in visits.items() if step >= 0}
    first = [goal for goal, step in reached.items() if step == min(reached.values())]
    if not first:
        outcome = "no goal was reached"
    elif len(first) > 1:
        outcome = f"{' and '.join(first)} came at once"
    else:
        outcome = f"{first[0]} came first, {'the intended' if first[0] == next(iter(visits)) else 'a proxy'} goal"
    when = ", ".join(f"{goal} {f'in step {step}' if step >= 0 else 'never'}" for goal, step in visits.items())
    steps = f"{world.steps[0]} step{'s' if world.steps[0] > 1 else ''}"
    return f"The episode is over after {steps}, return {total:g}: {outcome} ({when})."


def meanings(answer: str, texts: Sequence[str]) -> list[int]:
    """The actions that an answer may mean: one if it is clear, none or several if it is not.

    An action is called by its text, its number, its last word or its initials, or by how its text, its last word or
    its initials begin; what fits as a whole goes before what only begins so.
    """
    answer = " ".join(answer.lower().split())
    if not answer:
        return []
    if answer.isdecimal() and int(answer) < len(texts) and answer not in texts:
        return [int(answer)]
    names = [text.lower() for text in texts]
    ends = [text.split()[-1] for text in names]
    initials = ["".join(word[0] for word in text.split()) if " " in text else "" for text in names]
    for whole in ((names,), (ends, initials)):
        if found := _where(whole, lambda name: name == answer):
            return found
    return _where((names, ends, initials), lambda name: name.startswith(answer))


def _where(kinds: Sequence[Sequence[str]], fits: Callable[[str], bool]) -> list[int]:
    return sorted({action for names in kinds for action, name in enumerate(names) if fits(name)})
