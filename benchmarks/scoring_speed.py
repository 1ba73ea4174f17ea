"""Speed of scoring action texts, beside the plain way: one sequence per candidate, as GLAM and TWOSOME compute it.

``python benchmarks/scoring_speed.py`` prints decisions per second for 16 distinct observations of CheeseCorner, 4 and
7 candidate actions, on one thread, and the largest difference between the two ways in float32.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from astray.agents.language_model import LanguageModel
from astray.agents.vec_env import vec_env
from astray.envs.text import decode

MOVES = ["go north", "go south", "go west", "go east"]
MORE = ["eat the cheese", "look around", "wait"]
BATCH, TURNS = 16, 3


@torch.no_grad()
def plain(model: LanguageModel, prompts: list[str], candidates: list[list[str]]) -> Tensor:
    """A padded sequence for each prompt and candidate, log-softmax everywhere: ``float32[prompts, actions]``."""
    pairs = [model.encode(*pair) for pair in zip(prompts, candidates, strict=True)]
    rows = [(start, rest) for start, rests in pairs for rest in rests]
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(start + rest) for start, rest in rows], batch_first=True)
    lengths = torch.tensor([len(start + rest) for start, rest in rows])
    mask = (torch.arange(batch.shape[1]) < lengths[:, None]).long()
    log_probs = model.model(input_ids=batch, attention_mask=mask).logits.float().log_softmax(-1)
    scores = [
        log_probs[i, len(start) - 1 : len(start) + len(rest) - 1].gather(1, torch.tensor(rest)[:, None]).sum()
        for i, (start, rest) in enumerate(rows)
    ]
    return torch.stack(scores).view(len(prompts), -1)


@torch.no_grad()
def ours(model: LanguageModel, prompts: list[str], candidates: list[list[str]]) -> Tensor:
    """One forward over prompts and tries of candidates, the instruction shared."""
    return torch.stack(model.score(prompts, candidates))


def seconds(way: Callable[..., Tensor], *arguments: Any) -> float:
    """Of one call."""
    start = perf_counter()
    way(*arguments)
    return perf_counter() - start


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    envs = vec_env("cheese-corner", 4 * BATCH, shift=1.0)
    texts = list(dict.fromkeys(decode(envs.reset())))[:BATCH]
    print(f"{BATCH} distinct prompts, one thread, best of {TURNS} turns\n")
    print("| dtype | actions | plain, decisions/s | Astray, decisions/s | ratio | largest difference |")
    print("|---|--:|--:|--:|--:|--:|")
    for dtype in (torch.bfloat16, torch.float32):
        model = LanguageModel.load("smollm2-135m", dtype=dtype)
        prompts = [model.prompt(envs.world.instruction, text) for text in texts]
        for actions in (MOVES, MOVES + MORE):
            candidates = [actions] * BATCH
            difference = (plain(model, prompts, candidates) - ours(model, prompts, candidates)).abs().max()
            times = [[seconds(way, model, prompts, candidates) for way in (plain, ours)] for _ in range(TURNS)]
            slow, fast = (BATCH / min(column) for column in zip(*times, strict=True))
            name = str(dtype).removeprefix("torch.")
            row = (name, len(actions), f"{slow:.1f}", f"{fast:.1f}", f"{fast / slow:.1f}", f"{difference:.2g}")
            print(f"| {' | '.join(map(str, row))} |")


if __name__ == "__main__":
    main()
