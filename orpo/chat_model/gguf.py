"""GGUF files as models: read once through transformers, kept as safetensors in a cache, loaded from there.

llama.cpp, Ollama and LM Studio keep models in this format. transformers takes the weights out of their quantisation,
which takes a while, and what it returns refuses to be saved; so the tensors are written here, in bfloat16, beside a
clean configuration and the tokenizer. A folder appears in the cache whole or not at all.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Final

from orpo.command.errors import ModelError
from orpo.command.paths import cache_folder

GGUF_SUFFIX: Final = ".gguf"
_MAGIC: Final = b"GGUF"


def is_gguf(name: str) -> bool:
    """Tell whether a model is named by a GGUF file."""
    return name.lower().endswith(GGUF_SUFFIX)


def convert_gguf(file: Path, *, name: str = "") -> Path:
    """Return a model folder with what a GGUF file holds, converted now or before.

    Args:
        file: The GGUF file; a model of an architecture that transformers reads from this format.
        name: What the folder is called, besides its hash; the file's own name if not given.
    """
    _check_magic(file)
    digest = _sha256(file)
    folder = cache_folder() / "models" / f"{_slug(name or file.stem)}-{digest[:16]}"
    if (folder / "config.json").is_file():
        return folder
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _convert(file, partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **place)
        model = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.bfloat16, **place)
    except Exception as problem:  # gguf, numpy, transformers and tokenizers have errors of their own
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise ModelError(f"{file}: cannot be read as a GGUF model ({reason})") from problem
    folder.mkdir(parents=True)
    config = model.config
    del config.quantization_config
    config.architectures = [type(model).__name__]
    seen: set[int] = set()
    weights = {}
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # tied weights are written once
            seen.add(tensor.data_ptr())
            weights[key] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(str(folder))
    model.generation_config.save_pretrained(str(folder))
    config.save_pretrained(str(folder))


def _check_magic(file: Path) -> None:
    with file.open("rb") as stream:
        if stream.read(4) != _MAGIC:
            raise ModelError(f"{file}: is not a GGUF file, or it is damaged: it does not begin with GGUF")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
