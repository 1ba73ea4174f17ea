"""A language model as a Stable-Baselines3 policy: what it would say next is what it does next."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import numpy as np
import torch
from gymnasium import spaces
from peft import PeftModel
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from astray.agents.adapters import adapter_files, load_adapter, unfreeze
from astray.agents.body import WeightsVersion, train_layers
from astray.agents.language_model import LanguageModel, require_numbers
from astray.agents.scoring import Normalization, Scorer, make_scorer, normalize
from astray.agents.trie import Tokens
from astray.agents.weights import fingerprint_tensor, require_base
from astray.envs import InputError, choose
from astray.envs.text import NamedDiscrete, TextBytes, TextChoices, decode

VALUE_WIDTH = 64
IMPOSSIBLE = -1e9  # the logit of an action that cannot be chosen: its probability is exactly 0, and no gradient is NaN
REMEMBERED = 2**16  # observations
COLDEST = 1e-4  # temperature: divided by less, an unlikely action's logit would come near that of an impossible one


class Question(NamedTuple):
    """What the model is asked about one observation: tokens of the prompt and of each possible action."""

    prompt: Tokens
    candidates: tuple[Tokens, ...]
    texts: tuple[str, ...]
    numbers: tuple[int, ...]  # of the actions


class LanguagePolicy(ActorCriticPolicy):
    """Acts by the log-probabilities that a language model gives to the actions' texts after the observation.

    ``PPO(LanguagePolicy, env, policy_kwargs=dict(model="smollm2-135m"), **LM_PPO)``. The model's weights stay as they
    are; low-rank adapters in its highest layers are trained, and a value head on the last hidden state of the
    observation, from which no gradient reaches the model. Adapters, head and optimiser are what is saved.

    Each distinct observation is computed once: per change of the weights while acting, per minibatch while training.
    There is no dropout.

    Args:
        observation_space: a ``TextBytes``, or a ``TextChoices`` where the actions vary.
        action_space: a ``NamedDiscrete``; for ``TextChoices`` a ``Discrete``.
        lr_schedule: given by the algorithm: the learning rate of adapters and head.
        model: what ``LanguageModel.load`` takes.
        dtype: of the frozen weights; by default what this machine's CPU multiplies faster. On a GPU, name
            ``torch.bfloat16`` for a large model.
        instruction: the system message; by default the observation space's.
        persona: who the model is told to be, before the instruction.
        trained_layers: how many of the highest layers learn. With 0 only the value head learns.
        lora_rank: rank of the adapters; None trains the layers' own weights instead (with all layers, every weight of
            the model), which takes ``dtype=torch.float32`` and large files.
        lora_alpha: adapters are multiplied by ``lora_alpha / lora_rank``.
        head_rate: the value head's learning rate, as a multiple of the algorithm's.
        temperature: divides the scores.
        normalization: what makes scores of token log-probabilities: "sum", "token", "word" or "trie".
        gradient_checkpointing: whether activations of the trained layers are computed again in the backward pass,
            which saves memory with long prompts and costs time.
        **kwargs: what Stable-Baselines3 passes to every policy.

    Raises:
        TypeError: a space is of another kind.
        InputError: an argument is out of its range.
    """

    observation_space: TextBytes | TextChoices
    action_space: spaces.Discrete
    fingerprint: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        model: str = "smollm2-135m",
        dtype: torch.dtype | None = None,
        instruction: str | None = None,
        persona: str = "",
        trained_layers: int = 10,
        lora_rank: int | None = 16,
        lora_alpha: int = 32,
        head_rate: float = 1.0,
        temperature: float = 1.0,
        normalization: Normalization = "sum",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ):
        fixed = isinstance(observation_space, TextBytes) and isinstance(action_space, NamedDiscrete)
        varying = isinstance(observation_space, TextChoices) and isinstance(action_space, spaces.Discrete)
        if not fixed and not varying:
            raise TypeError(
                "LanguagePolicy reads TextBytes and chooses from NamedDiscrete, or reads TextChoices and chooses from "
                'Discrete (astray.envs.text; the worlds have the former with observation="bytes"), not '
                f"{observation_space} and {action_space}"
            )
        if not temperature >= COLDEST:
            raise InputError(f"temperature={temperature!r} must be at least {COLDEST}")
        if isinstance(observation_space, TextChoices) and observation_space.max_actions > action_space.n:  # pyright: ignore[reportAttributeAccessIssue]
            raise InputError(
                f"{observation_space} may offer {observation_space.max_actions} actions, but {action_space} has fewer"
            )
        if not head_rate > 0:
            raise InputError(f"head_rate={head_rate!r} must be greater than 0")
        choose("normalization", normalization, get_args(Normalization))
        self._settings: dict[str, Any] = dict(
            model=model,
            dtype=dtype,
            instruction=instruction,
            persona=persona,
            trained_layers=trained_layers,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            head_rate=head_rate,
            temperature=temperature,
            normalization=normalization,
            gradient_checkpointing=gradient_checkpointing,
        )
        self._scores: dict[bytes, tuple[Tensor, Tensor]] = {}
        self._scores_version: tuple = ()
        self._base_logits: dict[bytes, Tensor] = {}
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)

    def _build(self, lr_schedule: Schedule) -> None:
        settings = self._settings
        self.language_model = LanguageModel.load(settings["model"], settings["dtype"])
        base = self.language_model.model
        # registered as a module of this policy, so that ``to(device)`` moves it
        self.network = unfreeze(base, settings["trained_layers"], settings["lora_rank"], settings["lora_alpha"])
        if settings["gradient_checkpointing"]:
            with warnings.catch_warnings(action="ignore"):  # its name changes within transformers 5
                base.gradient_checkpointing_enable({"use_reentrant": False})
        frozen = not any(weight.requires_grad for weight in base.get_input_embeddings().parameters())
        trunk_layers = base.config.get_text_config().num_hidden_layers - settings["trained_layers"] if frozen else 0
        self._scorer = make_scorer(base, trunk_layers)
        if settings["instruction"] is None:
            settings["instruction"] = self.observation_space.instruction
        self._system = "\n".join(filter(None, (settings["persona"], settings["instruction"])))
        self._prefix = self.language_model.shared_tokens(self._system)
        self._asked = lru_cache(maxsize=REMEMBERED)(self._ask)

        width = self.language_model.width
        self.value_net = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, VALUE_WIDTH), nn.Tanh(), nn.Linear(VALUE_WIDTH, 1)
        )
        self.register_buffer("fingerprint", fingerprint_tensor(self.language_model.fingerprint))
        self._weights_version = WeightsVersion(self)
        groups = [
            {"params": [weight for weight in self.network.parameters() if weight.requires_grad], "factor": 1.0},
            {"params": list(self.value_net.parameters()), "factor": settings["head_rate"]},
        ]
        optimizer_kwargs: dict[str, Any] = dict(lr=lr_schedule(1), **self.optimizer_kwargs)
        self.optimizer = self.optimizer_class([group for group in groups if group["params"]], **optimizer_kwargs)
        # Stable-Baselines3 writes one rate into all groups before each training phase
        self.optimizer.register_step_pre_hook(lambda optimizer, *_: _scale_rates(optimizer, 1))
        self.optimizer.register_step_post_hook(lambda optimizer, *_: _scale_rates(optimizer, -1))

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions ``[B]``, values ``[B, 1]`` and log-probabilities of the actions ``[B]``."""
        logits, values = self.logits_and_values(obs)
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: PyTorchObs, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values ``[B, 1]``, log-probabilities of the actions ``[B]`` and entropies ``[B]``."""
        logits, values = self.logits_and_values(obs)
        distribution = self.action_dist.proba_distribution(action_logits=logits)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """The distribution over actions."""
        return self.action_dist.proba_distribution(action_logits=self.logits_and_values(obs)[0])

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """Values ``[B, 1]``."""
        return self.logits_and_values(obs)[1]

    def logits_and_values(self, obs: PyTorchObs) -> tuple[Tensor, Tensor]:
        """Logits ``float32[B, A]`` and values ``float32[B, 1]``; each distinct observation computed once."""
        rows = self.rows(obs)
        distinct = list(dict.fromkeys(rows))
        if torch.is_grad_enabled():
            scores = self._compute(distinct)
        else:
            version = self._weights_version()
            if version != self._scores_version or len(self._scores) > REMEMBERED:
                self._scores.clear()
                self._scores_version = version
            missing = [row for row in distinct if row not in self._scores]
            if missing:
                self._scores.update(self._compute(missing))
            scores = self._scores
        index = _index(rows, distinct).to(self.device)
        logits, values = zip(*(scores[row] for row in distinct), strict=True)
        return torch.stack(logits)[index], torch.stack(values)[index]

    @torch.no_grad()
    def base_logits(self, obs: PyTorchObs) -> Tensor:
        """Logits ``float32[B, A]`` of the model without its adapters; each distinct observation is computed once.

        Raises:
            InputError: the model's own weights are trained (``lora_rank=None``), so that they are no longer known.
        """
        rows = self.rows(obs)
        distinct = list(dict.fromkeys(rows))
        if len(self._base_logits) > REMEMBERED:
            self._base_logits.clear()
        if missing := [row for row in distinct if row not in self._base_logits]:
            with self.adapters_off():
                scores = self._compute(missing)
            self._base_logits.update((row, logits) for row, (logits, _) in scores.items())
        return torch.stack([self._base_logits[row] for row in distinct])[_index(rows, distinct).to(self.device)]

    def rows(self, obs: PyTorchObs) -> list[bytes]:
        """Observations as keys: equal ones have equal bytes, which is what they are computed once by."""
        parts = [obs] if isinstance(obs, Tensor) else [obs[key] for key in TextChoices.KEYS]
        arrays = [part.to(torch.uint8).cpu().numpy() for part in parts]
        return [row.tobytes() for row in np.concatenate(arrays, axis=1)]

    def question(self, row: bytes) -> Question:
        """What the model is asked about an observation, given as ``rows`` has it."""
        return self._asked(row)

    def logits(self, question: Question, edges: Tensor) -> Tensor:
        """Logits of all actions, ``float32[..., A]``, from log-probabilities of the edges of the candidates' trie."""
        scores = normalize(edges, question.candidates, question.texts, self._settings["normalization"])
        numbers = torch.tensor(question.numbers, device=scores.device)
        logits = scores.new_full((*scores.shape[:-1], int(self.action_space.n)), IMPOSSIBLE)
        return logits.index_copy(-1, numbers, scores / self._settings["temperature"])

    def clear_cache(self) -> None:
        """Forgets scores, so that the next ones depend only on the weights and on what is asked next.

        In bfloat16 a score may depend, in its last digits, on the batch it was computed in: call this at a checkpoint,
        from which a run may be resumed, and before an evaluation.
        """
        self._scores.clear()
        self._base_logits.clear()

    def forget(self) -> None:
        """Forgets all that was computed. Call it after writing into a weight's ``data``, which torch does not count."""
        self.clear_cache()
        self._weights_version = WeightsVersion(self)
        if isinstance(self._scorer, Scorer):
            self._scorer.forget()

    def save_adapter(self, folder: str | Path) -> None:
        """Writes the adapters as a plain PEFT folder, which ``PeftModel.from_pretrained`` opens.

        Raises:
            InputError: there are none (``trained_layers=0`` or ``lora_rank=None``).
        """
        if not isinstance(self.network, PeftModel):
            raise InputError("this policy has no adapters to save: trained_layers is 0 or lora_rank is None")
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in adapter_files(self.network, self.language_model.fingerprint).items():
            (Path(folder) / name).write_bytes(content)

    def load_adapter(self, folder: str | Path) -> None:
        """Goes on from adapters that ``save_adapter`` or PEFT wrote.

        Raises:
            InputError: they belong to another base model, or have other layers, another rank or another strength.
        """
        if not isinstance(self.network, PeftModel):
            raise InputError("this policy has no adapters to load into: trained_layers is 0 or lora_rank is None")
        load_adapter(self.network, Path(folder), self.language_model.fingerprint)
        self.forget()

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of the value head; the language model stays in evaluation mode, without dropout."""
        super().train(mode)
        self.network.eval()
        train_layers(self.network, mode)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What is trained, and the fingerprint of the base model, which itself is left out."""
        kept = {name for name, weight in self.named_parameters() if weight.requires_grad} | {"fingerprint"}
        return {name: weight for name, weight in super().state_dict(*args, **kwargs).items() if name in kept}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads what ``state_dict`` gave.

        Raises:
            InputError: it was trained on another base model, or has other entries than this policy (if ``strict``).
        """
        if "fingerprint" not in state_dict:
            raise InputError("these weights are none of a LanguagePolicy: they hold no fingerprint of a base model")
        require_base(state_dict["fingerprint"], self.fingerprint, self.language_model.name)
        if strict and (different := set(state_dict) ^ set(self.state_dict())):
            raise InputError(f"these weights have other entries than this policy: {sorted(different)[:4]}")
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        self.forget()
        return result

    def load_from_vector(self, vector: np.ndarray) -> None:
        """Sets all weights from one array, as ``parameters_to_vector`` gives it."""
        super().load_from_vector(vector)
        self.forget()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves or converts all weights; what was computed with them as they were is forgotten."""
        super()._apply(fn, recurse)
        self.forget()
        return self

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return super()._get_constructor_parameters() | self._settings

    def adapters_off(self) -> AbstractContextManager[None]:
        """While it lasts, the model is what it was before training.

        Raises:
            InputError: its own weights are trained (``lora_rank=None``), so that what they were is not known.
        """
        if isinstance(self.network, PeftModel):
            return self.network.disable_adapter()
        if any(weight.requires_grad for weight in self.network.parameters()):
            raise InputError("lora_rank=None trains the model's own weights, so what it was before is not known")
        return nullcontext()

    def _compute(self, rows: Sequence[bytes]) -> dict[bytes, tuple[Tensor, Tensor]]:
        """Logits ``[A]`` and value ``[1]`` of each row."""
        asked = [self.question(row) for row in rows]
        edges, hidden = self._scorer([q.prompt for q in asked], [q.candidates for q in asked], self._prefix)
        require_numbers(edges, lambda number: self.language_model.tokenizer.decode(asked[number].prompt))
        alike: dict[tuple, list[int]] = {}  # prompts with the same choices, the usual case: few operations for them all
        for number, question in enumerate(asked):
            alike.setdefault(question[1:], []).append(number)
        logits: dict[int, Tensor] = {}
        for numbers in alike.values():
            together = self.logits(asked[numbers[0]], torch.stack([edges[number] for number in numbers]))
            logits.update(zip(numbers, together, strict=True))
        values = self.value_net(hidden.detach().float())
        return {row: (logits[number], values[number]) for number, row in enumerate(rows)}

    def _ask(self, row: bytes) -> Question:
        data = np.frombuffer(row, np.uint8)
        if isinstance(self.observation_space, TextChoices):
            observation, choices = self.observation_space.decode(data)
            numbers, texts = tuple(choices), tuple(choices.values())
        else:
            assert isinstance(self.action_space, NamedDiscrete)
            (observation,), texts = decode(data[None]), self.action_space.texts
            numbers = tuple(range(len(texts)))
        prompt = self.language_model.prompt(self._system, observation)
        return Question(*self.language_model.encode(prompt, texts), texts, numbers)


def _index(rows: Sequence[bytes], distinct: Sequence[bytes]) -> Tensor:
    number = {row: i for i, row in enumerate(distinct)}
    return torch.tensor([number[row] for row in rows])


def _scale_rates(optimizer: torch.optim.Optimizer, power: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= group["factor"] ** power
