"""One cell of a study: train, test on the way, checkpoint, test at the end. Runs in a process of its own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from astray.agents import LanguagePolicy, LanguagePPO, LogRewards, RewardStack, with_rewards
from astray.agents.acting import ExpertAgent, MarginalAgent, PolicyAgent, StochasticAgent
from astray.agents.reading import ObservationReader
from astray.agents.vec_env import vec_env
from astray.envs import LevelSet, find_world
from astray.experiments.checkpoint import keep_last, load_checkpoint, newest, restore_policy, save_checkpoint
from astray.experiments.evaluation import MODES, atlas, evaluate, play, trace
from astray.experiments.experience import Experience
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
    watch = Watch(study, cell, folder / "checkpoints" / cell.name, report)
    model = make_model(study, cell, folder)
    watch.resume(model)
    steps = cell.arm.steps - model.num_timesteps
    callbacks = [watch, LogRewards()] if isinstance(model.get_env(), RewardStack) else watch
    model.learn(steps, callback=callbacks, reset_num_timesteps=watch.rows.empty, tb_log_name="ppo")
    watch.time.lap("train")
    rows = [
        watch.rows,
        *(part.assign(**watch.experience.columns()) for part in last_tests(study, cell, model, watch.levels)),
    ]
    if cell.seed == 0:
        write_json(folder / "episodes" / f"{cell.name}.json", shown_episodes(model, study, cell, watch.levels))
        write_json(folder / "maps" / f"{cell.name}.json", shown_maps(model, study, cell, watch.levels))
    watch.time.lap("test")
    watch.save(model)
    keep_last(watch.checkpoints, 1)
    write_json(folder / "timings" / f"{cell.name}.json", watch.time.seconds)
    weights = model.policy.language_model.fingerprint if isinstance(model.policy, LanguagePolicy) else ""
    return pd.concat(rows, ignore_index=True).assign(weights=weights)


def last_tests(study: Study, cell: Cell, model: PPO, levels: LevelSet) -> list[pd.DataFrame]:
    """The trained policy on all levels in both modes, and what its habit alone would reach."""
    arguments = study.arguments | cell.arm.arguments
    clear_caches(model)
    # Each training seed has its own sampled actions: shared ones would make seeds agree more than they do.
    trained = evaluate(model, study.world, levels, seed=cell.seed, **arguments)
    habit = MarginalAgent(action_marginal(PolicyAgent(model), study, cell, levels))
    blind = evaluate(habit, study.world, levels, seed=cell.seed, **arguments).assign(agent="state-blind")
    return [_label(part, cell, model.num_timesteps) for part in (trained, blind)]


def make_model(study: Study, cell: Cell, folder: Path) -> PPO:
    """A fresh model and its environments.

    Seeds depend on the training seed alone, so that all arms and train shifts meet the same starts, corners and
    orders; they are spread by ``SeedSequence``, so that no two seeds' environments overlap.
    """
    arm = cell.arm
    policy_seed, env_seed = np.random.SeedSequence(cell.seed).generate_state(2, np.uint64).tolist()
    worlds = vec_env(study.world, arm.num_envs, shift=cell.train_shift, **world_arguments(study, cell))
    env: VecEnv = worlds
    if arm.extrinsic != "world" or arm.intrinsic:
        modules = {name: make(seed=policy_seed % 2**32) for name, make in arm.intrinsic.items()}
        env = with_rewards(worlds, arm.extrinsic, modules)
    algorithm, policy = (LanguagePPO, LanguagePolicy) if arm.language_model else (PPO, "MlpPolicy")
    settings: dict[str, Any] = {"policy": policy, "device": "cpu"} | arm.settings
    if arm.language_model:
        chosen = read_json(folder / "environment.json")["language_model_dtype"]
        language = {"model": arm.language_model, "dtype": getattr(torch, chosen)}
        settings["policy_kwargs"] = language | settings.get("policy_kwargs", {})
    logs = str(folder / "tensorboard" / cell.name)
    model = algorithm(env=env, seed=policy_seed % 2**32, tensorboard_log=logs, **settings)
    worlds.seed(env_seed)
    if before := study.beginning(cell):
        restore_policy(model.policy, newest(folder / "checkpoints" / before.name))
    return model


def world_arguments(study: Study, cell: Cell) -> dict[str, Any]:
    """The arguments of the world that a cell is about."""
    return {**study.arguments, **cell.arm.arguments, "observation": cell.arm.observation}


def clear_caches(model: PPO) -> None:
    """Empties what a language policy remembers between steps, so that results do not depend on what came before."""
    if isinstance(model.policy, LanguagePolicy):
        model.policy.clear_cache()


class Stopwatch:
    """What the time is spent on: ``lap(part)`` adds what went by since the last lap to ``seconds[part]``."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, part: str) -> None:
        """Ends a lap."""
        now = time.monotonic()
        self.seconds[part] = round(self.seconds.get(part, 0.0) + now - self._since, 3)
        self._since = now


class Watch(BaseCallback):
    """Tests and checkpoints every ``arm.test_every`` steps, between an update and the next rollout.

    Attributes:
        levels: of the last test.
        rows: of the tests so far.
        time: what it was spent on: "set up", "train", "test", "save".
    """

    def __init__(self, study: Study, cell: Cell, checkpoints: Path, report: Report):
        super().__init__()
        self.study, self.cell, self.checkpoints, self.report = study, cell, checkpoints, report
        self.time = Stopwatch()
        self.levels, self._timing_levels = study.levels()
        self.rows = pd.DataFrame()
        self._tested = -1
        world = find_world(study.world)(**world_arguments(study, cell))
        self.experience = Experience(ObservationReader(world.observation_space), list(world.goals), world.event_names)
        self.time.lap("test")

    def resume(self, model: PPO) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        if found := load_checkpoint(self.checkpoints, model):
            self.rows, kept = found
            self.time.seconds = kept["seconds"]
            self.experience.set_state(kept["experience"])
            self._tested = int(self.rows["step"].to_numpy().max())
        self.time.lap("set up")

    def save(self, model: PPO) -> None:
        """Writes a checkpoint."""
        kept = {"seconds": self.time.seconds, "experience": self.experience.get_state()}
        save_checkpoint(self.checkpoints, model, self.rows, kept)
        self.time.lap("save")

    def _on_step(self) -> bool:
        self.experience.meet(self.locals["new_obs"], self.locals["infos"])
        return True

    def _on_rollout_start(self) -> None:
        self.time.lap("train")
        self.report(self.num_timesteps)
        if self.num_timesteps != self._tested and not self.num_timesteps % self.cell.arm.test_every:
            assert isinstance(self.model, PPO)
            self._test(self.model)
            self.time.lap("test")
            self.save(self.model)

    def _test(self, model: PPO) -> None:
        clear_caches(model)
        # The untrained policy is a reference, so it is tested both ways.
        modes = MODES if self.num_timesteps == 0 else MODES[:1]
        arguments = self.study.arguments | self.cell.arm.arguments
        rows = evaluate(model, self.study.world, self._timing_levels, modes, seed=self.cell.seed, **arguments)
        rows = _label(rows, self.cell, self.num_timesteps).assign(**self.experience.columns())
        self.experience.tested()
        self.rows = pd.concat([self.rows, rows], ignore_index=True)
        self._tested = self.num_timesteps
        clear_caches(model)
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


def shown_maps(model: PPO, study: Study, cell: Cell, levels: LevelSet) -> list[dict[str, Any]]:
    """Where the policy goes from every start, for the page: on the first distinguishing level."""
    first = int(np.flatnonzero(levels.level_class == "distinguishing")[0])
    told = atlas(PolicyAgent(model), study.world, levels[[first]], **world_arguments(study, cell))
    label = {"arm": cell.arm.name, "train_shift": cell.train_shift, "seed": cell.seed}
    return [label | entry for entry in told]


def _label(rows: pd.DataFrame, cell: Cell, step: int) -> pd.DataFrame:
    return _labelled(rows, cell.arm.name, cell.arm.policy, cell.train_shift, cell.seed, step)


def _labelled(rows: pd.DataFrame, arm: str, policy: str, train_shift: float, seed: int, step: int) -> pd.DataFrame:
    return rows.assign(arm=arm, policy=policy, train_shift=train_shift, seed=seed, step=step)
