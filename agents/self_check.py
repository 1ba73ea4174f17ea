"""Whether a language policy would learn: what goes wrong silently elsewhere, looked for before the first update."""

import copy
import warnings
from collections.abc import Sequence

import torch
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor
from torch.distributions import Categorical

from astray.agents.policy import LanguagePolicy
from astray.agents.scoring import make_scorer
from astray.agents.weights import free_memory

TOLERANCE = 1e-3
TIE = 0.02  # in probability: which of two such actions is more likely, no precision decides
AGREEMENT = 0.99


class SelfCheckError(RuntimeError):
    """A policy does not compute or learn what it should."""


def self_check(policy: LanguagePolicy, obs: PyTorchObs, actions: Tensor) -> None:
    """Looks at a policy before its first update; nothing is changed, and no random number drawn.

    ``LanguagePPO`` does this by itself. That the tokenizer keeps prompts and candidates apart is checked whenever a new
    text is met (``LanguageModel.encode``), and that rows of several candidates are right when a model is loaded
    (``make_scorer``).

    Args:
        policy: in training mode, as in an update.
        obs: some observations, and
        actions: actions taken there, ``int64[B]``.

    Raises:
        SelfCheckError: the update would not begin at a ratio of 1; no gradient reaches what is trained in some layer,
            or the value head.
    """
    with torch.no_grad():
        before = Categorical(logits=policy.logits_and_values(obs)[0]).log_prob(actions)
    logits, values = policy.logits_and_values(obs)
    log_probs = Categorical(logits=logits).log_prob(actions)
    ratio = (log_probs - before).exp().sub(1).abs().max().item()
    if policy.language_model.model.dtype == torch.float32 and ratio > TOLERANCE:
        raise SelfCheckError(
            f"acting and updating compute probabilities that differ by a factor of up to {1 + ratio:.4g}: something in "
            "the model acts otherwise in training, as dropout does"
        )
    undecided = torch.tensor([len(policy.question(row).numbers) > 1 for row in policy.rows(obs)], device=logits.device)
    named = [(name, weight) for name, weight in policy.named_parameters() if weight.requires_grad]
    network = [(name, w) for name, w in named if not name.startswith("value_net") and "lora_A" not in name]
    head = [(name, w) for name, w in named if name.startswith("value_net")]
    if network and undecided.any():
        _require_gradients(network, log_probs[undecided].sum(), "the probabilities of actions")
    _require_gradients(head, values.square().sum(), "the values")
    if policy.language_model.model.dtype != torch.float32:
        _compare_with_float32(policy, obs)


def _require_gradients(weights: Sequence[tuple[str, Tensor]], output: Tensor, what: str) -> None:
    """Refuses weights that nothing can be learned in; adapters' lower halves, 0 at first, are not among them."""
    if output.requires_grad:
        found = torch.autograd.grad(output, [weight for _, weight in weights], retain_graph=True, allow_unused=True)
    else:
        found = [None] * len(weights)
    dead = [name for (name, _), grad in zip(weights, found, strict=True) if grad is None or not grad.abs().max() > 0]
    if dead:
        raise SelfCheckError(
            f"no gradient of {what} reaches {len(dead)} of {len(weights)} weights that are to be trained, {dead[0]} "
            "among them: they would never learn"
        )


@torch.no_grad()
def _compare_with_float32(policy: LanguagePolicy, obs: PyTorchObs) -> None:
    """Warns if the likeliest actions are others than in float32; says so where there is no memory to know."""
    model = policy.language_model.model
    need = sum(weight.numel() for weight in model.parameters()) * 4
    if need > free_memory(model.device) / 2:
        warnings.warn(
            f"too little memory to compare {model.dtype} with float32 on {policy.language_model.name}: not checked",
            stacklevel=3,
        )
        return
    every = policy.rows(obs)
    rows = list(dict.fromkeys(every))
    asked = [policy.question(row) for row in rows]
    with warnings.catch_warnings(action="ignore"):  # that a model is scored plainly was said when it was loaded
        precise = make_scorer(copy.deepcopy(model).float())
    edges, _ = precise([question.prompt for question in asked], [question.candidates for question in asked])
    expected = torch.stack([policy.logits(*pair) for pair in zip(asked, edges, strict=True)]).softmax(-1)
    first = [every.index(row) for row in rows]
    found = policy.logits_and_values(obs)[0][first].argmax(-1, keepdim=True)
    agrees = expected.max(-1).values - expected.gather(-1, found)[:, 0] < TIE
    if agrees.float().mean() < AGREEMENT:
        warnings.warn(
            f"in {model.dtype}, {policy.language_model.name} prefers another action than in float32 on "
            f"{(~agrees).sum()} of {len(rows)} observations: dtype=torch.float32 is slower and right",
            stacklevel=3,
        )
