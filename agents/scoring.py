"""Exact log-probabilities of candidate texts: one forward over each prompt and the trie of its candidates.

A row of a batch holds a prompt and, after it, the inner nodes of its candidates' trie. A tree mask lets a node see the
prompt and its ancestors, and its position is the prompt's length plus its depth, so that a node computes what it would
in the plain sequence ``prompt + candidate``. Leaves are predicted, never fed. Tokens that all prompts begin with (an
instruction) are computed once, and their keys and values shared by the batch.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from astray.agents.body import WeightsVersion, cut, expand, precision, recomputes, replace, run
from astray.agents.trie import Row, Tokens, trie
from astray.agents.trunk import TRUNK_BYTES, Trunk
from astray.envs import InputError, choose

Normalization = Literal["sum", "token", "word", "trie"]
"""How token log-probabilities become a candidate's score: their sum; the mean per token; the sum per word (Tan et al.
2024, TWOSOME); or the sum after each token was normalised over those that may follow in some candidate, which is what
constrained decoding samples from: these sum to 1 over the candidates, and length does not matter."""

# In one forward: enough for efficient matrix products, few enough to bound the memory of activations.
CHUNK_TOKENS = 2048


class Scores(NamedTuple):
    """What one pass gives.

    Attributes:
        edges: per prompt, ``float32[edges]``: the log-probability of every edge of its candidates' trie.
        hidden: ``[prompts, hidden]``, the last hidden state of each prompt's last token.
    """

    edges: list[Tensor]
    hidden: Tensor


class Scorer:
    """Scores candidates under a HuggingFace causal language model, with gradients.

    Args:
        model: any causal language model that accepts a 4-D float attention mask (see ``make_scorer``).
        trunk_layers: the number of lowest layers whose weights never change. What they compute for a prompt is kept,
            and only the layers above are computed again. Ignored where a model cannot be cut in two.
        trunk_bytes: memory for what is kept; the least recently used goes first.
    """

    def __init__(self, model: PreTrainedModel, trunk_layers: int = 0, trunk_bytes: int = TRUNK_BYTES):
        self._head = head_of(model)
        body: Any = model.base_model
        parts = cut(body, trunk_layers) if trunk_layers else None
        self._trunk = Trunk(parts[0], trunk_bytes) if parts else None
        self._top: PreTrainedModel = parts[1] if parts else body
        self._prefix: tuple[tuple, DynamicCache] | None = None

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
        if recomputes(self._top):
            prefix = ()  # layers that are computed again in the backward pass take no cache
        if self._trunk is not None:
            self._trunk.follow()
        distinct: dict[tuple[Tokens, tuple[Tokens, ...]], int] = {}
        index = [distinct.setdefault(pair, len(distinct)) for pair in zip(prompts, candidates, strict=True)]
        rows = [
            Row(prompt, options, trie(options), len(prefix) if _begins(prompt, prefix) else 0)
            for prompt, options in distinct
        ]
        edges: list[Tensor] = [torch.empty(0)] * len(rows)
        hidden: list[Tensor] = [torch.empty(0)] * len(rows)
        with precision(self._top):
            cache = self.prefix_cache(prefix) if any(row.prefix for row in rows) else None
            for chunk in _chunks(rows):
                chunk_rows = [rows[i] for i in chunk]
                states = self._states(chunk_rows, cache if chunk_rows[0].prefix else None)
                for i, *scores in zip(chunk, *self._read_out(chunk_rows, states), strict=True):
                    edges[i], hidden[i] = scores
        return Scores([edges[i] for i in index], torch.stack([hidden[i] for i in index]))

    def forget(self) -> None:
        """Forgets all that was computed, after weights were changed in a way that torch does not count."""
        self._prefix = None
        if self._trunk is not None:
            self._trunk.forget()

    def _states(self, rows: list[Row], cache: DynamicCache | None) -> Tensor:
        """The last hidden states ``[rows, longest row, hidden]``, padded on the right."""
        if self._trunk is None:
            fed = [torch.from_numpy(row.fed()) for row in rows]
        else:
            fed = [self._trunk(row) for row in rows]
        return run(self._top, rows, pad_sequence(fed, batch_first=True), expand(cache, len(rows)))

    def _read_out(self, rows: list[Row], states: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """Edges' log-probabilities per row, and ``[rows, hidden]`` of the prompts' last tokens."""
        longest, device = states.shape[1], states.device
        nodes = [row.suffix - 1 + np.arange(1 + len(row.trie.tokens)) for row in rows]
        states = states.flatten(0, 1)[_join(nodes, np.arange(len(rows)) * longest).to(device)]
        logits = self._head(inputs_embeds=states[None]).logits[0].float()

        roots = _starts([len(row_nodes) for row_nodes in nodes])
        edge_nodes = _join([row.trie.edge_nodes for row in rows], roots).to(device)
        edge_tokens = _join([row.trie.edge_tokens for row in rows]).to(device)
        edges = logits[edge_nodes, edge_tokens] - logits.logsumexp(-1)[edge_nodes]
        widths = [len(row.trie.edge_tokens) for row in rows]
        return edges.split(widths), states[torch.from_numpy(roots).to(device)]

    def prefix_cache(self, prefix: Tokens) -> DynamicCache:
        """Keys and values of the prefix above the trunk; without gradients, kept until a weight changes."""
        key = (prefix, WeightsVersion(self._top)())  # listed anew: adapters may have been put in since
        if not torch.is_grad_enabled() and self._prefix is not None and self._prefix[0] == key:
            return self._prefix[1]
        cache = DynamicCache()
        inputs = torch.tensor([prefix]) if self._trunk is None else self._trunk.prefix(prefix)[0]
        run(self._top, [Row(prefix, (), trie(()), 0)], inputs, cache)
        if not torch.is_grad_enabled():
            self._prefix = (key, cache)
        return cache


class PlainScorer:
    """Scores as ``Scorer`` does, one plain sequence per candidate: slower, and right for every causal language model.

    Args:
        model: any causal language model.
    """

    def __init__(self, model: PreTrainedModel):
        self._body: Any = model.base_model
        self._head = head_of(model)

    def __call__(
        self, prompts: Sequence[Tokens], candidates: Sequence[tuple[Tokens, ...]], prefix: Tokens = ()
    ) -> Scores:
        """What ``Scorer.__call__`` returns; nothing is shared, so ``prefix`` changes nothing."""
        edges, hidden = [], []
        for prompt, options in zip(prompts, candidates, strict=True):
            device = self._body.device
            sequences = [torch.tensor(prompt + option[:-1]) for option in options]
            inputs = pad_sequence(sequences, batch_first=True).to(device)
            lengths = torch.tensor([len(sequence) for sequence in sequences], device=device)
            mask = torch.arange(inputs.shape[1], device=device) < lengths[:, None]
            with precision(self._body):
                states = self._body(input_ids=inputs, attention_mask=mask.long(), use_cache=False).last_hidden_state
                logits = self._head(inputs_embeds=states[:, len(prompt) - 1 :]).logits.float()
            tree = trie(options)
            owners, depths = _first_owners(options)
            chosen = logits[owners, depths].gather(1, torch.from_numpy(tree.edge_tokens)[:, None].to(device))[:, 0]
            edges.append(chosen - logits.logsumexp(-1)[owners, depths])
            hidden.append(states[0, len(prompt) - 1])
        return Scores(edges, torch.stack(hidden))


def make_scorer(model: PreTrainedModel, trunk_layers: int = 0) -> Scorer | PlainScorer:
    """A ``Scorer`` if this model computes the same with it as with a ``PlainScorer``, which is tried; else the latter.

    A model whose attention does not heed a given mask, or counts positions itself, is scored plainly, with a warning.

    Raises:
        InputError: the model looks ahead, so that it has no probability of what comes next.
    """
    plain = PlainScorer(model)
    top = model.config.get_text_config().vocab_size
    # unequal prompts and a tree of many branches: in a chain, one who counts and looks by himself is right by accident
    prompts = [tuple(n * 7 % top for n in range(3, end)) for end in (12, 15)]
    options = (*((a % top, b % top, 11 % top) for a in (12, 13, 14) for b in (15, 16, 17)), (18 % top,))
    with torch.no_grad():
        expected = plain(prompts, [options, options])
        (one,), (other,) = (plain(prompts[:1], [((12 % top, b % top, 11 % top),)]).edges for b in (15, 16))
    if (one[0] - other[0]).abs() > (1e-3 if model.dtype == torch.float32 else 0.1):
        raise InputError(
            f"{type(model).__name__} looks at what comes after a token, so it is no causal language model: the same "
            f"token after the same prompt has log-probabilities {one[0]:.3f} and {other[0]:.3f}"
        )
    try:
        tree = Scorer(model, trunk_layers)
        with torch.no_grad():
            found = tree(prompts, [options, options], prompts[0][:4])
        scores = torch.cat(expected.edges)
        difference = (torch.cat(found.edges) - scores).abs()
        # of how much they differ from each other: models have more or less of an opinion, and wrong masks change it
        if difference.mean() <= (1e-3 if model.dtype == torch.float32 else 2e-2) * scores.std():
            return tree
        reason = f"its scores would differ by {difference.max():.2g}"
    except Exception as error:  # whatever a model says to a mask, a cache or states that it does not expect
        reason = f"it refuses them ({error})"
    warnings.warn(
        f"{type(model).__name__} cannot take several candidates in one row, {reason}: each candidate is computed as a "
        "sequence of its own, which is slower",
        stacklevel=2,
    )
    return plain


def normalize(
    edges: Tensor, candidates: tuple[Tokens, ...], texts: Sequence[str], normalization: Normalization
) -> Tensor:
    """Scores of candidates, ``float32[..., candidates]``, from the log-probabilities of their trie's edges.

    Args:
        edges: ``float32[..., edges]``, after one prompt or after several with the same candidates.
        candidates: their tokens.
        texts: their texts.
        normalization: see ``Normalization``.

    Raises:
        InputError: there is no such normalization.
    """
    choose("normalization", normalization, get_args(Normalization))
    tree, device, batch = trie(candidates), edges.device, edges.shape[:-1]
    if normalization == "trie":
        nodes = torch.from_numpy(tree.edge_nodes).to(device)
        count = 1 + len(tree.tokens)
        lowest = edges.new_full((*batch, count), -torch.inf)
        top = lowest.scatter_reduce(-1, nodes.expand(edges.shape), edges.detach(), "amax")[..., nodes]
        shares = edges.new_zeros(*batch, count).index_add(-1, nodes, (edges - top).exp())
        edges = edges - top - shares[..., nodes].log()
    owners = torch.from_numpy(tree.path_candidates).to(device)
    paths = torch.from_numpy(tree.path_edges).to(device)
    sums = edges.new_zeros(*batch, len(candidates)).index_add(-1, owners, edges[..., paths])
    if normalization == "token":
        return sums / torch.tensor([len(tokens) for tokens in candidates], device=device)
    if normalization == "word":
        return sums / torch.tensor([max(1, len(text.split())) for text in texts], device=device)
    return sums


class _States(BaseModelOutputWithPastAndCrossAttentions):
    """What a body answers; None is all it has of what else a head may pass on (the choices of a mixture's routers)."""

    def __getattr__(self, _: str) -> None:
        return None


class _GivenStates(nn.Module):
    """Stands where a causal model has its body and hands its input on: only the head is computed."""

    @property
    def decoder(self) -> "_GivenStates":  # what OPT calls in its body
        return self

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> _States:
        return _States(last_hidden_state=inputs_embeds)


def head_of(model: PreTrainedModel) -> Any:
    """The model's own way from hidden states to logits, with whatever it does to them (scaling, capping).

    Raises:
        InputError: transformers does not say which part of the model is its body.
    """
    if model.base_model is model:
        raise InputError(f"{type(model).__name__} has no base_model apart from its head, so it cannot be scored")
    return replace(model, **{model.base_model_prefix: _GivenStates()})


def _first_owners(candidates: tuple[Tokens, ...]) -> tuple[list[int], list[int]]:
    """For each edge of the candidates' trie, the first candidate that it belongs to and how deep it lies."""
    found: dict[Tokens, tuple[int, int]] = {}
    for number, candidate in enumerate(candidates):
        for depth in range(len(candidate)):
            found.setdefault(candidate[: depth + 1], (number, depth))
    owners, depths = zip(*found.values(), strict=True)
    return list(owners), list(depths)


def _begins(prompt: Tokens, prefix: Tokens) -> bool:
    return len(prompt) > len(prefix) and prompt[: len(prefix)] == prefix


def _chunks(rows: list[Row]) -> Iterator[list[int]]:
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
