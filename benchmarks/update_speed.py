"""Time and memory of a PPO update of a language model, beside the plain way: one sequence for each action.

``python benchmarks/update_speed.py`` prints, for 4 and 7 actions, milliseconds for each sample of a rollout whose
observations are all distinct, and where they go. Both policies are trained by ``PPO.train`` of Stable-Baselines3 on
the same rollouts with the same settings: SmolLM2-135M, adapters of rank 16 on all linear maps of the highest 10
layers, a value head on the prompt's last hidden state.

- plain: a padded sequence for each prompt and action, logits only where an action's token is predicted.
- Astray: ``LanguagePolicy``, for observations that it has not met, and for those that it has. In training it has met
  them, in the rollout.

Before anything is timed, both ways must give the same loss and gradients in float32. They take turns, and the best
turn of each counts. The required ratio, plain to Astray, is at least 3 for observations met before. Memory is the
most that a process of its own held, the model included (Linux only).
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from scoring_speed import ACTIONS, INSTRUCTION, dtypes, log_probs, machine, name_of, observations, padded, seconds
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from astray.agents.language_model import LanguageModel
from astray.agents.policy import LanguagePolicy
from astray.agents.settings import LM_PPO
from astray.envs.text import NamedDiscrete, TextBytes, decode, encode

BATCH = 16
"""Samples in a minibatch; with 7 actions in float32, the plain way needs more than 10 GB for them."""
PLAIN, NEW, MET = "plain", "Astray, new", "Astray, met before"
MAX_LENGTH = 200
LAYERS, RANK, ALPHA = 10, 16, 32
MAPS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
AT_LEAST = 3
STATUS = Path("/proc/self/status")
TOLERANCE = 1e-3
"""The largest difference of a weight's gradient, as a share of it."""


class PlainPolicy(ActorCriticPolicy):
    """What ``LanguagePolicy`` computes, one sequence for each observation and action."""

    observation_space: TextBytes
    action_space: NamedDiscrete

    def __init__(self, *args: Any, dtype: torch.dtype, **kwargs: Any):
        self._dtype = dtype
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        self.language_model = LanguageModel.load("smollm2-135m", self._dtype)
        depth = self.language_model.model.config.num_hidden_layers
        config = LoraConfig(
            r=RANK,
            lora_alpha=ALPHA,
            target_modules=list(MAPS),
            layers_to_transform=list(range(depth - LAYERS, depth)),
        )
        with warnings.catch_warnings(action="ignore"):  # PEFT asks transformers for a property under its old name
            self.network = get_peft_model(self.language_model.model, config)
        width = self.language_model.width
        self.value_net = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 64), nn.Tanh(), nn.Linear(64, 1))
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        self.optimizer = self.optimizer_class(trained, lr=lr_schedule(1), **self.optimizer_kwargs)  # pyright: ignore
        self._encoded = lru_cache(maxsize=None)(self._encode)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]``, log-probabilities of the actions ``[B]`` and entropies ``[B]``."""
        assert isinstance(obs, Tensor)
        pairs = [self._encoded(text) for text in decode(obs.numpy())]
        rows = [(start, rest) for start, rests in pairs for rest in rests]
        tokens, mask = padded([start + rest[:-1] for start, rest in rows])
        places = [(i, len(start) - 1 + d) for i, (start, rest) in enumerate(rows) for d in range(len(rest))]
        number, place = torch.tensor(places).T
        targets = torch.tensor([token for _, rest in rows for token in rest])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            body: Any = self.language_model.model.base_model
            states = body(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
            found = log_probs(self.language_model, states[number, place], targets)
        logits = torch.zeros(len(rows)).index_add(0, number, found).view(len(pairs), -1)
        last = torch.tensor([len(start) - 1 for start, _ in pairs])
        values = self.value_net(states[torch.arange(len(pairs)) * len(pairs[0][1]), last].detach().float())
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        return values, distribution.log_prob(actions), distribution.entropy()

    def _encode(self, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
        return self.language_model.encode(self.language_model.prompt(INSTRUCTION, text), self.action_space.texts)


# ---- rollouts
class Spaces(gym.Env):
    """The two spaces that an algorithm asks an environment for; no step is taken."""

    def __init__(self, actions: Sequence[str]):
        self.observation_space = TextBytes(MAX_LENGTH, INSTRUCTION)
        self.action_space = NamedDiscrete(actions)


def algorithm(policy: type[ActorCriticPolicy], actions: Sequence[str], dtype: torch.dtype, samples: int) -> PPO:
    """PPO with a policy, for rollouts of so many samples, one epoch."""
    settings = LM_PPO | dict(n_steps=samples, batch_size=min(BATCH, samples), n_epochs=1, device="cpu", seed=0)
    ppo = PPO(policy, Spaces(actions), policy_kwargs=dict(dtype=dtype), **settings)
    ppo.set_logger(Logger(None, []))
    return ppo


def both(actions: Sequence[str], dtype: torch.dtype, samples: int) -> tuple[PPO, PPO]:
    """The plain way and Astray, with the same adapters, which do something, and the same value head."""
    plain = algorithm(PlainPolicy, actions, dtype, samples)
    astray = algorithm(LanguagePolicy, actions, dtype, samples)
    theirs = dict(astray.policy.named_parameters())
    trained = {name: weight for name, weight in plain.policy.named_parameters() if weight.requires_grad}
    assert set(trained) == {name for name, weight in theirs.items() if weight.requires_grad}
    with torch.no_grad():
        for name, weight in trained.items():
            if "lora_B" in name:
                nn.init.normal_(weight, std=0.01)
            theirs[name].copy_(weight)
    return plain, astray


def fill(algorithms: Sequence[PPO], texts: Sequence[str]) -> None:
    """Puts the same rollout of one step for each text into the algorithms' buffers."""
    rng = np.random.default_rng(0)
    count = algorithms[0].action_space.n  # pyright: ignore[reportAttributeAccessIssue]
    actions, rewards = rng.integers(count, size=(len(texts), 1)), rng.normal(size=(len(texts), 1))
    for ppo in algorithms:
        buffer = ppo.rollout_buffer
        buffer.reset()
        for row, action, reward in zip(encode(texts, MAX_LENGTH), actions, rewards, strict=True):
            buffer.add(row[None], action, reward, np.ones(1), torch.zeros(1), torch.full((1,), -np.log(count)))
        buffer.compute_returns_and_advantage(torch.zeros(1), np.ones(1))


def train(ppo: PPO) -> None:
    """One update, the minibatches of which are the same for all."""
    np.random.seed(0)
    ppo.train()


# ---- measuring
def check_same(texts: Sequence[str], actions: Sequence[str]) -> None:
    """Makes sure that both ways give the same loss and gradients, in float32.

    Raises:
        AssertionError: they do not.
    """
    algorithms = both(actions, torch.float32, len(texts))
    fill(algorithms, texts)
    found = [loss_and_gradients(ppo) for ppo in algorithms]
    losses = [loss for loss, _ in found]
    assert abs(losses[0] - losses[1]) < TOLERANCE * abs(losses[0]), losses
    for name, expected in found[0][1].items():
        difference = (expected - found[1][1][name]).norm() / expected.norm()
        assert expected.norm() > 0, name
        assert difference < TOLERANCE, (name, difference)


def loss_and_gradients(ppo: PPO) -> tuple[float, dict[str, Tensor]]:
    """The loss of an update of one minibatch, and all weights' gradients just before the step, nothing clipped."""
    found: dict[str, Tensor] = {}

    def keep(*_: object) -> None:
        found.update((name, w.grad.clone()) for name, w in ppo.policy.named_parameters() if w.grad is not None)

    handle = ppo.policy.optimizer.register_step_pre_hook(keep)
    ppo.max_grad_norm, ppo.clip_range = 1e9, lambda _: 1e9
    train(ppo)
    handle.remove()
    return ppo.logger.name_to_value["train/loss"], found


def peak(policy: type[ActorCriticPolicy], actions: Sequence[str], dtype: torch.dtype, texts: Sequence[str]) -> float:
    """The most memory that a process of its own held for one update, the model included, in GB; 0 if not on Linux."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(update_alone, policy, actions, dtype, texts, torch.get_num_threads()).result()


def update_alone(
    policy: type[ActorCriticPolicy], actions: Sequence[str], dtype: torch.dtype, texts: Sequence[str], threads: int
) -> float:
    """What ``peak`` asks its process for."""
    torch.set_num_threads(threads)
    ppo = algorithm(policy, actions, dtype, len(texts))
    fill([ppo], texts)
    train(ppo)
    if not STATUS.exists():
        return 0.0
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if "VmHWM" in line) * 1024e-9


@contextmanager
def stopwatches(ppo: PPO) -> Iterator[dict[str, float]]:
    """Seconds spent in the parts of an update, filled in while the context is open."""
    spent: dict[str, float] = {}
    model, policy = ppo.policy.language_model.model, ppo.policy  # pyright: ignore[reportAttributeAccessIssue]
    instruction = len(policy.language_model.shared_tokens(INSTRUCTION))

    def watched(name: str, work: Callable) -> Callable:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter()
            result = work(*args, **kwargs)
            spent[name] = spent.get(name, 0.0) + perf_counter() - start
            return result

        return timed

    def watch(module: nn.Module, name: str) -> None:
        forward = module.forward

        def timed(inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
            alone = name == "upper layers" and inputs.shape[:2] == (1, instruction)
            return watched(f"{name}, instruction" if alone else name, forward)(inputs, *args, **kwargs)

        stack.enter_context(patch.object(module, "forward", timed))

    with ExitStack() as stack:
        for number, layer in enumerate(model.model.layers):
            watch(layer, "upper layers" if number >= model.config.num_hidden_layers - LAYERS else "lower layers")
        watch(model.get_output_embeddings(), "head")
        for owner, method, name in (
            (policy, "evaluate_actions", "forward"),
            (Tensor, "backward", "backward"),
            (policy.optimizer, "step", "optimiser"),
        ):
            stack.enter_context(patch.object(owner, method, watched(name, getattr(owner, method))))
        yield spent


def breakdown(ppo: PPO) -> dict[str, float]:
    """Where the time of an update goes, in seconds."""
    with stopwatches(ppo) as spent:
        total = seconds(lambda: train(ppo))
    inside = ("lower layers", "upper layers, instruction", "upper layers", "head")
    parts = {name: spent.get(name, 0.0) for name in inside}
    parts["rest of the forward pass"] = spent["forward"] - sum(parts.values())
    parts |= {name: spent[name] for name in ("backward", "optimiser")}
    return parts | {"rest of PPO": total - sum(parts.values()), "all": total}


def print_updates(plain: PPO, astray: PPO, rollouts: Iterator[Sequence[str]], turns: int) -> None:
    """Prints the first table."""
    orders = (PLAIN, NEW, MET), (NEW, MET, PLAIN)
    time = dict.fromkeys(orders[0], float("inf"))
    for number in range(turns):
        rollout = next(rollouts)
        fill((plain, astray), rollout)
        for name in orders[number % 2]:
            took = seconds(lambda name=name: train(plain if name == PLAIN else astray))
            time[name] = min(time[name], took / len(rollout))
    print(f"| {title(plain)} | ms a sample | plain / it |\n|---|--:|--:|")
    for name in orders[0]:
        print(f"| {name} | {time[name] * 1e3:.0f} | {time[PLAIN] / time[name]:.2f} |")
    print(f"\nRequired: at least {AT_LEAST}, {'holds' if time[PLAIN] >= AT_LEAST * time[MET] else 'MISSED'}.", end=" ")


def print_parts(plain: PPO, astray: PPO, rollout: Sequence[str]) -> None:
    """Prints the second table."""
    fill((plain, astray), rollout)
    columns = {NEW: breakdown(astray), MET: breakdown(astray), PLAIN: breakdown(plain)}
    print(f"| {title(plain)}, ms a sample | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    for part in columns[NEW]:
        cells = [f"{column[part] / len(rollout) * 1e3:.1f}" for column in columns.values()]
        print(f"| {part} | {' | '.join(cells)} |")
    print(flush=True)


def title(ppo: PPO) -> str:
    """What is measured."""
    assert isinstance(ppo.policy, PlainPolicy)
    return f"{name_of(ppo.policy.language_model)}, {ppo.policy.action_space.n} actions"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="turns of either way; the best one counts")
    parser.add_argument("--samples", type=int, default=BATCH, help="in a rollout")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="only this one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}\n")
    texts = observations((options.turns + 1) * options.samples)
    check_same(texts[:4], ACTIONS)
    for dtype, actions in product(dtypes(options.dtype), (ACTIONS[:4], ACTIONS)):
        plain, astray = both(actions, dtype, options.samples)
        rollouts = (texts[start : start + options.samples] for start in range(0, len(texts), options.samples))
        print_updates(plain, astray, rollouts, options.turns)
        most = [peak(policy, actions, dtype, texts[: options.samples]) for policy in (PlainPolicy, LanguagePolicy)]
        print(f"Memory: {most[0]:.1f} GB plain, {most[1]:.1f} GB Astray.\n")
        print_parts(plain, astray, next(rollouts))


if __name__ == "__main__":
    main()
