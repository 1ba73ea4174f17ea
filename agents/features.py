"""What a frozen language model makes of texts, as features for any policy of Stable-Baselines3."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from astray.agents.language_model import LanguageModel
from astray.agents.weights import fingerprint_tensor, require_base
from astray.envs import InputError
from astray.envs.text import TextBytes, decode

REMEMBERED = 2**16  # texts


class LanguageFeatures(BaseFeaturesExtractor):
    """The last hidden state of a language model that has read the observation, normalised; nothing of it is trained.

    ``PPO("MlpPolicy", envs, policy_kwargs=dict(features_extractor_class=LanguageFeatures), ...)``. Each distinct text
    is read once and remembered. The model is not saved with the policy, but its fingerprint is: weights that were
    trained on features of another are refused.

    Args:
        observation_space: a ``TextBytes``.
        model: what ``LanguageModel.load`` takes.
        dtype: of its weights.
        instruction: the system message; by default the observation space's.

    Raises:
        InputError: observations are of another kind.
    """

    fingerprint: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        model: str = "smollm2-135m",
        dtype: torch.dtype = torch.float32,
        instruction: str | None = None,
    ):
        if not isinstance(observation_space, TextBytes):
            raise InputError(f"LanguageFeatures reads TextBytes, not {observation_space}")
        language_model = LanguageModel.load(model, dtype)
        super().__init__(observation_space, language_model.width)
        self._instruction = observation_space.instruction if instruction is None else instruction
        # in a list, so that it is no module of this one: neither trained nor saved
        self._language_models = [language_model]
        self._features: dict[bytes, Tensor] = {}
        self.norm = nn.LayerNorm(language_model.width)
        self.register_buffer("fingerprint", fingerprint_tensor(language_model.fingerprint))

    def forward(self, observations: Tensor) -> Tensor:
        """Features ``float32[B, features_dim]`` of texts ``[B, max_length]``."""
        rows = [row.tobytes() for row in observations.to(torch.uint8).cpu().numpy()]
        if len(self._features) > REMEMBERED:
            self._features.clear()
        if missing := [row for row in dict.fromkeys(rows) if row not in self._features]:
            self._features.update(zip(missing, self._read(missing, observations.device), strict=True))
        return self.norm(torch.stack([self._features[row].to(observations.device) for row in rows]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        theirs = state_dict.get(f"{prefix}fingerprint")
        if theirs is not None:
            require_base(theirs, self.fingerprint, self._language_models[0].name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _read(self, rows: Sequence[bytes], device: torch.device) -> Tensor:
        (language_model,) = self._language_models
        nn.Module.to(language_model.model, device)
        texts = decode(np.stack([np.frombuffer(row, np.uint8) for row in rows]))
        return language_model.embed([language_model.prompt(self._instruction, text) for text in texts])
