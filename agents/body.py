"""What a HuggingFace model computes when its rows are trees instead of sequences."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from astray.agents.trie import Row
from astray.envs import InputError

KINDS = {"full_attention", "sliding_attention", "global"}
"""Of attention, which a mask is made for."""
# What models call what stands beside their layers; one with other names is not cut, which is slower and as exact.
POSITION_EMBEDDINGS = ("wpe", "embed_positions")
AFTER_LAYERS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "layer_norm", "project_out")


def run(body: PreTrainedModel, rows: Sequence[Row], inputs: Tensor, cache: DynamicCache | None) -> Tensor:
    """Last hidden states of rows with one prefix, ``[rows, longest row, hidden]``.

    Args:
        body: a model without its head, or some of its layers (see ``cut``).
        rows: what is fed.
        inputs: token ids ``[rows, longest row]``, or states ``[rows, longest row, hidden]`` to go on from, padded on
            the right.
        cache: keys and values of the prefix, one for each row; those of the rows are added to it. It keeps every key,
            also where a layer looks no further than a window: how far it looks is said by the mask.
    """
    batch, longest, prefix = len(rows), inputs.shape[1], rows[0].prefix
    positions = np.zeros((batch, prefix + longest), np.int64)
    positions[:, :prefix] = np.arange(prefix)
    # padding sees itself (and the prefix): a row of the softmax without anything to see would be NaN
    sees = np.eye(longest, dtype=bool)[None].repeat(batch, 0)
    for i, row in enumerate(rows):
        positions[i, prefix : prefix + row.length] = row.positions()
        sees[i, : row.length, : row.length] = row.sees()
    sees = np.concatenate((np.ones((batch, longest, prefix), bool), sees), axis=2)
    return attend(body, inputs, sees, positions, cache)


def attend(
    body: PreTrainedModel, inputs: Tensor, sees: np.ndarray, positions: np.ndarray, cache: DynamicCache | None
) -> Tensor:
    """Last hidden states of what is fed, ``[rows, fed, hidden]``.

    Args:
        body: as in ``run``.
        inputs: token ids ``[rows, fed]``, or states ``[rows, fed, hidden]``.
        sees: ``bool[rows, fed, keys]``, which keys each may look at: first those in the cache, then what is fed.
        positions: where the keys stand in the plain sequence, ``int64[rows, keys]``.
        cache: keys and values, to which those of what is fed are added.

    Raises:
        InputError: a text is so long that the model turns all its keys otherwise, also those that are kept.
    """
    limit = _longest_alike(body.config.get_text_config())
    if limit is not None and positions.max() >= limit:
        raise InputError(
            f"a text of {positions.max() + 1} tokens is too long: beyond {limit}, a {type(body).__name__} computes the "
            "whole text with other rotary embeddings (LongRoPE)"
        )
    fed = positions[:, -inputs.shape[1] :]
    return body(
        **{"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs.to(body.device)},
        attention_mask=_masks(body, sees, positions),
        position_ids=torch.from_numpy(fed).to(body.device),
        use_cache=cache is not None,
        **{_cache_name(body): cache},
    ).last_hidden_state


def expand(cache: DynamicCache | None, batch: int) -> DynamicCache | None:
    """A cache for ``batch`` rows that all begin with what ``cache`` holds; the original stays as it is."""
    if cache is None:
        return None
    expanded = DynamicCache()
    for layer in cache.layers:
        shared: Any = copy.copy(layer)
        if shared.is_initialized:
            shared.keys = shared.keys.expand(batch, -1, -1, -1)
            shared.values = shared.values.expand(batch, -1, -1, -1)
        expanded.layers.append(shared)
    return expanded


def _masks(body: PreTrainedModel, sees: np.ndarray, positions: np.ndarray) -> Tensor | dict[str, Tensor]:
    """What is added to attention scores; by kind of layer where the model has several.

    Numbers and not booleans, which plain attention in transformers adds as 0 and 1. A layer that looks no further than
    a window counts from where tokens stand in the plain sequence.
    """
    distance = positions[:, -sees.shape[1] :, None] - positions[:, None, :]
    config: Any = body.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    near = sees & (distance < window) if window else sees
    kinds = getattr(config, "layer_types", None)
    if other := set(kinds or getattr(config, "attention_layers", ())) - KINDS:
        raise ValueError(f"a model with layers of {', '.join(sorted(other))} takes no mask of its rows")
    if kinds is None:
        return _mask(near, body)
    return {kind: _mask(near if kind == "sliding_attention" else sees, body) for kind in set(kinds)}


def _longest_alike(config: Any) -> int | None:
    """Up to how many tokens rotary embeddings do not depend on the length of the text; None if they never do."""
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope] if "rope_type" in rope else [kind for kind in rope.values() if isinstance(kind, dict)]
    limits = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    return min(limits, default=None)


def _mask(sees: np.ndarray, body: PreTrainedModel) -> Tensor:
    mask = torch.zeros(sees.shape, dtype=body.dtype)
    mask.masked_fill_(torch.from_numpy(~sees), torch.finfo(body.dtype).min)
    return mask[:, None].to(body.device)


def _cache_name(body: PreTrainedModel) -> str:
    """The argument that takes a cache: its name changed within transformers 5."""
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


@contextmanager
def precision(body: PreTrainedModel) -> Iterator[None]:
    """In bfloat16 models, float32 adapters are cast down for the matrix products, inputs never up."""
    reduced = body.dtype != torch.float32
    with (
        torch.autocast(body.device.type, body.dtype, enabled=reduced),
        disable_input_dtype_casting(body, reduced),
    ):
        yield


class WeightsVersion:
    """Called, gives what changes with every change of a module's weights in place, and when they move.

    And with which adapters are active, and how strongly. What is written into a weight's ``data`` goes unnoticed.

    Args:
        module: its parts are listed now, and again when other adapters become active: listing takes longer than
            comparing. What is put into it or replaced later takes a new ``WeightsVersion``.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._list()

    def __call__(self) -> tuple:
        """Something to compare."""
        adapters = self._adapters()
        if adapters != self._listed:
            self._list()
        first = self._weights[0]
        return sum(weight._version for weight in self._weights), first.dtype, first.device, adapters

    def _list(self) -> None:
        self._weights = list(self._module.parameters())
        self._tuned = [part for part in self._module.modules() if isinstance(part, BaseTunerLayer)]
        self._listed = self._adapters()

    def _adapters(self) -> frozenset[tuple]:
        return frozenset(
            (part.disable_adapters, *part.active_adapters, *part.merged_adapters, *getattr(part, "scaling", {}).items())
            for part in self._tuned
        )


def recomputes(module: nn.Module) -> bool:
    """Whether layers compute their activations again in the backward pass (gradient checkpointing).

    In training mode, those of older transformers drop a cache without a backward pass, too.
    """
    return any(
        getattr(part, "gradient_checkpointing", False) and (torch.is_grad_enabled() or part.training)
        for part in module.modules()
    )


def train_layers(module: nn.Module, mode: bool) -> None:
    """Sets the mode of the layers that can compute their activations again, which they do in training mode only.

    What is inside them stays in evaluation mode, without dropout; where a layer drops at a rate of its own, at 0.
    """
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.training = mode
            for name in [name for name, value in vars(layer).items() if "dropout" in name and isinstance(value, float)]:
                setattr(layer, name, 0.0)


def replace(module: nn.Module, **children: nn.Module) -> Any:
    """A shallow copy of ``module`` that shares all its children except those given."""
    replaced = copy.copy(module)
    replaced._modules = {**module._modules, **children}
    return replaced


def layers_of(model: nn.Module, depth: int) -> tuple[str, nn.ModuleList]:
    """The list of the model's ``depth`` layers, and its name in the model.

    Raises:
        ValueError: there is none.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name, module
    raise ValueError(f"a {type(model).__name__} has no list of {depth} layers to put adapters in")


class _Nothing(nn.Module):
    """Stands where a model adds the embeddings of positions, and adds nothing."""

    def forward(self, *_: object, **__: object) -> Tensor:
        return torch.zeros(())


def cut(body: Any, layers: int) -> tuple[PreTrainedModel, PreTrainedModel] | None:
    """``body`` as its lowest ``layers`` and the rest, which share its modules; None if it cannot be cut.

    What comes after the layers (a norm, a projection) is left out below, what comes before them (embeddings of
    positions, a projection) above. A model whose two parts in a row compute something else than the whole is not cut.
    """
    config = body.config.get_text_config()
    ids = torch.arange(8, device=body.device)[None] % config.vocab_size
    try:
        name, _ = layers_of(body, config.num_hidden_layers)
        below = _part(body, name, slice(0, layers), {key: nn.Identity() for key in AFTER_LAYERS})
        before = {key: _Nothing() for key in POSITION_EMBEDDINGS} | {"project_in": nn.Identity()}
        above = _part(body, name, slice(layers, None), before)
        with torch.no_grad(), precision(body):
            states = below(input_ids=ids, use_cache=False).last_hidden_state
            states = above(inputs_embeds=states, use_cache=False).last_hidden_state
            same = torch.allclose(states, body(input_ids=ids, use_cache=False).last_hidden_state)
    except Exception:  # whatever a model says that takes no states, or asks its layers for their numbers
        return None
    return (below, above) if same else None


def _part(body: Any, name: str, layers: slice, stands_in: Mapping[str, nn.Module]) -> Any:
    """``body`` with some of its layers; modules beside them are replaced where ``stands_in`` has their name."""
    owner_name, _, name = name.rpartition(".")
    owner = body.get_submodule(owner_name)
    children = {key: module for key, module in stands_in.items() if owner._modules.get(key) is not None}
    part = replace(owner, **{name: nn.ModuleList(getattr(owner, name)[layers])}, **children)
    part.config = copy.copy(owner.config)
    if getattr(owner.config, "layer_types", None):
        part.config.layer_types = owner.config.layer_types[layers]
    return replace(body, **{owner_name: part}) if owner_name else part
