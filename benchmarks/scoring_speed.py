"""Speed of scoring action texts with a language model, beside three other ways and the bare matrix products.

``python benchmarks/scoring_speed.py`` prints two tables for SmolLM2-135M, per dtype. All ways get the same texts, 16
distinct prompts at a time, tokenize them, take turns in an order that alternates, and the best turn of each counts, so
that other jobs on the machine move ratios little. Their scores are compared with those of the first way.

- plain: a padded sequence for each prompt and candidate, log-softmax of every position, as TWOSOME (Tan et al. 2024)
  does it.
- gathered: the same, logits only where a candidate's token is predicted.
- prompt reused: keys and values of each prompt computed once and copied for each of its candidates, whose tokens then
  go through the model together, as lamorel (Carta et al. 2023) does it; logits as in "gathered".
- Astray: ``LanguageModel.score``. It keeps the instruction's keys and values from turn to turn.
- products: ``torch.mm`` on tensors of the shapes that Astray's linear maps need for the tokens that it feeds, without
  padding, in the faster of two memory layouts: a limit.

The second table is about how many candidates there are, with the multiplications and additions that their tries need.
Where candidates share words, 42 should cost at most 1.5 times as much as 2 of them.

Without ``--dtype``, bfloat16 is measured only where the processor is fast at it. All ways use plain ("eager")
attention, with which models are loaded.
"""

import argparse
import inspect
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from itertools import product, takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from astray.agents.language_model import LanguageModel, faster_dtype, product_speeds
from astray.agents.vec_env import vec_env
from astray.envs.text import decode

INSTRUCTION = (
    "You are a mouse in a square room with walls on all four sides. Somewhere in the room lies a piece of cheese, and "
    "you want to eat it. You are told where it is and how far you are from a corner. Each turn you choose one action. "
    "You cannot walk through walls."
)
ACTIONS = ("go north", "go south", "go west", "go east", "eat the cheese", "look around", "wait")
BATCH = 16
COMPARED = 208
"""Prompts on which greedy choices are compared in bfloat16, where log-probabilities depend on the batch."""
TOLERANCE = 1e-3
"""The largest difference of a candidate's log-probability in float32."""
COPIES = 128
"""Copies of a prompt's keys and values at a time."""
COUNTS, AT_MOST = (2, 7, 42), 1.5
WORDS = (
    *("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket", "kitchen"),
    *("ladder", "mirror", "needle", "orange", "pencil", "queen", "river", "silver", "table", "umbrella", "valley"),
    *("window", "yellow", "zebra", "bottle", "castle", "doctor", "eagle", "finger", "guitar", "honey", "iron"),
    *("jungle", "king", "lemon", "mountain", "night", "ocean", "paper", "quiet", "rabbit"),
)
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")

Texts = Sequence[str]
Way = Callable[[LanguageModel, Texts, Sequence[Texts]], Tensor]


def observations(count: int) -> list[str]:
    """Distinct texts: what CheeseCorner tells, and a second sentence."""
    envs = vec_env("cheese-corner", 4 * count, shift=1.0)
    texts = list(dict.fromkeys(decode(envs.reset())))[:count]
    assert len(texts) == count
    return [f"{text} This is turn {number % 40} of 40." for number, text in enumerate(texts, start=1)]


def prompts_of(model: LanguageModel, count: int) -> list[str]:
    """Distinct prompts that begin with the longer instruction."""
    return [model.prompt(INSTRUCTION, text) for text in observations(count)]


# ---- ways
def encoded(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> list[tuple[int, tuple, tuple]]:
    """For every prompt and candidate: the prompt's number, its tokens, the candidate's."""
    pairs = [model.encode(*pair) for pair in zip(prompts, candidates, strict=True)]
    return [(number, start, rest) for number, (start, rests) in enumerate(pairs) for rest in rests]


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of tokens ``[rows, longest]``, and which are tokens."""
    lengths = torch.tensor([len(row) for row in rows])
    tokens = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True)
    return tokens, torch.arange(tokens.shape[1]) < lengths[:, None]


def log_probs(model: LanguageModel, states: Tensor, tokens: Tensor) -> Tensor:
    """Of one token after each state."""
    logits = model.model.get_output_embeddings()(states).float()
    return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)


@torch.no_grad()
def plain(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> Tensor:
    """A padded sequence for each prompt and candidate, log-softmax everywhere: ``float32[prompts, candidates]``."""
    rows = encoded(model, prompts, candidates)
    tokens, mask = padded([start + rest for _, start, rest in rows])
    every = model.model(input_ids=tokens, attention_mask=mask.long()).logits.float().log_softmax(-1)
    scores = [
        every[i, len(start) - 1 : len(start) + len(rest) - 1].gather(1, torch.tensor(rest)[:, None]).sum()
        for i, (_, start, rest) in enumerate(rows)
    ]
    return torch.stack(scores).view(len(prompts), -1)


@torch.no_grad()
def gathered(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> Tensor:
    """As ``plain``, logits only where a candidate's token is predicted."""
    rows = encoded(model, prompts, candidates)
    tokens, mask = padded([start + rest[:-1] for _, start, rest in rows])
    states = model.model.base_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    places = torch.tensor(
        [(i, len(start) - 1 + d) for i, (_, start, rest) in enumerate(rows) for d in range(len(rest))]
    )
    targets = torch.tensor([token for _, _, rest in rows for token in rest])
    found = log_probs(model, states[places[:, 0], places[:, 1]], targets)
    return torch.zeros(len(rows)).index_add(0, places[:, 0], found).view(len(prompts), -1)


@torch.no_grad()
def prompt_reused(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> Tensor:
    """Each prompt once, its keys and values copied for each of its candidates, whose tokens follow together."""
    rows = encoded(model, prompts, candidates)
    owners = torch.tensor([number for number, _, _ in rows])
    starts = list({number: start for number, start, _ in rows}.values())
    tokens, mask = padded(starts)
    cache = DynamicCache()
    states = with_cache(model, cache, input_ids=tokens, attention_mask=mask.long())
    last = states[torch.arange(len(starts)), mask.sum(1) - 1]
    first = model.model.get_output_embeddings()(last).float().log_softmax(-1)
    scores = first[owners, torch.tensor([rest[0] for _, _, rest in rows])]
    longer = torch.tensor([i for i, (_, _, rest) in enumerate(rows) if len(rest) > 1])
    for part in longer.split(COPIES):
        rests = [rows[i][2] for i in part.tolist()]
        scores[part] += continued(model, rests, mask[owners[part]], copied(cache, owners[part]))
    return scores.view(len(prompts), -1)


def with_cache(model: LanguageModel, cache: DynamicCache, **inputs: Tensor) -> Tensor:
    """Last hidden states of what follows a cache, which grows by it."""
    body = model.model.base_model
    # the argument's name changed within transformers 5
    name = "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"
    return body(**inputs, **{name: cache}, use_cache=True).last_hidden_state


def copied(cache: DynamicCache, owners: Tensor) -> DynamicCache:
    """Keys and values of one prompt per row."""
    copies = DynamicCache()
    for number, layer in enumerate(cache.layers):
        copies.update(layer.keys[owners], layer.values[owners], number)
    return copies


def continued(model: LanguageModel, rests: Sequence[tuple], seen: Tensor, cache: DynamicCache) -> Tensor:
    """Log-probabilities of all tokens but the first, summed, of candidates after prompts in a cache."""
    tokens, mask = padded([rest[:-1] for rest in rests])
    states = with_cache(
        model,
        cache,
        input_ids=tokens,
        attention_mask=torch.cat((seen, mask), 1).long(),
        position_ids=seen.sum(1, keepdim=True) + torch.arange(tokens.shape[1]),
    )
    targets = torch.tensor([token for rest in rests for token in rest[1:]])
    return torch.zeros(len(rests)).index_add(0, mask.nonzero()[:, 0], log_probs(model, states[mask], targets))


@torch.no_grad()
def astray(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> Tensor:
    """One forward over prompts and tries of candidates, the instruction shared."""
    return torch.stack(model.score(prompts, candidates))


WAYS: dict[str, Way] = {"plain": plain, "gathered": gathered, "prompt reused": prompt_reused, "Astray": astray}
COUNTED = ("prompt reused", "Astray")


# ---- the limit
def fed(model: LanguageModel, prompts: Texts, candidates: Sequence[Texts]) -> tuple[int, int, int]:
    """Tokens of prompts that Astray feeds, nodes of tries that it feeds, and states after which it predicts."""
    pairs = [model.encode(*pair) for pair in zip(prompts, candidates, strict=True)]
    columns = zip(*(start for start, _ in pairs), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    nodes = [len({rest[:depth] for rest in rests for depth in range(1, len(rest))}) for _, rests in pairs]
    return sum(len(start) - shared for start, _ in pairs), sum(nodes), len(pairs) + sum(nodes)


def products(model: LanguageModel, tokens: int, predicted: int) -> list[tuple[int, Tensor]]:
    """For each linear map that a forward over some tokens needs: how many go through it, and its weight."""
    layers = [part for part in model.model.base_model.modules() if isinstance(part, nn.Linear)]
    return [(tokens, layer.weight) for layer in layers] + [(predicted, model.model.get_output_embeddings().weight)]


def flops(shapes: list[tuple[int, Tensor]]) -> int:
    """Multiplications and additions of such products."""
    return sum(2 * rows * weight.numel() for rows, weight in shapes)


class Limit:
    """Bare matrix products, on contiguous tensors."""

    def __init__(self, shapes: list[tuple[int, Tensor]]):
        self._pairs = [(torch.randn(rows, weight.shape[1], dtype=weight.dtype), weight) for rows, weight in shapes]
        self._turned = [(inputs, weight.T.contiguous()) for inputs, weight in self._pairs]

    @torch.no_grad()
    def seconds(self) -> float:
        """Of all products, in the faster layout of the weights."""
        return min(
            seconds(lambda: [torch.mm(inputs, weight.T) for inputs, weight in self._pairs]),
            seconds(lambda: [torch.mm(inputs, weight) for inputs, weight in self._turned]),
        )


# ---- sets of candidates
def missions_of_babyai() -> list[str]:
    """42 missions as in BabyAI: many words in common."""
    colours, things = ("red", "green", "blue", "purple", "yellow", "grey"), ("ball", "box", "key", "door")
    going = [f"go to the {colour} {thing}" for colour, thing in product(colours, things)]
    return going + [f"pick up the {colour} {thing}" for colour, thing in product(colours, things[:3])]


def commands_of_textworld() -> list[str]:
    """42 commands as TextWorld admits them in a full room: some words in common."""
    held, seen, places = ("key", "apple", "knife"), ("lamp", "carrot", "book", "coin"), ("table", "shelf", "chest")
    return [
        *(f"take the {thing} from the {place}" for thing, place in product(seen, places)),
        *(f"put the {thing} on the {place}" for thing, place in product(held, places[:2])),
        *(f"insert the {thing} into the chest" for thing in held),
        *(f"drop the {thing}" for thing in held),
        *(f"examine the {thing}" for thing in (*held, *seen, *places)),
        *("open the chest", "close the chest", "eat the apple", "look", "inventory"),
        *("go north", "go south", "go east"),
    ]


def nothing_shared() -> list[str]:
    """42 texts of four words, no two of which begin alike."""
    return [" ".join(WORDS[(number + 11 * step) % len(WORDS)] for step in range(4)) for number in range(len(WORDS))]


# ---- measuring
def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    start = perf_counter()
    work()
    return perf_counter() - start


def turn(way: Way, model: LanguageModel, prompts: Texts, texts: Texts) -> Callable[[], float]:
    """A turn of a way with the same candidates after every prompt, in seconds."""
    return lambda: seconds(lambda: way(model, prompts, [texts] * len(prompts)))


def best(contenders: dict[Any, Callable[[], float]], turns: int) -> dict[Any, float]:
    """The least seconds of each, which take turns in an order that alternates."""
    least = dict.fromkeys(contenders, float("inf"))
    for number in range(turns):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            least[name] = min(least[name], contenders[name]())
    return least


def compared(model: LanguageModel, prompts: list[str]) -> dict[str, tuple[float, float]]:
    """Of each way beside the first: the largest difference of log-probabilities, the share of equal greedy choices."""
    found = {
        name: torch.cat([way(model, part, [ACTIONS] * len(part)) for part in parts(prompts)])
        for name, way in WAYS.items()
    }
    expected = found["plain"]
    same = {name: (scores.argmax(1) == expected.argmax(1)).double().mean().item() for name, scores in found.items()}
    return {name: ((scores - expected).abs().max().item(), same[name]) for name, scores in found.items()}


def parts(prompts: list[str]) -> Iterator[list[str]]:
    """Prompts, a batch at a time."""
    return (prompts[start : start + BATCH] for start in range(0, len(prompts), BATCH))


def print_ways(model: LanguageModel, prompts: list[str], turns: int) -> None:
    """Prints the first table; the first batch of the prompts is timed, all are compared.

    Raises:
        AssertionError: the ways compute different scores.
    """
    same = compared(model, prompts)
    exact = model.model.dtype == torch.float32
    assert not exact or max(difference for difference, _ in same.values()) < TOLERANCE, same
    batch, candidates = prompts[:BATCH], [ACTIONS] * BATCH
    *tokens, predicted = fed(model, batch, candidates)
    shapes = products(model, sum(tokens), predicted)
    contenders = {name: turn(way, model, batch, ACTIONS) for name, way in WAYS.items()}
    least = best(contenders | {"products": Limit(shapes).seconds}, turns)
    tokenizing = min(seconds(lambda: encoded(model, batch, candidates)) for _ in range(3))

    print(
        f"| {name_of(model)}, {len(ACTIONS)} actions | decisions/s | / plain | / prompt reused | time / products |",
        end="",
    )
    print(f" largest difference | equal choices of {len(prompts)} |\n|---|--:|--:|--:|--:|--:|--:|")
    for name, time in least.items():
        cells = [f"{BATCH / time:.2f}", *(f"{least[other] / time:.2f}" for other in ("plain", "prompt reused"))]
        cells += [f"{time / least['products']:.2f}"]
        cells += [f"{same[name][0]:.2g}", f"{same[name][1]:.1%}"] if name in same else ["", ""]
        print(f"| {name} | {' | '.join(cells)} |")
    speed, share = flops(shapes) / least["products"], tokenizing / least["Astray"]
    print(f"\nProducts: {flops(shapes) / BATCH * 1e-9:.2f} GFLOP a decision, {speed * 1e-9:.0f} GFLOP/s.", end=" ")
    print(f"Tokenizing is {share:.1%} of Astray's time.\n", flush=True)


def print_counts(model: LanguageModel, prompts: list[str], turns: int) -> None:
    """Prints the second table: how the time grows with the number of candidates.

    Raises:
        AssertionError: the ways compute different scores.
    """
    unrelated = nothing_shared()
    sets = {"BabyAI": missions_of_babyai(), "TextWorld": commands_of_textworld(), "nothing shared": unrelated}
    print(f"| {name_of(model)}, candidates | | nodes fed | GFLOP | / 2 | prompt reused, ms | / 2 |", end="")
    print(f" Astray, ms | / 2 | <= {AT_MOST} |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    for name, texts in sets.items():
        assert len(set(texts)) == COUNTS[-1]
        theirs, mine = (WAYS[way](model, prompts, [texts] * BATCH) for way in COUNTED)
        assert model.model.dtype != torch.float32 or (theirs - mine).abs().max() < TOLERANCE
        times = best(
            {(way, count): turn(WAYS[way], model, prompts, texts[:count]) for way in COUNTED for count in COUNTS},
            turns,
        )
        for count in COUNTS:
            suffixes, nodes, predicted = fed(model, prompts, [texts[:count]] * BATCH)
            times["products", count] = flops(products(model, suffixes + nodes, predicted)) * 1e-12
            cells, grown = [f"{nodes / BATCH:.0f}"], 0.0
            for way in ("products", *COUNTED):
                grown = times[way, count] / times[way, COUNTS[0]]
                cells += [f"{times[way, count] / BATCH * 1e3:.{1 if way == 'products' else 0}f}", f"{grown:.2f}"]
            judged = count == COUNTS[-1] and texts is not unrelated
            verdict = ("holds" if grown <= AT_MOST else "MISSED") if judged else ""
            print(f"| {name} | {count} | {' | '.join(cells)} | {verdict} |", flush=True)
    print()


def name_of(model: LanguageModel) -> str:
    """Of its dtype."""
    return str(model.model.dtype).removeprefix("torch.")


def machine() -> str:
    """What the figures depend on, in one line."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in told.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    speeds = ", ".join(f"{speed:.0f} in {str(dtype)[6:]}" for dtype, speed in product_speeds().items())
    return (
        f"{fields.get('model name', platform.machine())} ({', '.join(flags)}), {torch.get_num_threads()} thread(s), "
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, torch {torch.__version__}; GFLOP/s: {speeds}"
    )


def dtypes(asked: str | None) -> list[torch.dtype]:
    """Those to measure."""
    if asked:
        return [getattr(torch, asked)]
    return [torch.bfloat16, torch.float32] if faster_dtype() == torch.bfloat16 else [torch.float32]


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5, help="turns of every way; the best one counts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="only this one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{machine()}\n")
    for number, dtype in enumerate(dtypes(options.dtype)):
        model = LanguageModel.load("smollm2-135m", dtype=dtype)
        prompts = prompts_of(model, BATCH if dtype == torch.float32 else COMPARED)
        lengths = sorted(map(len, model.tokens(prompts)))
        if number == 0:
            print(f"{BATCH} distinct prompts of {lengths[0]} to {lengths[-1]} tokens,", end=" ")
            print(f"{len(model.shared_tokens(INSTRUCTION))} of them the instruction; best of {options.turns} turns\n")
        print_ways(model, prompts, options.turns)
        print_counts(model, prompts[:BATCH], options.turns)


if __name__ == "__main__":
    main()
