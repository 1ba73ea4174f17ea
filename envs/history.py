"""The last observations and actions before the current one, for environments that do not show everything at once."""

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np

from astray.envs.errors import InputError
from astray.envs.text import NamedDiscrete, TextBytes, TextChoices, decode, encode


class TextHistory(gym.Wrapper, gym.utils.RecordConstructorArgs):
    """Tells what was seen and done in the last steps of the episode, and then what is seen now.

    ``make_vec_env("astray/MissionText-v0", 8, wrapper_class=TextHistory, wrapper_kwargs={"steps": 2})``. A text is::

        You see a ball 1 ahead.
        > turn left
        You see no things.

    Args:
        env: its observations are ``TextBytes`` or ``TextChoices``.
        steps: how many earlier observations are told, each with the action after it.

    Raises:
        InputError: observations are of another kind, or ``steps`` is not positive.
    """

    def __init__(self, env: gym.Env, steps: int = 3):
        gym.utils.RecordConstructorArgs.__init__(self, steps=steps)
        gym.Wrapper.__init__(self, env)
        space, actions = env.observation_space, env.action_space
        if steps < 1:
            raise InputError(f"steps={steps} must be at least 1")
        if isinstance(space, TextChoices):
            longest = space.max_action_length
        elif isinstance(space, TextBytes) and isinstance(actions, NamedDiscrete):
            longest = max(len(text.encode()) for text in actions.texts)
        else:
            raise InputError(f"TextHistory tells TextBytes or TextChoices of actions with texts, not {space}")
        length = space.max_length + steps * (space.max_length + longest + len("\n> \n"))
        if isinstance(space, TextChoices):
            self.observation_space = TextChoices(length, space.max_actions, space.max_action_length, space.instruction)
        else:
            self.observation_space = TextBytes(length, space.instruction)
        self._inner = space
        self._length = length
        self._earlier: deque[str] = deque(maxlen=steps)
        self._now, self._texts = "", dict[int, str]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode, with nothing before it."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._earlier.clear()
        return self._tell(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Takes an action, which is told from now on."""
        self._earlier.append(f"{self._now}\n> {self._texts.get(int(action), 'nothing')}\n")
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._tell(observation), reward, terminated, truncated, info

    def _tell(self, observation: Any) -> Any:
        if isinstance(self._inner, TextChoices):
            row = np.concatenate([observation[key] for key in TextChoices.KEYS])
            self._now, self._texts = self._inner.decode(row)
        else:
            assert isinstance(self.env.action_space, NamedDiscrete)
            self._now, self._texts = decode(observation[None])[0], dict(enumerate(self.env.action_space.texts))
        text = encode(["".join([*self._earlier, self._now])], self._length)[0]
        return observation | {"text": text} if isinstance(observation, dict) else text
