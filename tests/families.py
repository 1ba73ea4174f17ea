"""Small random models of many families, and what they compute of whole sequences: what scores must equal."""

import random
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from astray.agents.trie import Tokens

DEPTH, VOCABULARY, WINDOW = 3, 128, 6

# wide initialisations, so that random models have opinions and a wrong mask or position shows
SHAPE: dict[str, Any] = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=DEPTH,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    initializer_range=0.2,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
NARROW: dict[str, Any] = dict(
    vocab_size=VOCABULARY, n_embd=32, n_layer=DEPTH, n_head=4, n_positions=64, initializer_range=0.2, bos_token_id=1
)
MIXED = dict(sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
HEADS = dict(head_dim=8)
OPT = {key: value for key, value in SHAPE.items() if key != "intermediate_size"} | dict(ffn_dim=48, init_std=0.2)
FALCON = {key: value for key, value in SHAPE.items() if key != "intermediate_size"}
NEO = SHAPE | dict(num_layers=DEPTH, num_heads=4, window_size=WINDOW)

IN_ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SHAPE),
    "llama-tied": ("llama", SHAPE | dict(tie_word_embeddings=True)),
    "qwen2": ("qwen2", SHAPE),
    "qwen2-window-above": ("qwen2", SHAPE | dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "qwen2-mixed": ("qwen2", SHAPE | MIXED | dict(use_sliding_window=True)),
    "qwen3-mixed": ("qwen3", SHAPE | HEADS | MIXED | dict(use_sliding_window=True)),
    "smollm3": ("smollm3", SHAPE | MIXED | dict(use_sliding_window=True, no_rope_layers=[1, 0, 1])),
    "gemma": ("gemma", SHAPE | HEADS),
    "gemma2": (
        "gemma2",
        SHAPE | HEADS | MIXED | dict(query_pre_attn_scalar=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    ),
    "gemma3": ("gemma3_text", SHAPE | HEADS | MIXED | dict(query_pre_attn_scalar=8, final_logit_softcapping=5.0)),
    "gemma3-with-eyes": (
        "gemma3",
        dict(
            text_config=SHAPE | HEADS | MIXED,
            vision_config=dict(
                hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8
            ),
            mm_tokens_per_image=4,
            image_token_id=VOCABULARY - 1,
        ),
    ),
    "gpt2": ("gpt2", NARROW),
    "gpt-j": ("gptj", NARROW | dict(rotary_dim=4)),
    "gpt-neox": ("gpt_neox", SHAPE),
    "gpt-neox-serial": ("gpt_neox", SHAPE | dict(use_parallel_residual=False)),
    "gpt-neo-global": ("gpt_neo", NEO | dict(attention_types=[[["global"], DEPTH]])),
    "mistral-window": ("mistral", SHAPE | dict(sliding_window=WINDOW)),
    "mixtral": ("mixtral", SHAPE | dict(sliding_window=WINDOW, num_local_experts=3)),
    "phi": ("phi", SHAPE),
    "phi3-window": ("phi3", SHAPE | dict(sliding_window=WINDOW)),
    "opt": ("opt", OPT | dict(word_embed_proj_dim=32)),
    "opt-projected": ("opt", OPT | dict(word_embed_proj_dim=16, do_layer_norm_before=False)),
    "falcon": ("falcon", FALCON | dict(alibi=False)),
}
ONE_BY_ONE: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("bloom", dict(vocab_size=VOCABULARY, hidden_size=32, n_layer=DEPTH, n_head=4, initializer_range=0.2)),
    "mpt": ("mpt", dict(vocab_size=VOCABULARY, d_model=32, n_layers=DEPTH, n_heads=4, initializer_range=0.2)),
    "falcon-alibi": ("falcon", FALCON | dict(alibi=True, multi_query=False)),
    "gpt-neo-local": ("gpt_neo", NEO | dict(attention_types=[[["global", "local", "global"], 1]])),
    "mamba": ("mamba", dict(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=DEPTH, state_size=4)),
}


def build(kind: str, arguments: dict[str, Any]) -> PreTrainedModel:
    """A random model, its weights frozen."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        config = AutoConfig.for_model(kind, **arguments)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    for weight in model.parameters():
        weight.requires_grad_(False)
        if weight.dim() == 1:  # norms and biases begin as ones and zeros, which hide that one is left out
            weight += 0.1 * torch.randn_like(weight)
    return model.eval()


class Questions(NamedTuple):
    prefix: Tokens
    prompts: list[Tokens]
    candidates: list[tuple[Tokens, ...]]


def questions() -> Questions:
    """Prompts shorter and longer than the window, most with one beginning; up to 100 candidates in trees and alone."""
    draw = random.Random(0)

    def tokens(count: int) -> Tokens:
        return tuple(draw.randrange(3, VOCABULARY - 8) for _ in range(count))

    prefix, stem = tokens(WINDOW + 3), tokens(3)
    tree = (stem + tokens(WINDOW), (*stem, 7), (*stem, 8, 9), stem[:1] + tokens(2), tokens(2), (4,))
    hundred = tuple(dict.fromkeys((a, b) for a in tokens(10) for b in tokens(10)))
    prompts = [prefix + tokens(1), prefix + tokens(14), tokens(4), prefix + tokens(7), tokens(20)]
    return Questions(
        prefix, [*prompts, prompts[1]], [tree, tree, ((5,), (6,), (7,)), hundred[:100], (tree[0],), tree[::-1]]
    )


QUESTIONS = questions()


def whole_sequences(
    model: Any, prompts: list[Tokens], candidates: list[tuple[Tokens, ...]]
) -> tuple[list[Tensor], Tensor]:
    """Log-probabilities of each prompt's edges, in the order they are met, and hidden states of the prompts' ends.

    Every sequence is fed whole, without a mask, beside others of its length.
    """
    pairs = [(prompt, candidate) for prompt, options in zip(prompts, candidates, strict=True) for candidate in options]
    log_probs, hidden = {}, {}
    for length in {len(prompt + candidate) for prompt, candidate in pairs}:
        alike = [pair for pair in pairs if len(pair[0] + pair[1]) == length]
        rows = model(torch.tensor([prompt + candidate for prompt, candidate in alike]), use_cache=False).logits
        log_probs |= dict(zip(alike, rows.log_softmax(-1), strict=True))
    for prompt in set(prompts):
        hidden[prompt] = model.base_model(torch.tensor([prompt]), use_cache=False).last_hidden_state[0, -1]
    edges = []
    for prompt, options in zip(prompts, candidates, strict=True):
        found: dict[Tokens, Tensor] = {}
        for candidate in options:
            for depth, token in enumerate(candidate):
                value = log_probs[prompt, candidate][len(prompt) - 1 + depth, token]
                found.setdefault(candidate[: depth + 1], value)
        edges.append(torch.stack(list(found.values())))
    return edges, torch.stack([hidden[prompt] for prompt in prompts])
