"""A language model as a Stable-Baselines3 policy: what it would say next is what it does next."""

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from gymnasium import spaces
from peft import LoraConfig, PeftModel, get_peft_model
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from astray.agents.language_model import LanguageModel, Normalization, normalize
from astray.agents.scoring import Scorer, weights_version
from astray.agents.trie import Tokens
from astray.envs.text import NamedDiscrete, TextBytes, decode

VALUE_WIDTH = 64


class LanguagePolicy(ActorCriticPolicy):
    """Acts by the log-probabilities that a language model gives to the actions' texts after the observation.

    ``PPO(LanguagePolicy, env, policy_kwargs=dict(model="smollm2-135m"), **LM_PPO)``. The model's weights stay
    as they are; low-rank adapters in its highest layers are trained, and a value head on the last hidden
    state of the observation, from which no gradient reaches the model. Adapters, head and optimiser are what
    is saved.

    Each distinct observation is computed once: per change of the weights while acting, per minibatch while
    training.

    Args:
        observation_space: a ``TextBytes``.
        action_space: a ``NamedDiscrete``.
        lr_schedule: given by the algorithm; one rate for adapters and head.
        model: what ``LanguageModel.load`` takes.
        dtype: of the frozen weights; by default the faster on this machine.
        instruction: the system message; by default the observation space's.
        lora_rank: rank of the adapters.
        lora_alpha: adapters are multiplied by ``lora_alpha / lora_rank``.
        lora_layers: how many of the highest layers get adapters. With 0 only the value head learns.
        temperature: divides the log-probabilities.
        normalization: "sum" or "mean" of a text's token log-probabilities.
        **kwargs: what Stable-Baselines3 passes to every policy.

    Raises:
        TypeError: a space is of another kind.
    """

    observation_space: TextBytes
    action_space: NamedDiscrete
    fingerprint: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: str = "smollm2-135m",
        dtype: torch.dtype | None = None,
        instruction: str | None = None,
        lora_rank: int = 16,
        lora_alpha: int = 32,
        lora_layers: int = 10,
        temperature: float = 1.0,
        normalization: Normalization = "sum",
        **kwargs: Any,
    ):
        if not isinstance(observation_space, TextBytes) or not isinstance(action_space, NamedDiscrete):
            raise TypeError(
                "LanguagePolicy reads TextBytes and chooses from NamedDiscrete (astray.envs.text; the worlds "
                f'have them with observation="bytes"), not {observation_space} and {action_space}'
            )
        self._settings: dict[str, Any] = dict(
            model=model,
            dtype=dtype,
            instruction=instruction,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_layers=lora_layers,
            temperature=temperature,
            normalization=normalization,
        )
        self._scores: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._scores_version = -1
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        settings = self._settings
        self.language_model = LanguageModel.load(settings["model"], settings["dtype"])
        base = self.language_model.model
        # registered as a module of this policy, so that ``to(device)`` moves it
        self.network = _with_adapters(base, settings) if settings["lora_layers"] else base
        trunk_layers = base.config.num_hidden_layers - settings["lora_layers"]
        self._scorer = Scorer(base, trunk_layers)
        if settings["instruction"] is None:
            settings["instruction"] = self.observation_space.instruction
        self._prefix = self.language_model.shared_tokens(settings["instruction"])
        self._tokens = lru_cache(maxsize=2**16)(self._encode)

        width = base.config.hidden_size
        self.value_net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, VALUE_WIDTH), nn.Tanh(), nn.Linear(VALUE_WIDTH, 1)
        )
        fingerprint = torch.frombuffer(bytearray.fromhex(self.language_model.fingerprint), dtype=torch.uint8)
        self.register_buffer("fingerprint", fingerprint)
        trained = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer_kwargs: dict[str, Any] = dict(lr=lr_schedule(1), **self.optimizer_kwargs)
        self.optimizer = self.optimizer_class(trained, **optimizer_kwargs)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[B]``, values ``[B, 1]`` and log-probabilities of the actions ``[B]``."""
        logits, values = self._logits_and_values(obs)
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]``, log-probabilities of the actions ``[B]`` and entropies ``[B]``."""
        logits, values = self._logits_and_values(obs)
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The distribution over actions."""
        return self.action_dist.proba_distribution(action_logits=self._logits_and_values(obs)[0])

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]``."""
        return self._logits_and_values(obs)[1]

    def clear_cache(self) -> None:
        """Forgets scores, so that the next ones depend only on the weights and on what is asked next.

        In bfloat16 a score may depend, in its last digits, on the batch it was computed in: call this at a
        checkpoint, from which a run may be resumed, and before an evaluation.
        """
        self._scores.clear()

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapters as a plain PEFT folder, which ``PeftModel.from_pretrained`` opens.

        Raises:
            ValueError: there are none (``lora_layers=0``).
        """
        if not isinstance(self.network, PeftModel):
            raise ValueError("this policy has no adapters to save: lora_layers is 0")
        self.network.save_pretrained(str(folder), save_embedding_layers=False)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the value head; the language model stays in evaluation mode, without dropout."""
        super().train(mode)
        self.network.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Adapters, value head, and the fingerprint of the base model, which itself is left out."""
        kept = {name for name, weight in self.named_parameters() if weight.requires_grad} | {"fingerprint"}
        return {name: weight for name, weight in super().state_dict(*args, **kwargs).items() if name in kept}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what ``state_dict`` gave.

        Raises:
            ValueError: it was trained on another base model, or has other entries than this policy (if
                ``strict``).
        """
        theirs, ours = (bytes(f.tolist()).hex() for f in (state_dict["fingerprint"], self.fingerprint))
        if theirs != ours:
            raise ValueError(
                f"these weights were trained on a base model with fingerprint {theirs}, but "
                f"{self.language_model.name} has {ours}"
            )
        if strict and (different := set(state_dict) ^ set(self.state_dict())):
            raise ValueError(f"these weights have other entries than this policy: {sorted(different)[:4]}")
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._settings

    def _logits_and_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Logits ``float32[B, A]`` and values ``float32[B, 1]``; each distinct observation computed once."""
        assert isinstance(obs, Tensor)
        rows = [row.tobytes() for row in obs.cpu().numpy()]
        distinct = list(dict.fromkeys(rows))
        if torch.is_grad_enabled():
            scores = self._compute(distinct)
        else:
            version = weights_version(self)
            if version != self._scores_version:
                self._scores.clear()
                self._scores_version = version
            missing = [row for row in distinct if row not in self._scores]
            if missing:
                self._scores.update(self._compute(missing))
            scores = self._scores
        logits = torch.stack([scores[row][0] for row in distinct])
        values = torch.stack([scores[row][1] for row in distinct])
        number = {row: i for i, row in enumerate(distinct)}
        index = torch.tensor([number[row] for row in rows], device=logits.device)
        return logits[index], values[index]

    def _compute(self, rows: Sequence[bytes]) -> dict[bytes, tuple[Tensor, Tensor]]:
        pairs = [self._tokens(row) for row in rows]
        log_probs, hidden = self._scorer([p for p, _ in pairs], [c for _, c in pairs], self._prefix)
        temperature, normalization = self._settings["temperature"], self._settings["normalization"]
        logits = [
            normalize(row, candidates, normalization) / temperature
            for row, (_, candidates) in zip(log_probs, pairs, strict=True)
        ]
        values = self.value_net(hidden.detach().float())
        return dict(zip(rows, zip(logits, values, strict=True), strict=True))

    def _encode(self, row: bytes) -> tuple[Tokens, tuple[Tokens, ...]]:
        text = decode(np.frombuffer(row, np.uint8)[None])[0]
        prompt = self.language_model.prompt(self._settings["instruction"], text)
        return self.language_model.encode(prompt, self.action_space.texts)


def _with_adapters(model: PreTrainedModel, settings: dict[str, Any]) -> PeftModel:
    """LoRA (Hu et al. 2021) on every linear map of the highest layers: float32 weights, no dropout."""
    depth = model.config.num_hidden_layers
    if not 0 < settings["lora_layers"] <= depth:
        raise ValueError(f"lora_layers must be 0 to {depth}, the layers of the model, not {settings['lora_layers']}")
    stack, layers = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    )
    targets = {
        f"{stack}.{number}.{name}": module
        for number in range(depth - settings["lora_layers"], depth)
        for name, module in layers[number].named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    config = LoraConfig(
        r=settings["lora_rank"],
        lora_alpha=settings["lora_alpha"],
        lora_dropout=0.0,
        target_modules=list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets.values()),
    )
    with warnings.catch_warnings(action="ignore"):  # PEFT asks transformers for a property under its old name
        return get_peft_model(model, config)
