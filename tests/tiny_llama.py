"""A language model of a few narrow layers, for tests of what trains one."""

import warnings
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from astray.agents.language_model import LanguageModel


def save_tiny_llama(folder: Path, layers: int = 2, seed: int = 0) -> str:
    """Writes a random Llama, and the tokenizer of SmolLM2 beside it, into a folder that ``model=`` takes."""
    torch.set_num_threads(1)
    tokenizer = LanguageModel.load(dtype=torch.float32).tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.1,
    )
    torch.manual_seed(seed)
    with warnings.catch_warnings(action="ignore"):
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
