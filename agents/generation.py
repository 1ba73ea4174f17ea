"""How a language model goes on after prompts, token by token.

In each step tokens are put in order, by likelihood or by a draw, and the first is taken that ``Rules`` allow. Prompts
of unequal lengths are padded on the right; masks and positions leave the padding out, as in ``scoring``, so that an
answer does not depend on what it was computed together with.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import regex
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from astray.agents.answers import Rules
from astray.agents.body import attend, expand, precision, run
from astray.agents.scoring import PlainScorer, Scorer, head_of
from astray.agents.trie import Row, Tokens, trie
from astray.envs import InputError

# In one batch, prompts and answers: enough for efficient steps, few enough to bound the memory of keys and values.
BATCH_TOKENS = 4096


class UnfinishedError(InputError):
    """All tokens are spent, and some answers do not match the constraint.

    Attributes:
        answers: one per prompt, None where it does not match.
    """

    def __init__(self, message: str, answers: list[str | None]):
        super().__init__(message)
        self.answers = answers


@dataclass
class Answer:
    """An answer in the making: its bytes so far, and its text once it has ended."""

    prompt: Tokens
    rng: np.random.Generator | None
    data: bytes = b""
    text: str | None = None


class TextGenerator:
    """Generates text with a HuggingFace causal language model.

    Args:
        model: the model.
        tokenizer: its tokenizer, byte-level or of SentencePiece's kind.
        scorer: its scorer without a trunk: if it is a ``Scorer``, keys and values are kept from step to step, and
            those of a prefix are shared with it; otherwise each step computes whole sequences, as it does.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, scorer: Scorer | PlainScorer):
        self._model = model
        self._tokenizer = tokenizer
        self._scorer = scorer
        self._head = head_of(model)
        # tokens found impossible after some text are so for other prompts too
        self._struck = lru_cache(maxsize=256)(self._none_struck)

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """The bytes of tokens."""
        return Vocabulary(self._tokenizer, self._model)

    @torch.no_grad()
    def __call__(
        self,
        prompts: Sequence[Tokens],
        prefix: Tokens,
        rules: Rules,
        max_new_tokens: int,
        temperature: float,
        rng: np.random.Generator | None = None,
    ) -> list[str]:
        """Answers each prompt; identical ones are computed once, but for the tokens that are drawn.

        Args:
            prompts: token ids, at least one each.
            prefix: tokens that all prompts begin with (and are longer), or none.
            rules: what an answer may be.
            max_new_tokens: an answer has at most so many.
            temperature: divides logits; with 0 the likeliest tokens are taken.
            rng: gives each prompt a seed of its own; by default, torch's global generator does.

        Raises:
            InputError: logits are NaN, or no token continues an answer as the rules demand.
            UnfinishedError: some answers do not match the constraint.
        """
        if temperature:
            answers = [Answer(*pair) for pair in zip(prompts, _rngs(len(prompts), rng), strict=True)]
            distinct = answers
        else:
            by_prompt = {prompt: Answer(prompt, None) for prompt in prompts}
            answers = [by_prompt[prompt] for prompt in prompts]
            distinct = list(by_prompt.values())
        with precision(self._model):
            cache = self._scorer.prefix_cache(prefix) if prefix and isinstance(self._scorer, Scorer) else None
            for batch in _batches(distinct, max_new_tokens):
                self._write(batch, len(prefix), cache, rules, max_new_tokens, temperature)
        if unfinished := [answer for answer in answers if answer.text is None]:
            raise UnfinishedError(
                f"max_new_tokens={max_new_tokens} did not suffice for {len(unfinished)} of {len(answers)} answers to "
                f"match constraint={rules.constraint!r}: after the prompt "
                f"{self._tokenizer.decode(unfinished[0].prompt)!r} the answer began with "
                f"{unfinished[0].data.decode(errors='replace')!r}; allow more, or less in the constraint",
                [answer.text for answer in answers],
            )
        return [answer.text for answer in answers if answer.text is not None]

    def _write(
        self,
        answers: list[Answer],
        prefix: int,
        cache: DynamicCache | None,
        rules: Rules,
        max_new_tokens: int,
        temperature: float,
    ) -> None:
        prompts = [answer.prompt for answer in answers]
        body = self._model.base_model
        cached = isinstance(self._scorer, Scorer)
        rows = _CachedRows(body, prompts, prefix, cache) if cached else _PlainRows(body, prompts)
        states, going = rows.states, answers
        for left in reversed(range(max_new_tokens)):
            tokens = self._choose(self._head(inputs_embeds=states[None]).logits[0].float(), going, rules, temperature)
            for answer, token in zip(going, tokens, strict=True):
                if token in self.vocabulary.ends:
                    answer.text = answer.data.decode(errors="replace")
                else:
                    answer.data += self.vocabulary.pieces[token]
                    answer.text = rules.before_stop(answer.data)
            kept = [number for number, answer in enumerate(going) if answer.text is None]
            going = [going[number] for number in kept]
            if not going or not left:
                break
            states = rows.step(kept, [tokens[number] for number in kept])
        for answer in going:
            if rules.is_answer(answer.data):
                answer.text = answer.data.decode(errors="replace")

    def _choose(self, logits: Tensor, answers: list[Answer], rules: Rules, temperature: float) -> list[int]:
        """The next token of each answer."""
        top = logits.amax(-1, keepdim=True)
        if not (finite := top.isfinite()).all():
            prompt = answers[int(finite.int().argmin())].prompt
            raise InputError(
                f"the language model's logits after the prompt {self._tokenizer.decode(prompt)!r} are NaN or infinite: "
                "its weights are broken, as after a learning rate too high, or its dtype is too narrow"
            )
        keys = logits
        if temperature:
            # Gumbel noise: tokens in the order of these keys are draws without replacement
            noise = [-np.log(answer.rng.standard_exponential(logits.shape[1])) for answer in answers if answer.rng]
            keys = (logits - top) / temperature + torch.from_numpy(np.stack(noise)).to(logits)
        if rules.constraint is None:
            return keys.argmax(-1).tolist()
        return [
            self._first_allowed(row, answer.data, rules)
            for row, answer in zip(keys.cpu().numpy(), answers, strict=True)
        ]

    def _first_allowed(self, keys: np.ndarray, data: bytes, rules: Rules) -> int:
        """The token with the highest key of those that the rules allow after ``data``."""
        vocabulary = self.vocabulary
        struck = self._struck(rules, data)
        keys = keys[vocabulary.sorted_ids]
        keys[struck] = -np.inf
        if not rules.is_answer(data):
            keys[len(vocabulary.sorted_pieces) :] = -np.inf
        while keys[place := int(keys.argmax())] > -np.inf:
            if place >= len(vocabulary.sorted_pieces):
                return int(vocabulary.sorted_ids[place])
            beginning = rules.impossible(data, vocabulary.sorted_pieces[place])
            if beginning is None:
                return int(vocabulary.sorted_ids[place])
            alike = vocabulary.beginning_with(beginning)
            struck[alike] = True
            keys[alike] = -np.inf
        raise InputError(
            f"constraint={rules.constraint!r}: there is no token after {data.decode(errors='replace')!r} with which an "
            "answer can still match"
        )

    def _none_struck(self, _rules: Rules, _data: bytes) -> np.ndarray:
        return np.zeros(len(self.vocabulary.sorted_ids), bool)


class Vocabulary:
    """The bytes of tokens.

    Args:
        tokenizer: a tokenizer.
        model: its model.

    Attributes:
        pieces: by token id, its bytes; none if it is special, or the tokenizer does not have it.
        ends: ids of the tokens that end a text, in order.
        sorted_pieces: those with bytes, in order.
        sorted_ids: their ids, and after them ``ends``, ``int64[pieces + ends]``.

    Raises:
        InputError: the tokenizer is neither byte-level nor of SentencePiece's kind.
    """

    def __init__(self, tokenizer: Any, model: PreTrainedModel):
        head: Any = model.get_output_embeddings()
        size = head.weight.shape[0]
        self.pieces = (_pieces(tokenizer) + [b""] * size)[:size]
        ends = getattr(model.generation_config, "eos_token_id", None)
        self.ends = sorted({*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None})
        pairs = sorted((piece, token) for token, piece in enumerate(self.pieces) if piece and token not in self.ends)
        self.sorted_pieces = [piece for piece, _ in pairs]
        self.sorted_ids = np.array([*(token for _, token in pairs), *self.ends], np.int64)
        self._longest = max(map(len, self.pieces))

    def beginning_with(self, piece: bytes) -> slice:
        """Where the pieces that begin with these bytes stand in ``sorted_pieces``."""
        last = piece + b"\xff" * self._longest
        return slice(bisect_left(self.sorted_pieces, piece), bisect_right(self.sorted_pieces, last))


class _CachedRows:
    """Rows that begin with prompts and grow by a token a step; keys and values are kept.

    Attributes:
        states: the last hidden state of each prompt's last token, ``[rows, hidden]``.
    """

    def __init__(self, body: Any, prompts: list[Tokens], prefix: int, cache: DynamicCache | None):
        distinct = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
        rows = [Row(prompt, (), trie(()), prefix) for prompt in distinct]
        fed = pad_sequence([torch.from_numpy(row.fed()) for row in rows], batch_first=True)
        self._body = body
        self._cache = expand(cache, len(rows)) or DynamicCache()
        states = run(body, rows, fed, self._cache)
        self.states = states[np.arange(len(rows)), [row.length - 1 for row in rows]]
        # keys of the row itself, not of the padding after its prompt
        self._own = np.arange(prefix + fed.shape[1]) < np.array([[len(prompt)] for prompt in distinct])
        if len(distinct) < len(prompts):
            index = [distinct[prompt] for prompt in prompts]
            self.states = self.states[index]
            self._keep(index)

    def step(self, kept: list[int], tokens: list[int]) -> Tensor:
        """Goes on with a token for each of the rows ``kept``, and without the others; states as before."""
        if len(kept) < len(self._own):
            self._keep(kept)
        self._own = np.pad(self._own, ((0, 0), (0, 1)), constant_values=True)
        positions = self._own.cumsum(1) - 1
        inputs = torch.tensor(tokens)[:, None]
        return attend(self._body, inputs, self._own[:, None], positions, self._cache)[:, 0]

    def _keep(self, rows: list[int]) -> None:
        self._own = self._own[rows]
        self._cache.batch_select_indices(torch.tensor(rows, device=self._body.device))


class _PlainRows:
    """What ``_CachedRows`` is, for models that take no masks of ours: whole sequences are computed in each step."""

    def __init__(self, body: Any, prompts: list[Tokens]):
        self._body = body
        self._sequences = prompts
        self.states = self._run()

    def step(self, kept: list[int], tokens: list[int]) -> Tensor:
        """Goes on with a token for each of the rows ``kept``, and without the others; states as before."""
        self._sequences = [(*self._sequences[row], token) for row, token in zip(kept, tokens, strict=True)]
        return self._run()

    def _run(self) -> Tensor:
        inputs = pad_sequence([torch.tensor(sequence) for sequence in self._sequences], batch_first=True)
        lengths = torch.tensor([len(sequence) for sequence in self._sequences])
        mask = torch.arange(inputs.shape[1]) < lengths[:, None]
        device = self._body.device
        states = self._body(input_ids=inputs.to(device), attention_mask=mask.long().to(device)).last_hidden_state
        return states[torch.arange(len(lengths)), lengths - 1]


def _rngs(count: int, rng: np.random.Generator | None) -> list[np.random.Generator]:
    """Draws for each row that do not depend on the other rows."""
    high = 2**63 - 1
    seeds = torch.randint(high, (count,)).tolist() if rng is None else rng.integers(high, size=count).tolist()
    return [np.random.default_rng(seed) for seed in seeds]


def _batches(answers: list[Answer], max_new_tokens: int) -> Iterator[list[Answer]]:
    """Answers in batches of prompts alike in length, identical ones beside each other."""
    batch: list[Answer] = []
    for answer in sorted(answers, key=lambda answer: (len(answer.prompt), answer.prompt)):
        if (len(batch) + 1) * (len(answer.prompt) + max_new_tokens) > BATCH_TOKENS and batch:
            yield batch
            batch = []
        batch.append(answer)
    yield batch


def _pieces(tokenizer: Any) -> list[bytes]:
    """By token id, the bytes of the tokenizer's tokens; none of special tokens.

    Raises:
        InputError: tokens are written neither in the alphabet of byte-level tokenizers nor in SentencePiece's.
    """
    text = "go north, go south"
    sample = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    for piece in (_byte_level, _sentence_piece):
        if b"".join(map(piece, sample)).decode(errors="replace").removeprefix(" ") == text:
            break
    else:
        raise InputError(
            f"the bytes of {type(tokenizer).__name__}'s tokens are not known: it is neither byte-level nor of "
            f"SentencePiece's kind; it writes {text!r} as {sample}"
        )
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    pieces = [b"" if name is None else piece(name) for name in names]
    for token, added in tokenizer.added_tokens_decoder.items():
        pieces[token] = b"" if added.special else added.content.encode()
    return pieces


def _byte_level(name: str) -> bytes:
    return b"".join(BYTE_LEVEL[char] if char in BYTE_LEVEL else char.encode() for char in name)


def _sentence_piece(name: str) -> bytes:
    byte = regex.fullmatch("<0x([0-9A-F]{2})>", name)
    return bytes.fromhex(byte[1]) if byte else name.replace("▁", " ").encode()


def _byte_level_alphabet() -> dict[str, bytes]:
    """Byte-level tokenizers write printable bytes of Latin-1 as they are, and the others, in order, as U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): bytes([byte]) for byte in printable} | {
        chr(0x100 + number): bytes([byte]) for number, byte in enumerate(others)
    }


BYTE_LEVEL = _byte_level_alphabet()
