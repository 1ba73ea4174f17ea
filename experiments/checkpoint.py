"""Checkpoints of a Stable-Baselines3 on-policy model that resume exactly and run no code when loaded.

A checkpoint holds the policy, its optimiser, the counters, the worlds' state, curiosity modules with their normalisers
and the steps that they have still to learn from, all global random states (which Stable-Baselines3 uses), and the rows
of the tests so far: safetensors, JSON and Parquet in one folder. It is made between two rollouts, so there is no
half-filled rollout to keep.
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
from peft import PeftModel
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save as pack_arrays
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save as pack_tensors
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy

from astray.agents import LanguagePolicy
from astray.envs import InputError
from astray.experiments.files import is_complete, read_json, read_rows, remove, write_folder, write_rows

ADAPTER = "adapter_config.json"
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_current_progress_remaining")


def save_checkpoint(folder: Path, model: OnPolicyAlgorithm, rows: pd.DataFrame, kept: dict[str, Any]) -> None:
    """Writes the model's state between two rollouts as ``folder/<steps>``; keeps it and the one before.

    Args:
        folder: of this cell's checkpoints.
        model: its environments have ``get_state``.
        rows: of the tests so far.
        kept: what else to keep: numbers, arrays, and lists and dicts of them.
    """
    path = folder / f"{model.num_timesteps:010d}"
    if is_complete(path):
        return
    folder.mkdir(parents=True, exist_ok=True)
    remove(path)  # a broken one, which was named when it was passed over
    write_folder(path, lambda temporary: _fill(temporary, model, rows, kept))
    keep_last(folder, 2)


def keep_last(folder: Path, count: int) -> None:
    """Removes all but the newest checkpoints."""
    for older in sorted(folder.glob("[0-9]*"))[:-count]:
        remove(older)


def load_checkpoint(folder: Path, model: OnPolicyAlgorithm) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Puts the newest complete checkpoint's state into a fresh model; its rows and what was kept, None without one.

    A broken checkpoint is named on standard error and passed over.
    """
    paths = sorted(folder.glob("[0-9]*"), reverse=True) if folder.is_dir() else []
    for path in paths:
        if is_complete(path):
            kept = _restore(path, model)
            return read_rows(path / "rows.parquet"), kept
        print(f"{path} is broken or incomplete: passed over", file=sys.stderr)
    return None


def newest(folder: Path) -> Path:
    """The newest complete checkpoint.

    Raises:
        InputError: there is none.
    """
    for path in sorted(folder.glob("[0-9]*"), reverse=True):
        if is_complete(path):
            return path
    raise InputError(f"{str(folder)!r} holds no complete checkpoint to begin with")


def restore_policy(policy: BasePolicy, folder: Path) -> None:
    """Puts the weights of a checkpoint into a policy."""
    weights = load_tensors(folder / "policy.safetensors")
    if isinstance(policy, LanguagePolicy) and (folder / ADAPTER).is_file():
        policy.load_adapter(folder)
        weights |= {name: weight for name, weight in policy.state_dict().items() if "lora_" in name}
    policy.load_state_dict(weights)


def _fill(folder: Path, model: OnPolicyAlgorithm, rows: pd.DataFrame, kept: dict[str, Any]) -> None:
    env: Any = model.get_env()
    kind, *numpy_state = np.random.get_state()
    state = {
        "optimizer": model.policy.optimizer.state_dict(),
        "env": env.get_state(),
        "last_obs": model._last_obs,
        "last_episode_starts": model._last_episode_starts,
        "counters": {name: getattr(model, name) for name in COUNTERS},
        "episodes": list(model.ep_info_buffer or ()),
        "numpy": [kind, *numpy_state],
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if model.device.type == "cuda" else [],
        "kept": kept,
    }
    tensors: dict[str, torch.Tensor] = {}
    arrays: dict[str, np.ndarray] = {}
    plain = json.dumps(take_apart(state, "state", tensors, arrays))
    # Packed here and written by Python, so that a full disk is an OSError like everywhere else.
    # clones: actor and critic may share a features extractor, and safetensors refuses tensors that share memory
    weights = {name: weight.contiguous().clone() for name, weight in model.policy.state_dict().items()}
    if isinstance(model.policy, LanguagePolicy) and isinstance(model.policy.network, PeftModel):
        model.policy.save_adapter(folder)  # so that PEFT alone opens the folder
        weights = {name: weight for name, weight in weights.items() if "lora_" not in name}
    (folder / "policy.safetensors").write_bytes(pack_tensors(weights))
    (folder / "tensors.safetensors").write_bytes(pack_tensors(tensors))
    (folder / "arrays.safetensors").write_bytes(pack_arrays(arrays))
    (folder / "state.json").write_text(plain, encoding="utf-8")
    write_rows(folder / "rows.parquet", rows)


def _restore(folder: Path, model: OnPolicyAlgorithm) -> dict[str, Any]:
    tensors, arrays = load_tensors(folder / "tensors.safetensors"), load_arrays(folder / "arrays.safetensors")
    state = put_together(read_json(folder / "state.json"), tensors, arrays)
    restore_policy(model.policy, folder)
    model.policy.optimizer.load_state_dict(state["optimizer"])
    env: Any = model.get_env()
    env.set_state(state["env"])
    for name, value in state["counters"].items():
        setattr(model, name, value)
    model.ep_info_buffer = deque(state["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(maxlen=model._stats_window_size)
    model._last_obs = state["last_obs"]
    model._last_episode_starts = state["last_episode_starts"]
    np.random.set_state(tuple(state["numpy"]))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    return state["kept"]


def take_apart(tree: Any, name: str, tensors: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]) -> Any:
    """What JSON can hold of a tree of dicts and lists, as ``state_dict`` gives it.

    Keys that are no text (the optimiser numbers its parameters) are kept as pairs.

    Args:
        tree: of numbers, texts, tensors and arrays.
        name: that tensors and arrays get, with their place in the tree behind it; a marker with it stays in the JSON.
        tensors: where they are put.
        arrays: likewise.
    """
    if isinstance(tree, torch.Tensor):
        tensors[name] = tree.detach().contiguous().clone()  # a clone: safetensors refuses tensors that share memory
        return {"tensor": name}
    if isinstance(tree, np.ndarray | np.generic):
        arrays[name] = np.ascontiguousarray(tree)
        return {"array": name, "shape": list(tree.shape)}
    if isinstance(tree, dict):
        if other := [key for key in tree if not isinstance(key, str | int | float | None)]:
            raise TypeError(f"{name} has the key {other[0]!r}: a checkpoint keeps texts, numbers and None as keys")
        # numbered, since keys as different as 1 and "1" would give one name
        values = (take_apart(value, f"{name}/{i}", tensors, arrays) for i, value in enumerate(tree.values()))
        return {"dict": [list(pair) for pair in zip(tree, values, strict=True)]}
    if isinstance(tree, list | tuple):
        return [take_apart(value, f"{name}/{i}", tensors, arrays) for i, value in enumerate(tree)]
    return tree


def put_together(tree: Any, tensors: dict[str, torch.Tensor], arrays: dict[str, np.ndarray]) -> Any:
    """The tree that ``take_apart`` took apart."""
    if isinstance(tree, list):
        return [put_together(value, tensors, arrays) for value in tree]
    if isinstance(tree, dict):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        if "array" in tree:
            return arrays[tree["array"]].reshape(tree["shape"])  # ascontiguousarray makes a number an array of one
        return {key: put_together(value, tensors, arrays) for key, value in tree["dict"]}
    return tree
