"""A conversation in the terminal: streamed replies, several turns, the adapter on or off."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from orpo.chat_model.chat_template import encode_prompt
from orpo.chat_model.generation import check_context, context_length
from orpo.chat_model.streaming import stream_reply
from orpo.command.errors import InputError
from orpo.command.safe_text import printable
from orpo.records.messages import Message, with_system
from orpo.records.replies import Sampling

HELP = (
    "/reset forgets the conversation, /base and /tuned choose the model, /quit or Ctrl-D leaves, Ctrl-C stops a reply"
)


@dataclass(eq=False)
class TerminalChat:
    """Holds the conversation and answers line by line, with the tuned model first where there is one.

    Attributes:
        model: A PeftModel, or a plain model when only the base is there.
        tokenizer: Its tokenizer.
        sampling: How tokens are picked.
        seed: Seed of the first reply; each further reply has the next one.
        system: The system prompt, if any.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    seed: int
    system: str | None = None
    _messages: list[Message] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._tuned = isinstance(self.model, PeftModel)
        self._commands: dict[str, Callable[[], str]] = {
            "/help": lambda: HELP,
            "/reset": self._reset,
            "/base": self._use_base,
            "/tuned": self._use_tuned,
        }

    def run(self) -> None:
        """Talk until /quit or the end of the input; Ctrl-C stops only a reply."""
        interactive = _prepare_input()
        if interactive:
            print(HELP, flush=True)
        while True:
            try:
                line = input("you> " if interactive else "")
            except EOFError:
                break
            except KeyboardInterrupt:
                if not interactive:
                    raise
                print("\n(Ctrl-D or /quit leaves)", flush=True)
                continue
            if line.strip() in ("/quit", "/exit"):
                return
            self._handle(line)
        if interactive:
            print(flush=True)

    def _handle(self, line: str) -> None:
        text = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
        if text in self._commands:
            print(f"({self._commands[text]()})", flush=True)
        elif text.startswith("/") and text[1:].isalpha():
            print(f"({text} is not a command; {HELP})", flush=True)
        elif text:
            self._answer(text)

    def _answer(self, text: str) -> None:
        self._messages.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            conversation = self._fitting_conversation()
            check_context(self.model, [encode_prompt(self.tokenizer, conversation)], self.sampling.max_new_tokens)
            print(f"{'tuned' if self._tuned else 'base'}> ", end="", flush=True)
            with self._adapter_switch():
                pieces = stream_reply(self.model, self.tokenizer, conversation, self.sampling, seed=self.seed)
                with contextlib.closing(pieces):  # type: ignore[type-var]
                    for piece in pieces:
                        said.append(piece)
                        print(printable(piece), end="", flush=True)
            print(flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", flush=True)
        except InputError as problem:
            print(printable(f"({problem})"), flush=True)
        self.seed += 1
        if said:
            self._messages.append({"role": "assistant", "content": "".join(said)})
        else:
            self._messages.pop()

    def _fitting_conversation(self) -> list[Message]:
        """Drop the oldest turns until the conversation leaves room for a reply."""
        limit = context_length(self.model)
        while True:
            conversation = with_system(self.system, self._messages)
            room = limit is None or self._length(conversation) + self.sampling.max_new_tokens <= limit
            if room or len(self._messages) < 3:
                return conversation
            del self._messages[:2]

    def _length(self, conversation: list[Message]) -> int:
        return len(encode_prompt(self.tokenizer, conversation))

    def _adapter_switch(self) -> AbstractContextManager[None]:
        if self._tuned or not isinstance(self.model, PeftModel):
            return nullcontext()
        switch: AbstractContextManager[None] = self.model.disable_adapter()
        return switch

    def _reset(self) -> str:
        self._messages.clear()
        return "a new conversation"

    def _use_base(self) -> str:
        self._tuned = False
        return "the base model answers now"

    def _use_tuned(self) -> str:
        if not isinstance(self.model, PeftModel):
            return "there is no tuned model here"
        self._tuned = True
        return "the tuned model answers now"


def _prepare_input() -> bool:
    """Make typing comfortable on a terminal and piped input UTF-8; return whether it is a terminal."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # absent on Windows
            import readline  # noqa: F401  importing it gives `input` history and line editing
        return True
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return False
