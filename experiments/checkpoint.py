"""Checkpoints of a Stable-Baselines3 on-policy model that resume exactly and run no code when loaded.

A checkpoint holds the policy, its optimiser, the counters, the worlds' state, all global random states (which
Stable-Baselines3 uses), and the rows of the tests so far: safetensors, JSON and Parquet in one folder.
"""

import json
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as pack_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as pack_tensors
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from astray.agents.vec_env import WorldVecEnv
from astray.experiments.files import is_complete, read_json, read_rows, remove, write_folder, write_rows

COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")


def save_checkpoint(folder: Path, model: OnPolicyAlgorithm, rows: pd.DataFrame) -> None:
    """Writes the model's state between two rollouts as ``folder/<steps>``; keeps it and the one before."""
    path = folder / f"{model.num_timesteps:010d}"
    if is_complete(path):
        return
    folder.mkdir(parents=True, exist_ok=True)
    remove(path)  # a broken one, which was named when it was passed over
    write_folder(path, lambda temporary: _fill(temporary, model, rows))
    for older in sorted(folder.glob("[0-9]*"))[:-2]:
        remove(older)


def load_checkpoint(folder: Path, model: OnPolicyAlgorithm) -> pd.DataFrame | None:
    """Puts the newest complete checkpoint's state into a fresh model; its rows, or None if there is none.

    A broken checkpoint is named on standard error and passed over.
    """
    paths = sorted(folder.glob("[0-9]*"), reverse=True) if folder.is_dir() else []
    for path in paths:
        if is_complete(path):
            _restore(path, model)
            return read_rows(path / "rows.parquet")
        print(f"{path} is broken or incomplete: passed over", file=sys.stderr)
    return None


def _env(model: OnPolicyAlgorithm) -> WorldVecEnv:
    env = model.get_env()
    assert isinstance(env, WorldVecEnv), "checkpoints need a WorldVecEnv, whose state can be saved"
    return env


def _fill(folder: Path, model: OnPolicyAlgorithm, rows: pd.DataFrame) -> None:
    # Packed here and written by Python, so that a full disk is an OSError like everywhere else.
    weights = {name: weight.contiguous() for name, weight in model.policy.state_dict().items()}
    (folder / "policy.safetensors").write_bytes(pack_tensors(weights))
    optimizer = model.policy.optimizer.state_dict()
    moments = {
        f"{parameter}.{name}": torch.as_tensor(value).contiguous()
        for parameter, values in optimizer["state"].items()
        for name, value in values.items()
    }
    (folder / "optimizer.safetensors").write_bytes(pack_tensors(moments))
    (folder / "worlds.safetensors").write_bytes(pack_arrays(_flatten(_env(model).get_state())))
    kind, keys, *position = np.random.get_state()
    arrays = {"torch": torch.get_rng_state().numpy(), "numpy": np.asarray(keys)}
    assert isinstance(model._last_obs, np.ndarray) and model._last_episode_starts is not None
    arrays |= {"last_obs": model._last_obs, "last_episode_starts": model._last_episode_starts}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    (folder / "arrays.safetensors").write_bytes(pack_arrays(arrays))
    state = {
        "counters": {name: getattr(model, name) for name in COUNTERS},
        "episodes": list(model.ep_info_buffer or ()),
        "param_groups": optimizer["param_groups"],
        "numpy": [kind, *position],
        "python": random.getstate(),
    }
    (folder / "state.json").write_text(json.dumps(state))
    write_rows(folder / "rows.parquet", rows)


def _restore(folder: Path, model: OnPolicyAlgorithm) -> None:
    state = read_json(folder / "state.json")
    arrays = load_arrays(folder / "arrays.safetensors")
    model.policy.load_state_dict(load_tensors(folder / "policy.safetensors"))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_tensors(folder / "optimizer.safetensors").items():
        parameter, name = key.split(".")
        moments.setdefault(int(parameter), {})[name] = value
    model.policy.optimizer.load_state_dict({"state": moments, "param_groups": state["param_groups"]})
    _env(model).set_state(_nest(load_arrays(folder / "worlds.safetensors")))
    for name, value in state["counters"].items():
        setattr(model, name, value)
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    model._last_obs = arrays["last_obs"]
    model._last_episode_starts = arrays["last_episode_starts"]
    kind, *position = state["numpy"]
    np.random.set_state((kind, arrays["numpy"], *position))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(torch.from_numpy(arrays["torch"]))


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = np.ascontiguousarray(value)
    return flat


def _nest(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree
