"""TextWorld's games, in which what can be done changes with every step (needs the package textworld)."""

import re
import tempfile
import unicodedata
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from astray.envs.errors import InputError
from astray.envs.text import TextChoices

INSTRUCTION = (
    "You play a text adventure. Reach the objective in as few commands as you can. Your answer is the next command, as "
    "the game understands it."
)
TOLD = ("feedback", "description", "inventory", "objective")
ASKED = (*TOLD, "admissible_commands", "won", "lost", "score", "max_score")
NOTHING = "Nothing happens: there is no such command now."
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # of a terminal: colours and the like
# Where a file's name does not begin with "tw-", the interpreter shows room, score and turns after its prompt.
STATUS = re.compile(r"^>.* =-\s*-?\d+/\d+\s*\Z", re.MULTILINE)


class TextWorldEnv(gym.Env):
    """Plays games that TextWorld (Côté et al. 2018) generated.

    An observation is a ``TextChoices``: the objective, the room, what is carried and what the last command did, and as
    choices the commands that the game accepts now (TextWorld's admissible commands, sorted). The action space is
    ``Discrete(max_actions)``; a number without a command is a step in which nothing happens. The reward is the change
    of the game's score. An episode terminates when the game is won or lost.

    ``info`` holds ``action_texts`` (the commands of this step), ``game`` (the file), ``score``, ``max_score``, ``won``
    and ``lost``.

    Args:
        games: one file or several, as ``generate_game`` or TextWorld's ``tw-make`` write them: a ``.z8`` with its
            ``.json`` beside it. Each episode plays one of them, drawn anew.
        max_steps: episodes are truncated after so many steps.
        max_actions: the largest number of commands in a step.
        max_length: the number of bytes for a text.
        max_action_length: the number of bytes for a command.
        render_mode: None, or "ansi" for the text.

    Raises:
        InputError: there is no such game; in ``reset`` and ``step``: a text, a command or their number does not fit.
        TypeError: there is no such render mode.
        ModuleNotFoundError: the package textworld is not installed.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 4}  # noqa: RUF012 (gymnasium's own shape)

    def __init__(
        self,
        games: str | Path | Sequence[str | Path],
        max_steps: int = 50,
        max_actions: int = 64,
        max_length: int = 4096,
        max_action_length: int = 96,
        render_mode: str | None = None,
    ):
        _textworld()
        self.games = [str(game) for game in ([games] if isinstance(games, str | Path) else games)]
        if not self.games:
            raise InputError("games=[] must name at least one game")
        for game in self.games:
            if not game.endswith(".z8") or not all(Path(game).with_suffix(end).is_file() for end in (".z8", ".json")):
                raise InputError(f"games={game!r} must be a .z8 file of TextWorld's with its .json beside it")
        if max_steps < 1:
            raise InputError(f"max_steps={max_steps} must be at least 1")
        self.max_steps = max_steps
        if render_mode not in (None, *self.metadata["render_modes"]):
            # Stable-Baselines3's make_vec_env asks every environment for pictures, and takes a TypeError for a no
            raise TypeError(
                f"render_mode={render_mode!r} is not one of None, 'ansi': a game of TextWorld has no pictures"
            )
        self.render_mode = render_mode
        self.observation_space = self._choices = TextChoices(max_length, max_actions, max_action_length, INSTRUCTION)
        self.action_space = gym.spaces.Discrete(max_actions)
        self._loaded: str | None = None
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Starts one of the games; with a seed, the sequence of games starts over."""
        super().reset(seed=seed)
        self._start(self.games[int(self.np_random.integers(len(self.games)))])
        self._steps, self._over = 0, False
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Gives the command of this number."""
        if self._over:
            raise gym.error.ResetNeeded("step() was called before reset(), or after the episode's end: call reset()")
        if not self.action_space.contains(action):
            raise InputError(f"action={action!r} must lie in 0..{self._choices.max_actions - 1}")
        score = self._state["score"]
        commands = self._state["admissible_commands"]
        if action < len(commands):
            with warnings.catch_warnings(action="ignore"):  # as in ``_start``
                self._state = self._game.step(commands[int(action)])[0]
        else:
            self._state["feedback"] = NOTHING
        self._steps += 1
        terminated = self._state["won"] or self._state["lost"]
        truncated = not terminated and self._steps >= self.max_steps
        self._over = terminated or truncated
        return self._observation(), float(self._state["score"] - score), terminated, truncated, self._info()

    def render(self) -> str | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What is told now ("ansi")."""
        return self._text() if self.render_mode == "ansi" else None

    def close(self) -> None:
        """Ends the game and frees its interpreter."""
        if self._loaded:
            self._game.close()
        self._loaded, self._over = None, True

    def _start(self, game: str) -> None:
        # The interpreter warns of all that it cannot tell by itself; TextWorld can.
        with warnings.catch_warnings(action="ignore"):
            if self._loaded is None:
                textworld = _textworld()
                self._game = textworld.start(game, textworld.EnvInfos(**dict.fromkeys(ASKED, True)))
            elif self._loaded != game:
                self._game.load(game)
            self._loaded = game
            # after loading, which forgets the seed; 0 would mean the time of day
            self._game.seed(int(self.np_random.integers(1, 2**31)))
            self._state = self._game.reset()

    def _text(self) -> str:
        """What the game tells; what the answer to a command repeats of the rest is said once."""
        feedback, description, inventory, objective = (printable(STATUS.sub("", self._state[key])) for key in TOLD)
        for known in filter(None, (objective, description, inventory)):
            feedback = feedback.replace(known, "")
        aim = objective and f"Objective: {objective}"
        return "\n".join(filter(None, (aim, description, inventory, printable(feedback))))

    def _observation(self) -> dict[str, np.ndarray]:
        text, commands = self._text(), self._state["admissible_commands"]
        for name, needed in (
            ("max_length", len(text.encode())),
            ("max_actions", len(commands)),
            ("max_action_length", max(len(command.encode()) for command in commands)),
        ):
            if (given := getattr(self._choices, name)) < needed:
                raise InputError(f"{name}={given} is too small for {self._loaded}, which needs {needed} here")
        return self._choices.encode(text, commands)

    def _info(self) -> dict[str, Any]:
        kept = {key: self._state[key] for key in ("score", "max_score", "won", "lost")}
        return {"action_texts": tuple(self._state["admissible_commands"]), "game": self._loaded, **kept}


def generate_game(folder: str | Path, seed: int, rooms: int = 2, objects: int = 4, quest_length: int = 2) -> str:
    """Writes a game of TextWorld's own making; the same numbers make the same game, which is written once.

    Args:
        folder: where the ``.z8`` and ``.json`` go.
        seed: of the map, the objects, the quest and the words.
        rooms: the number of rooms.
        objects: the least number of objects.
        quest_length: the number of commands to win by; winning scores 1.

    Returns:
        The ``.z8`` file.

    Raises:
        InputError: a number is less than 1.
        ModuleNotFoundError: the package textworld is not installed.
    """
    textworld = _textworld()
    numbers = {"rooms": rooms, "objects": objects, "quest_length": quest_length}
    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"{name}={number} must be at least 1")
    path = Path(folder) / f"tw-rooms{rooms}-objects{objects}-quest{quest_length}-seed{seed}.z8"
    if path.exists():
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # made beside its place and moved there, the .z8 last, so that whoever finds one finds a whole game
    with tempfile.TemporaryDirectory(dir=path.parent) as unfinished:
        options = textworld.GameOptions()
        options.nb_rooms, options.nb_objects, options.quest_length = rooms, objects, quest_length
        options.seeds = int(seed)
        options.path = str(Path(unfinished) / path.name)
        textworld.make(options)
        for end in (".json", ".z8"):
            Path(options.path).with_suffix(end).replace(path.with_suffix(end))
    return str(path)


def printable(text: str) -> str:
    """The text in lines without blanks around them, escapes, control characters, and lines that only draw (banners)."""
    text = unicodedata.normalize("NFKC", ESCAPES.sub("", text))
    kept = "".join(c if c.isprintable() or c == "\n" else " " * c.isspace() for c in text)
    lines = (" ".join(line.split()) for line in kept.split("\n"))
    return "\n".join(line for line in lines if any(c.isalnum() for c in line))


def _textworld() -> Any:
    try:
        return import_module("textworld")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "games of TextWorld need the package textworld: pip install 'astray[textworld]'"
        ) from error
