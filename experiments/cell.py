"""One cell of a study: train, test on the way, checkpoint, test at the end. Runs in a process of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from astray.agents import LanguagePolicy
from astray.agents.acting import ExpertAgent, MarginalAgent, PolicyAgent, StochasticAgent
from astray.agents.vec_env import vec_env
from astray.envs import LevelSet, find_world
from astray.experiments.checkpoint import load_checkpoint, save_checkpoint
from astray.experiments.evaluation import MODES, evaluate, play, trace
from astray.experiments.files import read_json, write_json, write_rows
from astray.experiments.study import REFERENCES, Cell, Study

Report = Callable[[int], None]


def run_cell(study: Study, cell: Cell | None, folder: Path, report: Report) -> None:
    """Runs one cell (None: the reference agents) and writes its rows."""
    name = cell.name if cell else REFERENCES
    torch.set_num_threads(1)
    # A cell whose run was killed may still be at work until it next reports: wait for it rather than write beside it.
    with FileLock(folder / "rows" / f".{name}.lock"):
        rows = train_cell(study, cell, folder, report) if cell else reference_rows(study)
        write_rows(folder / "rows" / f"{name}.parquet", rows.assign(study=study.name))


def reference_rows(study: Study) -> pd.DataFrame:
    """The rows of agents that need no training: random, and an expert for each goal."""
    world = find_world(study.world)
    agents: dict[str, StochasticAgent] = {"random": MarginalAgent(np.ones(len(world.action_texts)))}
    agents |= {f"expert: {goal}": ExpertAgent(number) for number, goal in enumerate(world.goals)}
    full, _ = study.levels()
    parts = [evaluate(agent, study.world, full, **study.arguments).assign(agent=name) for name, agent in agents.items()]
    rows = pd.concat(parts, ignore_index=True).assign(weights="")
    return _labelled(rows, arm="references", policy="", train_shift=np.nan, seed=-1, step=0)


def train_cell(study: Study, cell: Cell, folder: Path, report: Report) -> pd.DataFrame:
    """Trains a cell from its newest checkpoint and returns all its rows."""
    arm = cell.arm
    arguments = study.arguments | arm.arguments
    full, timing = study.levels()
    model = make_model(study, cell, folder)
    checkpoints = folder / "checkpoints" / cell.name
    rows = load_checkpoint(checkpoints, model)
    watch = Watch(study, cell, timing, checkpoints, rows, report)
    model.learn(arm.steps - model.num_timesteps, callback=watch, reset_num_timesteps=rows is None, tb_log_name="ppo")

    clear_caches(model)
    # Each training seed has its own sampled actions: shared ones would make seeds agree more than they do.
    last = evaluate(model, study.world, full, seed=cell.seed, **arguments)
    habit = MarginalAgent(action_marginal(PolicyAgent(model), study, cell, full))
    blind = evaluate(habit, study.world, full, seed=cell.seed, **arguments).assign(agent="state-blind")
    if cell.seed == 0:
        write_json(folder / "episodes" / f"{cell.name}.json", shown_episodes(model, study, cell, full))
    save_checkpoint(checkpoints, model, watch.rows)
    parts = [watch.rows, *(_label(part, cell, model.num_timesteps) for part in (last, blind))]
    weights = model.policy.language_model.fingerprint if isinstance(model.policy, LanguagePolicy) else ""
    return pd.concat(parts, ignore_index=True).assign(weights=weights)


def make_model(study: Study, cell: Cell, folder: Path) -> PPO:
    """A fresh model and its environments.

    Seeds depend on the training seed alone, so that all arms and train shifts meet the same starts, corners and
    orders; they are spread by ``SeedSequence``, so that no two seeds' environments overlap.
    """
    arm = cell.arm
    policy_seed, env_seed = np.random.SeedSequence(cell.seed).generate_state(2, np.uint64).tolist()
    env = vec_env(study.world, arm.num_envs, shift=cell.train_shift, **world_arguments(study, cell))
    settings: dict[str, Any] = {"device": "cpu"} | arm.settings
    if arm.language_model:
        chosen = read_json(folder / "environment.json")["language_model_dtype"]
        language = {"model": arm.language_model, "dtype": getattr(torch, chosen)}
        settings["policy_kwargs"] = language | settings.get("policy_kwargs", {})
    model = PPO(
        LanguagePolicy if arm.language_model else "MlpPolicy",
        env,
        seed=policy_seed % 2**32,
        tensorboard_log=str(folder / "tensorboard" / cell.name),
        **settings,
    )
    env.seed(env_seed)
    return model


def world_arguments(study: Study, cell: Cell) -> dict[str, Any]:
    """The arguments of the world that a cell is about."""
    return {**study.arguments, **cell.arm.arguments, "observation": cell.arm.observation}


def clear_caches(model: PPO) -> None:
    """Empties what a language policy remembers between steps, so that results do not depend on what came before."""
    if isinstance(model.policy, LanguagePolicy):
        model.policy.clear_cache()


class Watch(BaseCallback):
    """Tests and checkpoints every ``arm.test_every`` steps, between an update and the next rollout."""

    def __init__(
        self,
        study: Study,
        cell: Cell,
        levels: LevelSet,
        checkpoints: Path,
        rows: pd.DataFrame | None,
        report: Report,
    ):
        super().__init__()
        self.study, self.cell, self.levels = study, cell, levels
        self.checkpoints, self.report = checkpoints, report
        self.rows = pd.DataFrame() if rows is None else rows
        self._tested = -1 if rows is None else int(rows["step"].to_numpy().max())

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.report(self.num_timesteps)
        if self.num_timesteps == self._tested or self.num_timesteps % self.cell.arm.test_every:
            return
        assert isinstance(self.model, PPO)
        clear_caches(self.model)
        # The untrained policy is a reference, so it is tested both ways.
        modes = MODES if self.num_timesteps == 0 else MODES[:1]
        arguments = self.study.arguments | self.cell.arm.arguments
        rows = evaluate(self.model, self.study.world, self.levels, modes, seed=self.cell.seed, **arguments)
        self.rows = pd.concat([self.rows, _label(rows, self.cell, self.num_timesteps)], ignore_index=True)
        self._tested = self.num_timesteps
        clear_caches(self.model)
        save_checkpoint(self.checkpoints, self.model, self.rows)
        apart = rows[(rows["level_class"] == "distinguishing") & (rows["mode"] == "sampled")]
        for outcome in ("intended", "proxy"):
            self.logger.record(f"test/{outcome}_first", float(np.mean(apart["outcome"] == outcome)))


def action_marginal(agent: StochasticAgent, study: Study, cell: Cell, levels: LevelSet) -> np.ndarray:
    """How often an agent takes each action on the ambiguous levels, ``float64[A]``."""
    ambiguous = levels[levels.level_class == "ambiguous"]
    world = find_world(study.world)(len(ambiguous), **world_arguments(study, cell))
    world.set_levels(ambiguous.levels)
    taken = [step.actions for step in play(agent, world, np.random.default_rng(0))]
    return np.bincount(np.concatenate(taken), minlength=len(world.action_texts)).astype(np.float64)


def shown_episodes(model: PPO, study: Study, cell: Cell, levels: LevelSet) -> list[dict[str, Any]]:
    """Three sampled episodes for the page: one on the first ambiguous level, two on the first distinguishing ones."""
    first = int(np.flatnonzero(levels.level_class == "distinguishing")[0])
    shown = levels[[0, first, first + 1]]
    rng = np.random.default_rng(0)
    told = trace(PolicyAgent(model), study.world, shown, rng, **world_arguments(study, cell))
    label = {"arm": cell.arm.name, "train_shift": cell.train_shift, "seed": cell.seed}
    return [label | episode for episode in told]


def _label(rows: pd.DataFrame, cell: Cell, step: int) -> pd.DataFrame:
    return _labelled(rows, cell.arm.name, cell.arm.policy, cell.train_shift, cell.seed, step)


def _labelled(rows: pd.DataFrame, arm: str, policy: str, train_shift: float, seed: int, step: int) -> pd.DataFrame:
    return rows.assign(arm=arm, policy=policy, train_shift=train_shift, seed=seed, step=step)
