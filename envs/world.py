"""The world seam: batched dynamics written once, on NumPy struct-of-arrays.

A world is B independent copies of one game, stepped together. ``astray.envs.vector`` shows it as a ``gym.Env`` (the
batch of one) and a ``gym.vector.VectorEnv``; ``astray.agents.vec_env`` as a Stable-Baselines3 ``VecEnv``.
"""

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from astray.envs import text
from astray.envs.errors import InputError, choose
from astray.envs.graph import NEVER, StateGraph, solve
from astray.envs.levels import (
    SPLITS,
    Draws,
    Levels,
    bits_of,
    numbers_of,
    take,
    text_of,
)
from astray.envs.source import LevelSource

OBSERVATIONS = ("text", "bytes", "planes", "egocentric")
STYLES = ("relative", "map")
PARTS = ("action_texts", "event_names", "goals", "event_rewards")


class World(LevelSource):
    """B copies of one world, stepped together.

    A subclass declares what follows, and says how to draw a level (``sample``), where it starts (``start``), how it
    goes on (``advance``) and how it is told (``sentences``). Dynamics are deterministic, ``advance`` reads nothing but
    ``self.level`` and ``self.state`` and changes nothing but ``self.state``, and both hold integers and truth values:
    then what every goal is worth on every level is found out by exploring the world's own rules.

    Attributes:
        action_texts: what each action is called.
        event_names: the things that can happen in a step.
        goals: goal name to the event that reaches it, the intended goal first, then the proxy goals.
        event_rewards: what the world pays per event (the correct reward).
        discount: per step, below 1, used by values and margins.
        expert_exact: whether ``action_values`` are exact. Where they are not, the experts are a heuristic, and nothing
            is called optimal or regret.
        shift_kind: what the shift changes: "level", "horizon", "continual" or "none".
        decorrelated: the arguments under which intended and proxy goal are independent (the control arm).
        observations: which observations it offers, of ``OBSERVATIONS``.
        max_text_length: the length of the longest sentence, in characters.
        text_is_local: whether relative text is enough to walk by but not to plan by, as in a maze.
        variants: arguments under which the contract is checked, beside none at all.
        instruction: the task in words, told to a language model once before every observation.
    """

    version: ClassVar[int] = 0
    action_texts: ClassVar[tuple[str, ...]]
    event_names: tuple[str, ...]
    goals: ClassVar[dict[str, str]]
    event_rewards: ClassVar[dict[str, float]]
    discount: ClassVar[float] = 0.97
    expert_exact: ClassVar[bool] = True
    shift_kind: ClassVar[str] = "level"
    decorrelated: ClassVar[dict[str, Any]] = {"shift": 1.0}
    observations: ClassVar[tuple[str, ...]] = ("text", "bytes", "planes")
    text_is_local: bool = False
    variants: ClassVar[tuple[dict[str, Any], ...]] = ()
    max_text_length: int
    instruction: str

    def __new__(cls, *_: Any, **__: Any):
        """Refuses a world without its parts.

        Raises:
            InputError: names those that are missing.
        """
        missing = [name for name in PARTS if not hasattr(cls, name)] + sorted(cls.__abstractmethods__)
        if missing:
            raise InputError(f"world {cls.__name__} is not whole: it must say {', '.join(missing)}")
        return super().__new__(cls)

    def __init__(
        self,
        num_envs: int = 1,
        *,
        max_steps: int = 20,
        shift: float = 0.0,
        split: str = "all",
        num_levels: int | None = None,
        observation: str = "text",
        style: str = "relative",
    ):
        if num_envs < 1:
            raise InputError(f"num_envs={num_envs} must be at least 1")
        if not 0 <= shift <= 1:
            raise InputError(f"shift={shift} is a probability, so it must lie in [0, 1]")
        if max_steps < 1:
            raise InputError(f"max_steps={max_steps} must be at least 1")
        if num_levels is not None and num_levels < 1:
            raise InputError(f"num_levels={num_levels} must be at least 1, or None for as many as there are")
        self.num_envs, self.max_steps, self.shift, self.num_levels = num_envs, max_steps, float(shift), num_levels
        self.split = choose("split", split, SPLITS)
        self.observation = choose("observation", observation, self.observations)
        self.style = choose("style", style, STYLES)
        self.action_space = text.NamedDiscrete(self.action_texts)
        self._goal_events = np.array([self.event_names.index(event) for event in self.goals.values()])
        self._pay = np.array([self.event_rewards.get(event, 0.0) for event in self.event_names])
        self._each_row = np.arange(num_envs)
        self._bank_size = min(256, max(4, 4096 // num_envs))
        self._bank: Levels = {}
        self.level: Levels = {}
        self.state: dict[str, np.ndarray] = {}
        self._graph: StateGraph | None = None
        self._seeded = False
        self.seeds = np.zeros(num_envs, np.uint64)
        self.episode = np.full(num_envs, -1, np.int64)
        self._bank_end = np.zeros(num_envs, np.int64)
        self.steps = np.zeros(num_envs, np.int64)
        self.first_visit = np.full((num_envs, len(self.goals)), -1, np.int64)

    # ---------------------------------------------------------------- what a world says
    @abstractmethod
    def start(self, levels: Levels) -> dict[str, np.ndarray]:
        """The state in which n levels start: arrays of integers or truth values, one row per level."""

    @abstractmethod
    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Moves every row; returns events ``bool[B, E]`` and terminated ``bool[B]``."""

    @abstractmethod
    def sentences(self, rows: np.ndarray) -> list[str]:
        """What a language model reads, one text for each of some rows (``int[n]``)."""

    def solvable(self, levels: Levels) -> np.ndarray:
        """Whether the intended goal can be reached in time, ``bool[n]``.

        A world whose levels are so by construction, or that has a faster test, says so itself.
        """
        return solve(self, levels)[2]

    def planes(self, rows: np.ndarray) -> np.ndarray:
        """Feature planes of some rows, ``uint8[n, C, H, W]`` of zeros and ones.

        Unless a world has its own: the 16 lowest bits of every number in level and state, ``uint8[n, 1, numbers, 16]``.
        """
        return bits_of(take(self.nameless(self.level) | self.state, rows), len(rows))

    def egocentric(self, rows: np.ndarray) -> np.ndarray:
        """Feature planes centred on the agents of some rows, ``uint8[n, C, H, W]``."""
        raise NotImplementedError

    @property
    def plane_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the planes that this world's observation shows."""
        one = self.sample(Draws(np.zeros(1, np.uint64), np.zeros(1, np.uint64)))
        return bits_of(one | self.start(one), 1).shape[1:]

    def ascii(self, row: int = 0) -> str:
        """The current state of one row as a picture of characters; without a picture, in words."""
        return self.sentences(np.array([row]))[0]

    def image(self, row: int = 0) -> np.ndarray:
        """The current state of one row as a picture, ``uint8[height, width, 3]``."""
        raise InputError(f"render_mode='rgb_array': {type(self).__name__} has no pictures, use 'ansi'")

    def level_text(self, levels: Levels, index: int) -> str:
        """One level as text that a person can read and edit; without a picture, its numbers by name."""
        return text_of(self.nameless(levels), index)

    def parse_level(self, level: str) -> Levels:
        """A level from its text, as arrays of one row.

        Raises:
            InputError: the text is no level of this world, or its intended goal cannot be reached in time.
        """
        one = self.sample(Draws(np.zeros(1, np.uint64), np.zeros(1, np.uint64)))
        return self.checked(numbers_of(level, self.nameless(one)))

    # ---------------------------------------------------------------- what the goals are worth
    def classify(self, levels: Levels) -> tuple[np.ndarray, np.ndarray]:
        """Class (``str[n]``, see ``LEVEL_CLASSES``) and margin (``float64[n]``) of levels."""
        return solve(self, levels)[:2]

    def worth(self, steps: np.ndarray) -> np.ndarray:
        """The discounted value of a goal that is reached so many steps from the start, ``float64[n]``."""
        return np.where(steps <= self.max_steps, self.discount ** (np.minimum(steps, self.max_steps) - 1.0), 0.0)

    def action_values(self) -> np.ndarray:
        """What each action is worth for each goal in the current state, ``float64[B, G, A]``.

        The discounted value of taking the action, then acting optimally until goal g is reached for the first time:
        ``discount ** (steps - 1)`` if that takes so many steps, this one included. It is 0 where the goal was reached
        before, or can no longer be reached. The time limit is ignored.
        """
        if self._graph is None:  # once per level
            self._graph = StateGraph.of(self, self.level)
        nodes = self._graph.find(self._each_row, self.state)
        steps = self._graph.steps_after(nodes).transpose(0, 2, 1)
        # A row that was moved on after its end may be in no state that a level gets to.
        open_goals = (steps < NEVER) & (self.first_visit < 0)[:, :, None] & (nodes >= 0)[:, None, None]
        return np.where(open_goals, self.discount ** (np.where(open_goals, steps, 1) - 1.0), 0.0)

    def other_values(self) -> np.ndarray:
        """The same for goals that the world does not declare, ``float64[B, K, A]``: what else an agent may want.

        A place k stands for the same goal until the episode ends, and is NaN where a level has no such goal. A world
        has none unless it says so.
        """
        return np.zeros((self.num_envs, 0, len(self.action_texts)))

    def optimal_actions(self, values: np.ndarray | None = None) -> np.ndarray:
        """The optimal actions for each goal in the current state: ``bool[B, G, A]``.

        Those of the intended goal where goal g was reached before, or cannot be reached.

        Args:
            values: ``action_values()``, if they are known already.
        """
        values = self.action_values() if values is None else values
        best = values.max(axis=2, keepdims=True)
        optimal = (values >= best * (1 - 1e-9)) & (best > 0)  # equal but for rounding
        return np.where(best > 0, optimal, optimal[:, :1])

    # ---------------------------------------------------------------- names and spaces
    @property
    def choices(self) -> str:
        """All actions in words, for an instruction: "go north, go south, go west or go east"."""
        return f"{', '.join(self.action_texts[:-1])} or {self.action_texts[-1]}"

    @classmethod
    def id(cls) -> str:
        """The Gymnasium id."""
        return f"astray/{cls.__name__}-v{cls.version}"

    @classmethod
    def slug(cls) -> str:
        """The name on the command line: CheeseCorner is cheese-corner."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()

    @property
    def observation_space(self) -> spaces.Space:
        """The space of one row's observation.

        Raises:
            InputError: the world does not say what it takes.
        """
        if missing := [name for name in ("instruction", "max_text_length") if not hasattr(self, name)]:
            raise InputError(f"world {type(self).__name__} is not whole: it must say {', '.join(missing)}")
        if self.observation == "text":
            return spaces.Text(self.max_text_length, min_length=1, charset=text.PRINTABLE)
        if self.observation == "bytes":
            return text.TextBytes(self.max_text_length, self.instruction)
        return spaces.Box(0, 1, self.plane_shape, np.uint8)

    # ---------------------------------------------------------------- episodes
    def reset(self, seed: int | Sequence[int] | None = None) -> None:
        """Starts every row's next episode; with a seed, row i starts over as a single world at ``seed + i``.

        The first reset without a seed takes one from the operating system.
        """
        if seed is None and not self._seeded:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        if seed is not None:
            self._seeded = True
            seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
            if len(seeds) != self.num_envs or min(seeds) < 0:
                raise InputError(f"seed={seed} must be one non-negative integer, or one for each of {self.num_envs}")
            self.seeds = np.array([int(s) % 2**64 for s in seeds], np.uint64)
            self.episode = np.full(self.num_envs, -1, np.int64)
            self._bank_end = np.zeros(self.num_envs, np.int64)
        self.next_level(self._each_row)

    def _draw_bank(self) -> None:
        """Draws each row's next episodes, as many as are not in its bank yet.

        Levels are drawn many at once, since a large batch costs little more than one level. A row's bank is a ring:
        episode e lies at ``e % bank_size``.
        """
        lacking = self.episode + 1 + self._bank_size - self._bank_end
        rows = np.repeat(self._each_row, lacking)
        first = np.repeat(np.cumsum(lacking) - lacking, lacking)
        episodes = self._bank_end[rows] + np.arange(len(rows)) - first
        levels = self.draw_levels(*self._drawn_from(rows, episodes))
        places = self._places_in_bank(rows, episodes)
        for name, values in levels.items():
            if name not in self._bank:
                self._bank[name] = np.empty((self.num_envs * self._bank_size, *values.shape[1:]), values.dtype)
                self.level.setdefault(name, np.empty((self.num_envs, *values.shape[1:]), values.dtype))
            self._bank[name][places] = values
        self._bank_end += lacking

    def _drawn_from(self, rows: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The env seed and episode whose level some rows' episodes are on."""
        seeds = self.seeds[rows]
        if self.num_levels is None:
            return seeds, episodes
        return np.zeros_like(seeds), Draws(seeds, episodes).integers("number of the level", self.num_levels)

    def _places_in_bank(self, rows: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        return rows * self._bank_size + episodes % self._bank_size

    def next_level(self, rows: np.ndarray) -> None:
        """Starts the next episode of some rows (``int[n]``)."""
        if not len(rows):
            return
        episodes = self.episode[rows] + 1
        if np.count_nonzero(episodes >= self._bank_end[rows]):
            self._draw_bank()
        self.episode[rows] = episodes
        places = self._places_in_bank(rows, episodes)
        for name, values in self._bank.items():
            self.level[name][rows] = values.take(places, axis=0)
        self._start(rows)

    def set_levels(self, levels: Levels) -> None:
        """Starts every row on a given level (arrays of ``num_envs`` rows)."""
        self.level = {name: values.copy() for name, values in levels.items()}
        self._start(self._each_row)

    def _start(self, rows: np.ndarray) -> None:
        self.steps[rows] = 0
        self.first_visit[rows] = -1
        self.begin(rows)

    def begin(self, rows: np.ndarray) -> None:
        """Sets the state of some rows (``int[n]``) to the start of their level."""
        self._graph = None
        for name, values in self.start(self.levels_of(rows)).items():
            if name not in self.state:
                self.state[name] = np.empty((self.num_envs, *values.shape[1:]), values.dtype)
            self.state[name][rows] = values

    def levels_of(self, rows: np.ndarray) -> Levels:
        """The levels of some rows (``int[n]``)."""
        return {name: values.take(rows, axis=0) for name, values in self.level.items()}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Moves every row.

        Args:
            actions: ``int[B]``.

        Returns:
            Reward ``float64[B]``, terminated ``bool[B]``, truncated ``bool[B]``, events ``bool[B, E]``.

        Raises:
            ValueError: an action is not one of the world's.
        """
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise InputError(f"actions must be {self.num_envs} integers, not {actions.dtype} of shape {actions.shape}")
        # As unsigned integers negative ones are large. (In a batch of one, every call to NumPy counts.)
        if np.count_nonzero(actions.astype(np.uint64) >= len(self.action_texts)):
            raise InputError(f"actions={actions} must lie in 0..{len(self.action_texts) - 1}")
        events, terminated = self.happen(actions)
        self.steps += 1
        happened = events.take(self._goal_events, axis=1)
        if np.count_nonzero(happened):
            np.copyto(self.first_visit, self.steps[:, None], where=happened & (self.first_visit < 0))
        truncated = (self.steps >= self.max_steps) & ~terminated
        return events.dot(self._pay), terminated, truncated, events

    def happen(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``advance``, and whatever else is counted without being part of the rules."""
        return self.advance(actions)

    def observe(self, rows: np.ndarray | None = None) -> Any:
        """The observations of some rows (``int[n]``; None: all): a tuple of texts, or an array with one row each."""
        rows = self._each_row if rows is None else rows
        if self.observation == "planes":
            return self.planes(rows)
        if self.observation == "egocentric":
            return self.egocentric(rows)
        sentences = self.sentences(rows)
        if self.observation == "text":
            return tuple(sentences)
        return text.encode(sentences, self.max_text_length)

    # ---------------------------------------------------------------- state
    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on, as arrays: seeds, episode, steps, goals visited, level, state."""
        own = {name: getattr(self, name).copy() for name in ("seeds", "episode", "steps", "first_visit")}
        return own | {
            "level": {name: values.copy() for name, values in self.level.items()},
            "state": {name: values.copy() for name, values in self.state.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        for name in ("seeds", "episode", "steps", "first_visit"):
            setattr(self, name, state[name].copy())
        self._seeded = True
        self._bank_end = self.episode + 1
        self.level = {name: values.copy() for name, values in state["level"].items()}
        self.begin(self._each_row)
        self.state = {name: values.copy() for name, values in state["state"].items()}
