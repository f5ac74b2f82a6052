"""A real llama.cpp, asked over HTTP on the loopback: what it makes of a conversation, and how it goes on.

It runs in a process of its own, since a file that it does not like may end the process, and its log goes to a file.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import requests

from orpo.command.errors import ExportError, SettingsError
from orpo.records.messages import Message

_LISTED: Final = 20  # likeliest first tokens to compare
_SECONDS: Final = 600  # for one reply; a large model on a slow machine takes long


@dataclass(frozen=True)
class Continuation:
    """How llama.cpp went on after a prompt.

    Attributes:
        ids: The tokens, the end token left out.
        ended: Whether it ended the reply, rather than the limit.
        first_log_probs: Log-probabilities of the likeliest first tokens, by id; empty where none are listed.
    """

    ids: list[int]
    ended: bool
    first_log_probs: dict[int, float]


def require_llama_cpp() -> None:
    """Raise SettingsError, with the remedy, where llama.cpp is not installed."""
    if find_spec("xllamacpp") is None:
        raise SettingsError(
            "asks a real llama.cpp, for which the package xllamacpp is needed; `uv sync --extra gguf` installs it, or "
            "switch the check off",
            setting="check",
        )


class LlamaCpp:
    """llama.cpp with a model loaded, and a LoRA adapter on it where there is one; a context manager."""

    def __init__(self, model: Path, adapter: Path | None, *, context: int, threads: int) -> None:
        """Start it.

        Args:
            model: A GGUF file.
            adapter: A GGUF file with a LoRA adapter.
            context: How many tokens a prompt and its reply may have.
            threads: How many threads it computes with.

        Raises:
            ExportError: It does not take the files; its own words are in the message.
        """
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy for the network is none for the loopback
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        asked = {"model": str(model), "adapter": adapter and str(adapter), "context": context, "threads": threads}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "orpo.exporting.llama_cpp_process", json.dumps(asked)],
            stdin=subprocess.PIPE,  # it ends when this is closed, so also when this process is killed
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        self._address = ""
        for line in self._process.stdout:
            if line.startswith("listening "):
                self._address = line.split()[1]
                break
        if not self._address:
            self._process.wait()
            said = self._last_words()
            self.close()
            raise ExportError(f"llama.cpp does not load what was exported ({said}); nothing is kept")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._session.close()
        self._log.close()

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that a conversation becomes, by the template in the file, as for a chat request."""
        rendered = self._post("/apply-template", {"messages": list(messages)})["prompt"]
        found = self._post("/tokenize", {"content": rendered, "add_special": True, "parse_special": True})["tokens"]
        assert isinstance(found, list)
        return [int(token) for token in found]

    def continue_from(self, ids: Sequence[int], max_new_tokens: int) -> Continuation:
        """Return the greedy continuation of a prompt."""
        found = self._post(
            "/completion",
            {
                "prompt": list(ids),
                "n_predict": max_new_tokens,
                "temperature": 0,
                "repeat_penalty": 1,
                "cache_prompt": False,
                "return_tokens": True,
                "n_probs": _LISTED,
            },
        )
        tokens, listed = found["tokens"], found.get("completion_probabilities", [])
        assert isinstance(tokens, list) and isinstance(listed, list)
        # A token that ends the reply, or that is but a part of a character, is not listed.
        is_first = bool(tokens and listed) and listed[0]["id"] == tokens[0]
        first = {int(one["id"]): float(one["logprob"]) for one in listed[0]["top_logprobs"]} if is_first else {}
        return Continuation([int(token) for token in tokens], found["stop_type"] == "eos", first)

    def _post(self, path: str, body: dict[str, object]) -> dict[str, object]:
        try:
            answer = self._session.post(self._address + path, json=body, timeout=_SECONDS)
            answer.raise_for_status()
            found: dict[str, object] = answer.json()
        except (requests.RequestException, ValueError) as problem:
            raise ExportError(
                f"llama.cpp did not answer ({self._last_words() or problem}); nothing is kept"
            ) from problem
        return found

    def _last_words(self) -> str:
        """Return the last error that llama.cpp logged."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        errors = [line.partition(" E ")[2] for line in lines if " E " in line]
        return (errors or lines or [""])[0][:200]
