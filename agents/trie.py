"""The prefix tree of a set of token sequences, as arrays."""

from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np

Tokens = tuple[int, ...]


class Trie(NamedTuple):
    """The prefix tree of a set of candidates; node 0 is the prompt's last token, the others are fed.

    A node's children come after it, and an edge is a token that is predicted: an inner one leads to a node, the last
    one of a candidate to nothing.
    """

    tokens: np.ndarray  # int64[N] of nodes 1..N
    depths: np.ndarray  # int64[N] of nodes 1..N; children of node 0 have depth 0
    sees: np.ndarray  # bool[N, N]: node sees itself and its ancestors
    edge_nodes: np.ndarray  # int64[E]: the node an edge leaves
    edge_tokens: np.ndarray  # int64[E]: the token it predicts
    path_edges: np.ndarray  # int64[P]: the edges of all candidates, one after another
    path_candidates: np.ndarray  # int64[P]: the candidate each belongs to


@lru_cache(maxsize=512)  # of a hundred candidates of a dozen tokens each, one takes a megabyte
def trie(candidates: tuple[Tokens, ...]) -> Trie:
    """The trie of candidates' tokens, none of them the beginning of another."""
    inner = {candidate[:depth] for candidate in candidates for depth in range(1, len(candidate))}
    nodes = {prefix: number for number, prefix in enumerate(sorted(inner, key=lambda p: (len(p), p)), start=1)}
    edges: dict[Tokens, int] = {}
    paths = [
        [edges.setdefault(candidate[: depth + 1], len(edges)) for depth in range(len(candidate))]
        for candidate in candidates
    ]
    sees = np.eye(len(nodes) + 1, dtype=bool)
    for prefix, node in nodes.items():
        sees[node] |= sees[nodes.get(prefix[:-1], 0)]
    return Trie(
        tokens=np.array([prefix[-1] for prefix in nodes], np.int64),
        depths=np.array([len(prefix) - 1 for prefix in nodes], np.int64),
        sees=sees[1:, 1:],
        edge_nodes=np.array([nodes.get(edge[:-1], 0) for edge in edges], np.int64),
        edge_tokens=np.array([edge[-1] for edge in edges], np.int64),
        path_edges=np.fromiter(chain.from_iterable(paths), np.int64),
        path_candidates=np.repeat(np.arange(len(paths)), np.array([len(path) for path in paths], np.int64)),
    )


class Row(NamedTuple):
    """A prompt, followed by the trie of its candidates; the first ``prefix`` tokens are shared and not fed again."""

    prompt: Tokens
    candidates: tuple[Tokens, ...]
    trie: Trie
    prefix: int

    @property
    def suffix(self) -> int:
        """The number of tokens of the prompt that are fed."""
        return len(self.prompt) - self.prefix

    @property
    def length(self) -> int:
        """The number of tokens that are fed."""
        return self.suffix + len(self.trie.tokens)

    def fed(self) -> np.ndarray:
        """The tokens that are fed, ``int64[length]``."""
        return np.concatenate((np.array(self.prompt[self.prefix :], np.int64), self.trie.tokens))

    def positions(self) -> np.ndarray:
        """Where they stand in the plain sequence of prompt and candidate, ``int64[length]``."""
        return np.concatenate((np.arange(self.prefix, len(self.prompt)), len(self.prompt) + self.trie.depths))

    def sees(self) -> np.ndarray:
        """Which of them each may look at, ``bool[length, length]``."""
        sees = np.tri(self.length, dtype=bool)
        sees[self.suffix :, self.suffix :] = self.trie.sees
        return sees
