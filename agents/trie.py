"""The prefix tree of a set of token sequences, as arrays."""

from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

Tokens = tuple[int, ...]


class Trie(NamedTuple):
    """The prefix tree of a set of candidates; node 0 is the prompt's last token, the others are fed."""

    tokens: np.ndarray  # int64[N] of nodes 1..N
    depths: np.ndarray  # int64[N] of nodes 1..N; children of node 0 have depth 0
    sees: np.ndarray  # bool[N, N]: node sees itself and its ancestors
    edge_nodes: np.ndarray  # int64[E]: the node an edge leaves
    edge_tokens: np.ndarray  # int64[E]: the token it predicts
    path_edges: np.ndarray  # int64[P]: the edges of all candidates, one after another
    path_candidates: np.ndarray  # int64[P]: the candidate each belongs to


@lru_cache(maxsize=4096)
def trie(candidates: tuple[Tokens, ...]) -> Trie:
    """The trie of candidates' tokens, none of them the beginning of another."""
    inner = {candidate[:depth] for candidate in candidates for depth in range(1, len(candidate))}
    nodes = {prefix: number for number, prefix in enumerate(sorted(inner, key=lambda p: (len(p), p)), start=1)}
    edges: dict[Tokens, int] = {}
    paths = [
        [edges.setdefault(candidate[: depth + 1], len(edges)) for depth in range(len(candidate))]
        for candidate in candidates
    ]
    sees = [[prefix[: len(other)] == other for other in nodes] for prefix in nodes]
    return Trie(
        tokens=np.array([prefix[-1] for prefix in nodes], np.int64),
        depths=np.array([len(prefix) - 1 for prefix in nodes], np.int64),
        sees=np.array(sees, bool).reshape(len(nodes), len(nodes)),
        edge_nodes=np.array([nodes.get(edge[:-1], 0) for edge in edges], np.int64),
        edge_tokens=np.array([edge[-1] for edge in edges], np.int64),
        path_edges=np.fromiter(chain.from_iterable(paths), np.int64),
        path_candidates=np.repeat(np.arange(len(paths)), [len(path) for path in paths]),
    )
