"""Which weights of a language model learn: low-rank adapters, or layers themselves."""

import json
import warnings
from pathlib import Path

from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from astray.agents.body import layers_of
from astray.envs import InputError

BASE = "base_model_fingerprint"


def unfreeze(model: PreTrainedModel, layers: int, rank: int | None, alpha: int) -> nn.Module:
    """Lets the highest layers of a frozen model learn.

    Args:
        model: all its weights frozen.
        layers: how many layers learn.
        rank: of LoRA adapters (Hu et al. 2021) on every linear map of these layers, float32 and without dropout; None
            unfreezes the layers' own weights, and with all layers every weight of the model.
        alpha: adapters are multiplied by ``alpha / rank``.

    Returns:
        The model; with adapters, as a ``PeftModel`` around it.

    Raises:
        InputError: the model has fewer layers, the rank is no rank, or the weights to train are not float32.
    """
    depth = model.config.get_text_config().num_hidden_layers
    if not 0 <= layers <= depth:
        raise InputError(f"trained_layers={layers} must be 0 to {depth}, the number of layers of the model")
    if rank is not None and rank < 1:
        raise InputError(f"lora_rank={rank} must be at least 1, or None to train the layers' own weights")
    if layers == 0:
        return model
    name, stack = layers_of(model, depth)
    if rank is None:
        if not model.dtype.is_floating_point or model.dtype.itemsize < 4:
            raise InputError(
                f"lora_rank=None trains the model's own weights, which takes float32 and not {model.dtype}"
            )
        (model if layers == depth else stack[depth - layers :]).requires_grad_(True)
        return model
    targets = {
        f"{name}.{number}.{part}": module
        for number in range(depth - layers, depth)
        for part, module in stack[number].named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=list(targets),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets.values()),
    )
    with warnings.catch_warnings(action="ignore"):  # PEFT asks transformers for a property under its old name
        return get_peft_model(model, config)


def adapter_files(network: PeftModel, fingerprint: str) -> dict[str, bytes]:
    """The files of a plain PEFT folder, by name: what ``PeftModel.from_pretrained`` opens.

    The fingerprint of the base model stands in the metadata of the weights.
    """
    config = network.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = json.dumps(config, indent=2, sort_keys=True, default=_as_json)
    state = get_peft_model_state_dict(network, save_embedding_layers=False)  # else it asks the hub for the base model
    weights = {name: weight.contiguous() for name, weight in state.items()}
    return {
        "adapter_config.json": plain.encode(),
        "adapter_model.safetensors": save(weights, {"format": "pt", BASE: fingerprint}),
    }


def _base_of(file: Path) -> str | None:
    """The fingerprint of the base model, where ``adapter_files`` made the file."""
    if not file.is_file():
        return None
    with safe_open(file, "pt") as weights:
        return (weights.metadata() or {}).get(BASE)


def _as_json(value: object) -> object:
    return sorted(value) if isinstance(value, set) else str(value)


def load_adapter(network: PeftModel, folder: Path, fingerprint: str) -> None:
    """Loads a PEFT folder into adapters of the same shape.

    Raises:
        InputError: there is none; or its base model, layers, rank or strength are others. The base model is known by
            its fingerprint, or where PEFT alone wrote the folder, by its name.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text())
        weights = load_peft_weights(str(folder), device="cpu")
        theirs_base = _base_of(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"the folder {str(folder)!r} holds no adapter that PEFT can read: {error}") from error
    ours = {
        key.replace(".default.", "."): weight.shape for key, weight in network.state_dict().items() if "lora" in key
    }
    theirs = {key: weight.shape for key, weight in weights.items()}
    mine = network.peft_config["default"]
    base = mine.base_model_name_or_path
    if theirs_base is not None and theirs_base != fingerprint:
        raise InputError(
            f"the adapter in {str(folder)!r} belongs to a base model with fingerprint {theirs_base}, but {base} has "
            f"{fingerprint}"
        )
    if theirs_base is None and config.get("base_model_name_or_path") != base:
        raise InputError(
            f"the adapter in {str(folder)!r} belongs to the model {config.get('base_model_name_or_path')!r}, "
            f"this policy has {base!r}"
        )
    if ours != theirs:
        key = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
        raise InputError(
            f"the adapter in {str(folder)!r} has other layers or another rank than this policy: they differ in {key}"
        )
    for name in ("lora_alpha", "use_rslora", "alpha_pattern", "rank_pattern"):
        if (config.get(name) or None) != (getattr(mine, name) or None):
            raise InputError(
                f"the adapter in {str(folder)!r} acts with another strength than this policy's: {name} is "
                f"{config.get(name)!r}, not {getattr(mine, name)!r}"
            )
    set_peft_model_state_dict(network, weights)
