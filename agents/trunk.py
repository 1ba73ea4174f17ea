"""The frozen lowest layers of a language model, and what they computed."""

from collections import OrderedDict

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from astray.agents.body import WeightsVersion, expand, run
from astray.agents.trie import Row, Tokens, trie

TRUNK_BYTES = 2**28


class Trunk:
    """Computes the states that enter the layer above, and keeps them; the least recently used go first.

    Rows are always computed one at a time: matrix products in bfloat16 may depend on the shape of the batch, and what
    is kept must not depend on which prompts happened to come together, because a resumed run meets others.

    Args:
        body: the layers, whose weights never change.
        max_bytes: memory for what is kept.
    """

    def __init__(self, body: PreTrainedModel, max_bytes: int = TRUNK_BYTES):
        self._body = body
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[Tokens, tuple[Tokens, ...], int], Tensor] = OrderedDict()
        self._version: tuple = ()
        self._prefix: tuple[Tokens, Tensor, DynamicCache] | None = None

    @torch.no_grad()
    def __call__(self, row: Row) -> Tensor:
        """The states of a row, ``[row.length, hidden]``."""
        key = (row.prompt, row.candidates, row.prefix)
        states = self._rows.get(key)
        if states is None:
            cache = expand(self.prefix(row.prompt[: row.prefix])[1], 1) if row.prefix else None
            states = run(self._body, [row], torch.from_numpy(row.fed())[None], cache)[0]
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
            states = run(self._body, [Row(tokens, (), trie(()), 0)], torch.tensor([tokens]), cache)
            self._prefix = (tokens, states, cache)
        return self._prefix[1:]

    def follow(self) -> None:
        """Forgets what was computed, if the layers are no longer what they were or where they were."""
        version = WeightsVersion(self._body)()
        if version != self._version:
            self.forget()
            self._version = version

    def forget(self) -> None:
        """Forgets all that was computed."""
        self._rows.clear()
        self._bytes, self._prefix = 0, None
