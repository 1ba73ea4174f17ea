"""Policies by name, for looking at: baselines, a Stable-Baselines3 file, or a finished cell of a run."""

import pkgutil
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO

from astray.agents.acting import ExpertAgent, MarginalAgent, PolicyAgent, StochasticAgent
from astray.envs import InputError, World
from astray.envs.errors import choose
from astray.experiments import sums
from astray.experiments.cell import make_model
from astray.experiments.checkpoint import restore_policy
from astray.experiments.evaluation import observation_of
from astray.experiments.files import is_complete, read_json
from astray.experiments.levels import make_world
from astray.experiments.study import Arm, Cell, Study


def policy_of(
    name: str, kind: type[World], arguments: dict[str, Any], greedy: bool = False
) -> tuple[StochasticAgent, dict[str, Any]]:
    """A policy, and the arguments of the world that it plays in, its own observation among them.

    Loading a ``.zip`` runs code that it holds (Stable-Baselines3 unpickles it): take it only from somebody whom you
    trust. A cell of a run holds no code.

    Args:
        name: "random"; "expert" (of the intended goal) or "expert:GOAL"; the path of a model of Stable-Baselines3's
            PPO, ending in .zip; or a finished cell, as RUN FOLDER/CELL.
        kind: the world.
        arguments: of the world; what they leave open is as the cell was trained.
        greedy: whether the most probable action is taken rather than a sampled one.

    Raises:
        InputError: there is no such policy, or it does not fit this world.
    """
    if name == "random":
        agent: StochasticAgent = MarginalAgent(np.ones(len(kind.action_texts)))
    elif name.partition(":")[0] == "expert":
        goals = tuple(kind.goals)
        goal = name.partition(":")[2] or goals[0]
        agent = ExpertAgent(goals.index(choose("the expert's goal", goal, goals)))
    elif name.endswith(".zip"):
        model = _from_file(name)
        agent, arguments = PolicyAgent(model), arguments | {"observation": _fitting(model, name, kind, arguments)}
    else:
        model, own = _from_cell(name, kind)
        arguments = own | arguments
        agent, arguments = PolicyAgent(model), arguments | {"observation": _fitting(model, name, kind, arguments)}
    agent.greedy = greedy
    return agent, arguments


def _fitting(model: PPO, name: str, kind: type[World], arguments: dict[str, Any]) -> str:
    """The observation that a model was made for."""
    arguments = {argument: value for argument, value in arguments.items() if argument != "observation"}
    make_world(kind, 1, **arguments)  # what is wrong with the arguments themselves is said first
    sentence = f"policy={name!r} does not fit {kind.slug()} with {arguments or 'its default arguments'}: it"
    if model.action_space.n != len(kind.action_texts):  # pyright: ignore[reportAttributeAccessIssue]
        raise InputError(
            f"{sentence} chooses from {model.action_space}, the world has {len(kind.action_texts)} actions"
        )
    try:
        return observation_of(model.observation_space, kind, arguments)
    except InputError:
        raise InputError(f"{sentence} saw {model.observation_space}, which the world does not show") from None


def _from_file(name: str) -> PPO:
    if not Path(name).is_file():
        raise InputError(f"policy={name!r} is not there; give the path of a model that PPO's save() wrote")
    try:
        return PPO.load(name, device="cpu")
    except Exception as error:  # whatever a file that is none makes of its reader
        reason = str(error).partition("\n")[0]
        raise InputError(f"policy={name!r} is no model of Stable-Baselines3's PPO ({reason})") from None


def _from_cell(name: str, kind: type[World]) -> tuple[PPO, dict[str, Any]]:
    """The model of a finished cell, and the arguments of the world that it was trained in."""
    folder = Path(name) if (Path(name) / "config.json").exists() else Path(name).parent
    if not (folder / "config.json").exists():
        raise InputError(
            f"policy={name!r} is not known: give 'random', 'expert' or 'expert:GOAL' ({', '.join(kind.goals)}), the "
            ".zip of a Stable-Baselines3 PPO, or a finished cell as RUN FOLDER/CELL"
        )
    config = read_json(folder / "config.json")
    cells = _finished_cells(folder, config)
    if not cells:
        raise InputError(f"policy={name!r}: {str(folder)!r} holds no finished cell yet")
    wanted = "" if folder == Path(name) else Path(name).name
    entry, shift, seed = cells[choose(f"policy={name!r}: cell", wanted, tuple(cells))]
    if not _same_world(config["world"], kind):
        raise InputError(f"policy={name!r} was trained in {config['world']!r}, and does not fit {kind.slug()}")
    # What was paid plays no part in what the policy does.
    paid = {"extrinsic": "world", "intrinsic": {}}
    arm = Arm(**entry | paid | {"settings": _rebuilt(entry["settings"], name)})
    study = Study(name=config["name"], world=kind, arms=(arm,), arguments=config["arguments"])
    cell = Cell(arm, shift, seed)
    checkpoints = [path for path in sorted((folder / "checkpoints" / wanted).glob("[0-9]*")) if is_complete(path)]
    if not checkpoints:
        raise OSError(
            f"{folder / 'checkpoints' / wanted} holds no whole checkpoint: remove the cell's rows, and run again"
        )
    model = make_model(study, cell, folder)
    restore_policy(model.policy, checkpoints[-1])
    return model, study.arguments | arm.arguments


def _finished_cells(folder: Path, config: dict[str, Any]) -> dict[str, tuple[dict[str, Any], float, int]]:
    """The entry of its arm in ``config.json``, train shift and seed of each finished cell, by its name."""
    finished = sums.registered(folder)
    plain = {"settings": {"n_steps": 1}, "extrinsic": "world", "intrinsic": {}}
    cells: dict[str, tuple[dict[str, Any], float, int]] = {}
    for entry in config["arms"]:
        arm = Arm(**entry | plain | {"num_envs": 1})
        for shift in arm.train_shifts:
            for seed in range(arm.seeds):
                rows = f"rows/{Cell(arm, shift, seed).name}.parquet"
                if rows in finished or (not finished and (folder / rows).exists()):
                    cells[Cell(arm, shift, seed).name] = entry, shift, seed
    return cells


def _same_world(recorded: str, kind: type[World]) -> bool:
    """Whether a configuration's world is this one: named by id or command-line name, or a class by its full name."""
    return recorded in (kind.id(), kind.slug()) or re.split(r"[.:]", recorded)[-1] == kind.__name__


def _rebuilt(value: Any, policy: str) -> Any:
    """Settings as they were before they became JSON: a full name is the class or function again.

    Raises:
        InputError: it cannot be imported.
    """
    if isinstance(value, dict) and "call" in value:
        places = sorted(key for key in value if key.isdecimal())
        named = {key: _rebuilt(each, policy) for key, each in value.items() if key not in ("call", *places)}
        return partial(_rebuilt(value["call"], policy), *(_rebuilt(value[key], policy) for key in places), **named)
    if isinstance(value, dict):
        return {key: _rebuilt(each, policy) for key, each in value.items()}
    if isinstance(value, list):
        return [_rebuilt(each, policy) for each in value]
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[\w<>]+)+", value):
        return value
    try:
        return pkgutil.resolve_name(value)
    except (ImportError, AttributeError, ValueError):
        raise InputError(
            f"policy={policy!r} was made with {value}, which cannot be imported here: load it where its study is, with "
            "astray.experiments.cell.make_model"
        ) from None
