"""MiniGrid's and BabyAI's missions as text: any of their environments, told in words (needs the package minigrid)."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import gymnasium as gym
import numpy as np

from astray.envs.errors import InputError, choose
from astray.envs.text import NamedDiscrete, TextBytes, encode

# In the order of MiniGrid's numbers: its name of the action, our text, and what the action does.
ACTIONS = {
    "left": ("turn left", "a quarter turn where you stand"),
    "right": ("turn right", "a quarter turn where you stand"),
    "forward": ("go forward", "one step ahead, unless something is in the way"),
    "pickup": ("pick up", "takes the key, ball or box that is 1 ahead, if you carry nothing"),
    "drop": ("drop", "puts what you carry on the free place 1 ahead"),
    "toggle": (
        "open or close",
        "the door or box that is 1 ahead; a locked door opens only if you carry the key of its colour",
    ),
    "done": ("done", "says that the mission is fulfilled"),
}
TASK = (
    "You walk through rooms and see part of what lies ahead. Fulfil the mission in as few actions as you can. What is "
    "2 ahead and 1 left lies two steps ahead of you and one to your left. Your actions:"
)
Cell = tuple[int, int]  # steps ahead, and to the right (left is negative)
HERE, FREE, WALLS = (0, 0), "free", "walls"
STRETCHED = (WALLS, "lava", "floor")  # told as straight stretches of cells, other things one by one


class MissionText(gym.ObservationWrapper, gym.utils.RecordConstructorArgs):
    """Tells the mission, what the egocentric view shows and what is carried, and names the actions.

    ``MissionText(gym.make("BabyAI-GoToLocal-v0"))`` observes ``TextBytes`` and chooses from ``NamedDiscrete``, so that
    ``PPO(LanguagePolicy, ...)`` needs nothing else::

        Mission: go to the red ball.
        You see a red ball 2 ahead and 1 left, a locked blue door 3 right.
        Walls: 4 ahead from 1 left to 3 right; 2 left from 0 to 3 ahead.
        You carry nothing.

    All that the image shows is told (things from near to far, walls and lava as straight stretches) but for walls among
    walls, and nothing else is: not the compass direction, no hidden cell and no earlier step. Rewards are the
    environment's own.

    Args:
        env: an environment of MiniGrid or BabyAI that shows ``image`` (egocentric) and ``mission``.
        actions: which actions there are, by MiniGrid's names, such as ``("left", "right", "forward")``; by default all
            that the environment has. ``done`` is of use in few environments, ``MiniGrid-GoToDoor-5x5-v0`` among them.
        max_length: the number of bytes for a text. The default holds any view of 7 by 7 and a mission of 800 bytes.

    Raises:
        InputError: the environment shows something else, or has no such action.
        ModuleNotFoundError: the package minigrid is not installed.
    """

    def __init__(self, env: gym.Env, actions: Sequence[str] | None = None, max_length: int = 3072):
        gym.utils.RecordConstructorArgs.__init__(self, actions=actions, max_length=max_length)
        gym.ObservationWrapper.__init__(self, env)
        numbers = _minigrid("minigrid.core.constants")
        self._kinds, self._colours = numbers.IDX_TO_OBJECT, numbers.IDX_TO_COLOR
        self._states = {number: state for state, number in numbers.STATE_TO_IDX.items()}
        shown, chosen = env.observation_space, env.action_space
        if not isinstance(shown, gym.spaces.Dict) or not {"image", "mission"} <= set(shown):
            raise InputError(f"MissionText tells MiniGrid's image and mission, and {env} shows {shown}")
        if not isinstance(chosen, gym.spaces.Discrete) or not 0 < chosen.n <= len(ACTIONS):
            raise InputError(f"MissionText names MiniGrid's actions, and {env} has {chosen}")
        allowed = tuple(ACTIONS)[: int(chosen.n)]
        names = [choose("actions", name, allowed) for name in (allowed if actions is None else actions)]
        if not names or len(set(names)) < len(names):
            raise InputError(f"actions={actions!r} must name at least one action, and none twice")
        self._numbers = [allowed.index(name) for name in names]
        meanings = [f"{text}: {meaning}." for text, meaning in (ACTIONS[name] for name in names)]
        self.observation_space = TextBytes(max_length, "\n".join([TASK, *meanings]))
        self.action_space = NamedDiscrete([ACTIONS[name][0] for name in names])

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Takes the action of this number among those that there are."""
        if not self.action_space.contains(action):
            raise InputError(f"action={action!r} must lie in 0..{len(self._numbers) - 1}")
        return super().step(self._numbers[int(action)])

    def observation(self, observation: dict[str, Any]) -> np.ndarray:
        """The text as ``uint8[max_length]``.

        Raises:
            InputError: it does not fit, or the image is not MiniGrid's egocentric one.
        """
        text = self.tell(observation["image"], observation["mission"])
        space = self.observation_space
        assert isinstance(space, TextBytes)
        if (length := len(text.encode())) > space.max_length:
            raise InputError(f"max_length={space.max_length} is too small for a text of {length} bytes")
        return encode([text], space.max_length)[0]

    def tell(self, image: np.ndarray, mission: str) -> str:
        """The image (``[n, n, 3]``: kind, colour, state) and the mission in words.

        Raises:
            InputError: the image is not MiniGrid's egocentric one.
        """
        cells = self._cells(image)
        carried = cells.get(HERE, FREE)
        cells[HERE] = FREE
        things, stretched = [], {}
        for cell in sorted(cells, key=lambda cell: (abs(cell[0]) + abs(cell[1]), cell)):
            name = cells[cell]
            if name == FREE or (name == WALLS and all(cells.get(near, WALLS) == WALLS for near in _around(cell))):
                continue
            if name.endswith(STRETCHED):
                stretched.setdefault(name, set()).add(cell)
            else:
                things.append(f"{_one(name)} {_place(cell)}")
        return "\n".join(
            [
                f"Mission: {' '.join(mission.split()).rstrip('.')}.",
                f"You see {', '.join(things) or 'no things'}.",
                *(
                    f"{name.capitalize()}: {'; '.join(map(_stretch, stretches(where)))}."
                    for name, where in sorted(stretched.items(), reverse=True)
                ),
                f"You carry {'nothing' if carried == FREE else _one(carried)}.",
            ]
        )

    def _cells(self, image: np.ndarray) -> dict[Cell, str]:
        """What the cells in view hold, by name; here, what is carried."""
        width, depth = image.shape[:2]
        if image.shape != (width, depth, 3):
            raise InputError(f"MissionText reads MiniGrid's symbolic image [n, n, 3], not one of shape {image.shape}")
        cells = {}
        for column, row in np.argwhere(image[:, :, 0]).tolist():
            number, colour, state = image[column, row].tolist()
            kind = self._kinds.get(number)
            if kind in (None, "agent") or colour not in self._colours:
                raise InputError(
                    "MissionText reads MiniGrid's egocentric symbolic image, and this one shows "
                    f"{kind or 'something'} with colour {colour}: leave out other wrappers that change the image"
                )
            name = {"empty": FREE, "wall": WALLS, "lava": "lava"}.get(kind, f"{self._colours[colour]} {kind}")
            cells[depth - 1 - row, column - width // 2] = f"{self._states[state]} {name}" if kind == "door" else name
        return cells


def mission_text(
    mission_env: str = "BabyAI-GoToLocal-v0",
    actions: Sequence[str] | None = None,
    max_length: int = 3072,
    **arguments: Any,
) -> MissionText:
    """An environment of MiniGrid or BabyAI by its id, told in words.

    Args:
        mission_env: its id.
        actions: as in ``MissionText``.
        max_length: as in ``MissionText``.
        **arguments: of the environment.

    Raises:
        ModuleNotFoundError: the package minigrid is not installed.
    """
    _minigrid("minigrid")  # registers its environments
    return MissionText(gym.make(mission_env, **arguments), actions, max_length)


def stretches(cells: set[Cell]) -> list[tuple[Cell, Cell]]:
    """Straight stretches, as their first and last cells, that cover the cells: long ones before short ones."""
    found = set()
    for cell in cells:
        for ahead, right in ((0, 1), (1, 0)):
            first = last = cell
            while (first[0] - ahead, first[1] - right) in cells:
                first = (first[0] - ahead, first[1] - right)
            while (last[0] + ahead, last[1] + right) in cells:
                last = (last[0] + ahead, last[1] + right)
            found.add((first, last))
    kept, covered = [], set()
    for first, last in sorted(found, key=lambda ends: (-_length(*ends), ends)):
        between = {(a, r) for a in range(first[0], last[0] + 1) for r in range(first[1], last[1] + 1)}
        if not between <= covered:
            kept.append((first, last))
            covered |= between
    return kept


def _around(cell: Cell) -> Iterator[Cell]:
    yield from ((cell[0] + ahead, cell[1] + right) for ahead in (-1, 0, 1) for right in (-1, 0, 1))


def _length(first: Cell, last: Cell) -> int:
    return last[0] - first[0] + last[1] - first[1]


def _stretch(ends: tuple[Cell, Cell]) -> str:
    (ahead, left), (far, right) = ends
    if ends[0] == ends[1]:
        return _place(ends[0])
    if ahead == far:
        sides = f"from {_side(left)} to {_side(right)}"
        return f"{ahead} ahead {sides}" if ahead else sides
    sides = f"from {ahead} to {far} ahead"
    return f"{_side(left)} {sides}" if left else sides


def _place(cell: Cell) -> str:
    ahead, right = cell
    return " and ".join([f"{ahead} ahead"] * bool(ahead) + [_side(right)] * bool(right))


def _side(right: int) -> str:
    return f"{abs(right)} {'right' if right > 0 else 'left'}" if right else "0"


def _one(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _minigrid(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("missions need the package minigrid: pip install 'astray[minigrid]'") from error
