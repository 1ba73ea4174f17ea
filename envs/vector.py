"""Gymnasium's two views of a world: one environment, and many in one batch."""

from collections.abc import Sequence
from itertools import compress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from astray.envs.errors import InputError, choose
from astray.envs.levels import Levels, join
from astray.envs.loading import world_class
from astray.envs.world import World


def given_levels(world: World, options: dict[str, Any]) -> Levels:
    """The levels that ``reset(options={"level": ...})`` asks for: one ASCII text, or one per row.

    Raises:
        InputError: an unknown option, the wrong number of levels, or a text that is no level.
    """
    if set(options) != {"level"}:
        raise InputError(f"options={options}: the only option is 'level', not {', '.join(map(repr, sorted(options)))}")
    level = options["level"]
    texts = [level] * world.num_envs if isinstance(level, str) else list(level)
    if len(texts) != world.num_envs or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"options['level'] must be one level as text, or one for each of {world.num_envs} environments"
        )
    return join([world.parse_level(text) for text in texts])


class WorldEnv(gym.Env):
    """One world as a ``gym.Env``: the batch of one.

    ``info`` holds ``events`` (names of what happened in this step), ``goals`` (goal name to the step of its first
    visit, -1 before), ``action_texts``, and ``level`` (ASCII, as ``reset(options={"level": ...})`` takes it).
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 (gymnasium's own shape)

    def __init__(self, world: str | type[World], render_mode: str | None = None, **arguments: Any):
        self.render_mode = choose("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.world = world_class(world)(1, **arguments)
        self.event_names, self.goals = self.world.event_names, self.world.goals
        self._seeded = self._over = False
        self.observation_space = self.world.observation_space
        self.action_space = self.world.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts the next episode; with a seed, starts over. ``options={"level": text}`` plays a given level."""
        super().reset(seed=seed)
        given = given_levels(self.world, options) if options else None
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**63))
        self._seeded, self._over = True, False
        self.world.reset(seed=seed)
        if given:
            self.world.set_levels(given)
        self._level = self.world.level_text(self.world.level, 0)
        return self._observation(), self._info(())

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Moves once."""
        if self._over or not self._seeded:
            raise gym.error.ResetNeeded("step() was called before reset(), or after the episode's end: call reset()")
        reward, terminated, truncated, events = self.world.step(np.array([action]))
        self._over = bool(terminated[0] or truncated[0])
        names = tuple(compress(self.event_names, events[0].tolist()))
        return (
            self._observation(),
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            self._info(names),
        )

    def render(self) -> str | np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What there is now, as characters ("ansi") or as a picture ("rgb_array", ``uint8[height, width, 3]``)."""
        if self.render_mode == "rgb_array":
            return self.world.image()
        return self.world.ascii() if self.render_mode == "ansi" else None

    def _observation(self) -> Any:
        return self.world.observe()[0]

    def _info(self, events: tuple[str, ...]) -> dict[str, Any]:
        goals = dict(zip(self.world.goals, self.world.first_visit[0].tolist(), strict=True))
        return {
            "events": events,
            "goals": goals,
            "action_texts": self.world.action_texts,
            "level": self._level,
        }


class WorldVectorEnv(VectorEnv):
    """Many copies of a world as a ``gym.vector.VectorEnv``; copy i of ``reset(seed=s)`` is a single env at ``s + i``.

    ``info`` holds ``events`` (``bool[B, E]``), ``goals`` (first visits, ``int64[B, G]``) and ``level`` (fingerprints,
    ``uint64[B]``); the names are ``event_names`` and ``goal_names`` here. With ``autoreset_mode="same_step"`` the
    last observation and info of an episode, its last events among them, are in ``final_obs`` and ``final_info``,
    valid where ``_final_obs`` is true.
    """

    def __init__(
        self,
        world: str | type[World],
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = "next_step",
        render_mode: str | None = None,
        **arguments: Any,
    ):
        self.world = world_class(world)(num_envs, **arguments)
        self.num_envs = num_envs
        mode = getattr(autoreset_mode, "name", str(autoreset_mode)).lower()
        self._mode = AutoresetMode[choose("autoreset_mode", mode, ("next_step", "same_step")).upper()]
        self.metadata = WorldEnv.metadata | {"autoreset_mode": self._mode}
        self.render_mode = choose("render_mode", render_mode, (None, *WorldEnv.metadata["render_modes"]))
        self.event_names, self.goal_names = self.world.event_names, tuple(self.world.goals)
        self._over = np.zeros(num_envs, bool)
        self._seeded = False
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts every row's next episode; with a seed, starts over. Options as in ``WorldEnv.reset``."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        given = given_levels(self.world, options) if options else None
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**63))
        self._seeded = True
        self._over[:] = False
        self.world.reset(seed=seed)
        if given:
            self.world.set_levels(given)
        return self.world.observe(), self._info(np.zeros((self.num_envs, len(self.event_names)), bool))

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Moves every row; rows whose episode is over start their next one, now or in the next step."""
        if not self._seeded:
            raise gym.error.ResetNeeded("step() was called before reset()")
        reward, terminated, truncated, events = self.world.step(actions)
        if self._mode is AutoresetMode.NEXT_STEP:
            # In the step after an episode's end the action is ignored: the new episode's first observation comes back.
            reward[self._over] = 0.0
            terminated[self._over] = truncated[self._over] = False
            events[self._over] = False
            self._restart(self._over)
            self._over = terminated | truncated
            return self.world.observe(), reward, terminated, truncated, self._info(events)
        over = terminated | truncated
        observations = self.world.observe()
        if not over.any():
            return observations, reward, terminated, truncated, self._info(events)
        final = np.full(self.num_envs, None, object)
        rows = np.flatnonzero(over)
        last = [observations[row] for row in rows] if isinstance(observations, tuple) else observations[rows]
        for row, observation in zip(rows.tolist(), last, strict=True):
            final[row] = observation
        info = {"final_obs": final, "_final_obs": over, "final_info": self._info(events), "_final_info": over}
        self._restart(over)
        # Only the rows that began anew are looked at again: a whole second observation would double the cost of a step.
        fresh = self.world.observe(rows)
        if isinstance(observations, tuple):
            texts = dict(zip(rows.tolist(), fresh, strict=True))
            observations = tuple(texts.get(row, text) for row, text in enumerate(observations))
        else:
            observations[rows] = fresh
        return observations, reward, terminated, truncated, info | self._info(events & ~over[:, None])

    def render(self) -> tuple[str | np.ndarray, ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What there is in every row, as ``WorldEnv.render`` shows it."""
        rows = range(self.num_envs)
        if self.render_mode == "rgb_array":
            return tuple(self.world.image(row) for row in rows)
        return tuple(self.world.ascii(row) for row in rows) if self.render_mode == "ansi" else None

    def _restart(self, over: np.ndarray) -> None:
        rows = np.flatnonzero(over)
        if len(rows):
            self.world.next_level(rows)

    def _info(self, events: np.ndarray) -> dict[str, Any]:
        return {
            "events": events,
            "goals": self.world.first_visit.copy(),
            "level": self.world.level["fingerprint"].copy(),
        }
