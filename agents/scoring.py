"""Exact log-probabilities of candidate texts: one forward over each prompt and the trie of its candidates.

A row of a batch holds a prompt and, after it, the inner nodes of its candidates' trie. A tree mask lets a
node see the prompt and its ancestors, and its position is the prompt's length plus its depth, so that a node
computes what it would in the plain sequence ``prompt + candidate``. Leaves are predicted, never fed. Tokens
that all prompts begin with (an instruction) are computed once, and their keys and values shared by the batch.
"""

import copy
import inspect
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from peft.helpers import disable_input_dtype_casting
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from astray.agents.trie import Tokens, Trie, trie

# In one forward: enough for efficient matrix products, few enough to bound the memory of activations.
CHUNK_TOKENS = 2048
TRUNK_BYTES = 2**28


class Scores(NamedTuple):
    """What one pass gives.

    Attributes:
        log_probs: per prompt, ``float32[candidates]``: a candidate's token log-probabilities, summed.
        hidden: ``[prompts, hidden]``, the last hidden state of each prompt's last token.
    """

    log_probs: list[Tensor]
    hidden: Tensor


class _Row(NamedTuple):
    """One distinct prompt with its candidates; the first ``prefix`` tokens are shared and not fed again."""

    prompt: Tokens
    candidates: tuple[Tokens, ...]
    trie: Trie
    prefix: int

    @property
    def suffix(self) -> int:
        return len(self.prompt) - self.prefix

    @property
    def length(self) -> int:
        return self.suffix + len(self.trie.tokens)

    def fed(self) -> np.ndarray:
        return np.concatenate((np.array(self.prompt[self.prefix :], np.int64), self.trie.tokens))


class Scorer:
    """Scores candidates under a HuggingFace causal language model, with gradients.

    Args:
        model: any causal language model that accepts a 4-D float attention mask.
        trunk_layers: the number of lowest layers whose weights never change. What they compute for a prompt
            is kept, and only the layers above are computed again. Ignored where a model cannot be cut in two.
        trunk_bytes: memory for what is kept; the least recently used goes first.
    """

    def __init__(self, model: PreTrainedModel, trunk_layers: int = 0, trunk_bytes: int = TRUNK_BYTES):
        # the model's own way from hidden states to logits, with whatever it does to them (scaling, capping)
        self._head = _replace(model, **{model.base_model_prefix: _GivenStates()})
        body: Any = model.base_model
        cut = _cut(body, trunk_layers) if trunk_layers else None
        self._trunk = _Trunk(cut[0], trunk_bytes) if cut else None
        self._top: PreTrainedModel = cut[1] if cut else body
        self._prefix: tuple[Tokens, int, DynamicCache] | None = None

    def __call__(
        self, prompts: Sequence[Tokens], candidates: Sequence[tuple[Tokens, ...]], prefix: Tokens = ()
    ) -> Scores:
        """Scores every candidate of every prompt. Identical pairs are computed once, forward and backward.

        Args:
            prompts: token ids.
            candidates: per prompt, the token ids of its candidates, none a prefix of another.
            prefix: tokens to compute once for all prompts that begin with them (and are longer).

        Returns:
            Log-probabilities and hidden states, in the order of ``prompts``.
        """
        distinct: dict[tuple[Tokens, tuple[Tokens, ...]], int] = {}
        index = [distinct.setdefault(pair, len(distinct)) for pair in zip(prompts, candidates, strict=True)]
        rows = [
            _Row(prompt, options, trie(options), len(prefix) if _begins(prompt, prefix) else 0)
            for prompt, options in distinct
        ]
        log_probs: list[Tensor] = [torch.empty(0)] * len(rows)
        hidden: list[Tensor] = [torch.empty(0)] * len(rows)
        with precision(self._top):
            cache = self._prefix_cache(prefix) if any(row.prefix for row in rows) else None
            for chunk in _chunks(rows):
                chunk_rows = [rows[i] for i in chunk]
                states = self._states(chunk_rows, cache if chunk_rows[0].prefix else None)
                for i, *scores in zip(chunk, *self._read_out(chunk_rows, states), strict=True):
                    log_probs[i], hidden[i] = scores
        return Scores([log_probs[i] for i in index], torch.stack([hidden[i] for i in index]))

    def _states(self, rows: list[_Row], cache: DynamicCache | None) -> Tensor:
        """The last hidden states ``[rows, longest row, hidden]``, padded on the right."""
        if self._trunk is None:
            fed = [torch.from_numpy(row.fed()) for row in rows]
        else:
            fed = [self._trunk(row) for row in rows]
        return _forward(self._top, rows, pad_sequence(fed, batch_first=True), cache)

    def _read_out(self, rows: list[_Row], states: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Log-probabilities per row, and ``[rows, hidden]`` of the prompts' last tokens."""
        longest, device = states.shape[1], states.device
        nodes = [row.suffix - 1 + np.arange(1 + len(row.trie.tokens)) for row in rows]
        states = states.flatten(0, 1)[_join(nodes, np.arange(len(rows)) * longest).to(device)]
        logits = self._head(inputs_embeds=states[None]).logits[0].float()

        roots = _starts([len(row_nodes) for row_nodes in nodes])
        edge_nodes = _join([row.trie.edge_nodes for row in rows], roots).to(device)
        edge_tokens = _join([row.trie.edge_tokens for row in rows]).to(device)
        edges = logits[edge_nodes, edge_tokens] - logits.logsumexp(-1)[edge_nodes]

        widths = [len(row.candidates) for row in rows]
        first_edges = _starts([len(row.trie.edge_tokens) for row in rows])
        path_edges = _join([row.trie.path_edges for row in rows], first_edges).to(device)
        path_candidates = _join([row.trie.path_candidates for row in rows], _starts(widths)).to(device)
        sums = edges.new_zeros(sum(widths)).index_add(0, path_candidates, edges[path_edges])
        return sums.split(widths), states[torch.from_numpy(roots).to(device)]

    def _prefix_cache(self, prefix: Tokens) -> DynamicCache:
        """Keys and values of the prefix above the trunk; without gradients, kept until a weight changes."""
        version = weights_version(self._top)
        if not torch.is_grad_enabled() and self._prefix is not None and self._prefix[:2] == (prefix, version):
            return self._prefix[2]
        cache = DynamicCache()
        if self._trunk is None:
            inputs = torch.tensor([prefix], device=self._top.device)
        else:
            inputs = self._trunk.prefix(prefix)[0]
        self._top(**_inputs(inputs), use_cache=True, **{_cache_name(self._top): cache})
        if not torch.is_grad_enabled():
            self._prefix = (prefix, version, cache)
        return cache


class _Trunk:
    """The frozen lowest layers, and the states they computed per row; the least recently used go first.

    Rows are always computed one at a time: matrix products in bfloat16 may depend on the shape of the batch,
    and what is kept must not depend on which prompts happened to come together, because a resumed run meets
    others.
    """

    def __init__(self, body: PreTrainedModel, max_bytes: int):
        self._body = body
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[Tokens, tuple[Tokens, ...], int], Tensor] = OrderedDict()
        self._prefix: tuple[Tokens, Tensor, DynamicCache] | None = None

    @torch.no_grad()
    def __call__(self, row: _Row) -> Tensor:
        """The states ``[row.length, hidden]`` that enter the layer above."""
        key = (row.prompt, row.candidates, row.prefix)
        states = self._rows.get(key)
        if states is None:
            cache = self.prefix(row.prompt[: row.prefix])[1] if row.prefix else None
            states = _forward(self._body, [row], torch.from_numpy(row.fed())[None], cache)[0]
            self._rows[key] = states
            self._bytes += states.nbytes
            while self._bytes > self._max_bytes and len(self._rows) > 1:
                self._bytes -= self._rows.popitem(last=False)[1].nbytes
        self._rows.move_to_end(key)
        return states

    @torch.no_grad()
    def prefix(self, tokens: Tokens) -> tuple[Tensor, DynamicCache]:
        """States ``[1, tokens, hidden]``, and keys and values, of the latest prefix."""
        if self._prefix is None or self._prefix[0] != tokens:
            cache = DynamicCache()
            inputs = _inputs(torch.tensor([tokens], device=self._body.device))
            output = self._body(**inputs, use_cache=True, **{_cache_name(self._body): cache})
            self._prefix = (tokens, output.last_hidden_state, cache)
        return self._prefix[1:]


class _GivenStates(nn.Module):
    """Stands where a causal model has its body and hands its input on: only the head is computed."""

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def weights_version(module: nn.Module) -> int:
    """A number that grows with every change of a weight in place (optimiser step, ``load_state_dict``)."""
    return sum(weight._version for weight in module.parameters())


def _forward(body: PreTrainedModel, rows: list[_Row], inputs: Tensor, cache: DynamicCache | None) -> Tensor:
    """Last hidden states ``[B, L, hidden]`` of padded rows, given as token ids or as states to go on from."""
    batch, longest, prefix = len(rows), inputs.shape[1], rows[0].prefix
    positions = np.zeros((batch, longest), np.int64)
    # padding sees itself (and the prefix): a row of the softmax without anything to see would be NaN
    sees = np.eye(longest, dtype=bool)[None].repeat(batch, 0)
    for i, row in enumerate(rows):
        prompt, nodes = slice(row.suffix), slice(row.suffix, row.length)
        positions[i, prompt] = np.arange(prefix, len(row.prompt))
        positions[i, nodes] = len(row.prompt) + row.trie.depths
        sees[i, prompt, prompt] = np.tri(row.suffix, dtype=bool)
        sees[i, nodes, prompt] = True
        sees[i, nodes, nodes] = row.trie.sees
    mask = torch.zeros(batch, 1, longest, prefix + longest, dtype=body.dtype)
    mask[:, 0, :, prefix:].masked_fill_(torch.from_numpy(~sees), torch.finfo(body.dtype).min)
    return body(
        **_inputs(inputs.to(body.device)),
        attention_mask=mask.to(body.device),
        position_ids=torch.from_numpy(positions).to(body.device),
        use_cache=cache is not None,
        **{_cache_name(body): cache and _expand(cache, batch)},
    ).last_hidden_state


def _inputs(inputs: Tensor) -> dict[str, Tensor]:
    return {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}


def _expand(cache: DynamicCache, batch: int) -> DynamicCache:
    """A cache for ``batch`` rows that all begin with what ``cache`` holds; the original stays as it is."""
    expanded = DynamicCache()
    for layer in cache.layers:
        shared: Any = copy.copy(layer)
        if shared.is_initialized:
            shared.keys = shared.keys.expand(batch, -1, -1, -1)
            shared.values = shared.values.expand(batch, -1, -1, -1)
        expanded.layers.append(shared)
    return expanded


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


def _replace(module: nn.Module, **children: nn.Module) -> Any:
    """A shallow copy of ``module`` that shares all its children except those given."""
    replaced = copy.copy(module)
    replaced._modules = {**module._modules, **children}
    return replaced


def _cut(body: Any, layers: int) -> tuple[PreTrainedModel, PreTrainedModel] | None:
    """``body`` as two that share its modules, or None where the two in a row compute something else."""
    if not all(hasattr(body, name) for name in ("layers", "norm", "rotary_emb")):
        return None
    below = _replace(body, layers=nn.ModuleList(body.layers[:layers]), norm=nn.Identity())
    above = _replace(body, layers=nn.ModuleList(body.layers[layers:]))
    ids = torch.arange(8, device=body.device)[None]
    with torch.no_grad(), precision(body):
        states = above(inputs_embeds=below(input_ids=ids).last_hidden_state).last_hidden_state
        same = torch.allclose(states, body(input_ids=ids).last_hidden_state)
    return (below, above) if same else None


def _begins(prompt: Tokens, prefix: Tokens) -> bool:
    return len(prompt) > len(prefix) and prompt[: len(prefix)] == prefix


def _chunks(rows: list[_Row]) -> Iterator[list[int]]:
    """Row numbers in groups of one prefix, alike in length, and of at most ``CHUNK_TOKENS`` tokens."""
    chunk: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (rows[i].prefix, rows[i].length)):
        if chunk and (rows[i].prefix != rows[chunk[0]].prefix or (len(chunk) + 1) * rows[i].length > CHUNK_TOKENS):
            yield chunk
            chunk = []
        chunk.append(i)
    if chunk:
        yield chunk


def _starts(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts[:-1]])


def _join(parts: list[np.ndarray], offsets: np.ndarray | None = None) -> Tensor:
    """One index tensor from one array per row, each moved by its row's offset."""
    if offsets is not None:
        parts = [part + offset for part, offset in zip(parts, offsets, strict=True)]
    return torch.from_numpy(np.concatenate(parts))
