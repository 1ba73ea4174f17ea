"""A batched world as a Stable-Baselines3 ``VecEnv``, monitored."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from astray.envs import InputError, World, find_world
from astray.envs.vector import given_levels


class WorldVecEnv(VecEnv):
    """B copies of a world. Row i of ``seed(s)`` is a single env at ``s + i``.

    ``infos[i]`` holds ``events`` (names of what happened) and, at an episode's end, ``goals`` (first visits), and
    what Stable-Baselines3 expects: ``terminal_observation``, ``TimeLimit.truncated`` and the monitor's ``episode``.
    """

    def __init__(self, world: World):
        self.world = world
        self.event_names, self.goals = world.event_names, world.goals
        self.render_mode = None
        self._returns = np.zeros(world.num_envs)
        self._actions = np.zeros(world.num_envs, np.int64)
        super().__init__(world.num_envs, world.observation_space, world.action_space)

    def reset(self) -> VecEnvObs:
        """Starts every row's next episode, or starts over if ``seed`` was called; ``set_options`` may give levels."""
        seeds = [seed for seed in self._seeds if seed is not None]
        self.world.reset(seed=seeds or None)
        if any(self._options):
            self.world.set_levels(given_levels(self.world, {"level": [o.get("level") for o in self._options]}))
            self._reset_options()
        self._returns[:] = 0
        self.reset_infos = [{} for _ in range(self.num_envs)]
        self._reset_seeds()
        return self.world.observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Moves every row; rows whose episode is over start their next one."""
        reward, terminated, truncated, events = self.world.step(self._actions)
        self._returns += reward
        infos: list[dict[str, Any]] = [{"events": ()} for _ in range(self.num_envs)]
        for row, event in zip(*(found.tolist() for found in np.nonzero(events)), strict=True):
            infos[row]["events"] += (self.event_names[event],)
        done = terminated | truncated
        rows = np.flatnonzero(done)
        observations = self.world.observe()
        if len(rows):
            for row in rows.tolist():
                infos[row] |= {
                    "terminal_observation": observations[row].copy(),
                    "TimeLimit.truncated": bool(truncated[row]),
                    "goals": dict(zip(self.goals, self.world.first_visit[row].tolist(), strict=True)),
                    # "t", the wall time of SB3's own monitor, would make equal runs differ.
                    "episode": {"r": float(self._returns[row]), "l": int(self.world.steps[row]), "t": 0.0},
                }
            self._returns[rows] = 0
            self.world.next_level(rows)
            observations[rows] = self.world.observe(rows)
        return observations, reward.astype(np.float32), done, infos

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on."""
        return self.world.get_state() | {"returns": self._returns.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where ``get_state`` was."""
        self.world.set_state(state)
        self._returns = state["returns"].copy()

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of this object, once per row."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Rows share their attributes, so this sets it for all."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Calls a method of this object, once per row asked for."""
        return [getattr(self, method_name)(*args, **kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """True for ``Monitor``, whose ``info["episode"]`` this view writes itself."""
        return [issubclass(Monitor, wrapper_class) for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Every row's room in colour."""
        return [self.world.image(row) for row in range(self.num_envs)]


def vec_env(world: str | type[World], num_envs: int, **arguments: Any) -> WorldVecEnv:
    """A world as a fast, monitored ``VecEnv``.

    Args:
        world: an id ("astray/CheeseCorner-v0"), a command-line name ("cheese-corner"), or a class.
        num_envs: rows.
        **arguments: the world's; ``observation`` "bytes", "planes" or "egocentric".

    Raises:
        InputError: Stable-Baselines3 cannot carry this observation.
    """
    arguments = {"observation": "bytes"} | arguments
    if arguments["observation"] == "text":
        raise InputError("observation='text': Stable-Baselines3 has no text space; 'bytes' is the same text as bytes")
    return WorldVecEnv(find_world(world)(num_envs, **arguments))
